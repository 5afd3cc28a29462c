"""What `--datasets all` selects, and what it says about the rest."""

from dataclasses import replace

import small_homes
from dataset_files import make_dataset

from harness.data import reader
from harness.record.ledger import Ledger
from harness.search import plan, selection
from harness.workflows import run_bench


def test_all_is_what_is_on_this_machine_and_the_rest_is_named_with_the_command_that_gets_it(tmp_path):
    home, folder = tmp_path / "home", make_dataset(tmp_path / "toy")
    reader.register("mine", folder, home)
    assert selection.datasets("all", home) == ["mine", "ml-100k"]
    away = selection.not_ready("all", home)
    assert not {"mine", "ml-100k"} & {*away}
    assert {"amazon2014-beauty", "ml-1m", "steam"} < {*away}
    assert "steam" not in selection.not_ready("all,!steam", home)
    assert selection.not_ready("mine", home) == selection.not_ready("amazon2014-*", home) == []
    grid = plan.make(small_homes.request(home, folder, "id"), Ledger.open(home))
    assert run_bench.remarks(grid) == []
    grid.request = replace(grid.request, datasets="all")
    [line] = run_bench.remarks(grid)
    assert line.startswith(f"--datasets all: toy. {len(away)} other data sets are not on this machine")
    assert "`harness prepare amazon2014-office amazon2014-beauty ml-1m` downloads and adds them" in line

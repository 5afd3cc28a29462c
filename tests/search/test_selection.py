"""What `--datasets all` selects, and what it says about the rest."""

import shutil
from dataclasses import replace

import small_homes
from dataset_files import make_dataset

from harness.data import reader
from harness.record.ledger import Ledger
from harness.search import ensembles, plan, selection
from harness.types import NO_TEXT, Cell
from harness.workflows import run_bench, shared_data


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


def test_cells_of_the_same_content_under_two_names_share_one_search(home, dataset, tmp_path):
    """Queued twice, a trial that a kill interrupted would be waited for without end."""
    shutil.copytree(dataset, tmp_path / "copy")
    grid = plan.make(small_homes.request(home, f"{dataset},{tmp_path / 'copy'}", "id,svd"), Ledger.open(home))
    assert len(grid.studies) == 2 * len(grid.pending)
    counts = grid.counts()
    assert (counts["cells"], counts["to_run"]) == (len(grid.studies), counts["trials"])
    ran = small_homes.train(grid, shared_data.prepare(grid))
    assert (ran, grid.counts()["done"]) == (counts["to_run"], counts["cells"])


def test_an_adapter_without_text_has_one_cell_whatever_the_encoders():
    chosen = ensembles.select("id,id_gain,svd", 2)
    found = selection.cells("toy", ["sasrec"], chosen, ["minilm", "noise"])
    trained = [cell for cell in found if not cell.is_baseline]
    assert [(cell.adapter, cell.encoder) for cell in trained[:2]] == [("id", NO_TEXT), ("id_gain", NO_TEXT)]
    assert trained[2:] == [Cell("toy", encoder, "sasrec", "svd") for encoder in ("minilm", "noise")]

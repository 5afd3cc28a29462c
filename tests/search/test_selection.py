"""What `--datasets all` selects, and what it says about the rest."""

import shutil
from dataclasses import replace

import pytest
import small_homes
from dataset_files import make_dataset

from harness.data import reader
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import ensembles, plan, selection
from harness.types import NO_TEXT, Cell, HarnessError
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


def rows(home, dataset, adapters, backbones="sasrec"):
    """Adapters of the rows with a model, in order, and the backbones."""
    grid = plan.make(small_homes.request(home, dataset, adapters, backbones=backbones), Ledger.open(home))
    trained = [study.cell for study in grid.studies if study.cell.is_trained]
    return list(dict.fromkeys(cell.adapter for cell in trained)), {cell.backbone for cell in trained}


def record(home, dataset, *words):
    """Record a launch whose rows have these names, as an earlier version wrote them."""
    made = plan.make(small_homes.request(home, dataset, "mlp"), Ledger.open(home)).studies[-1].record()
    segment = Segment(home)
    cells = [replace(made, id=word, cell=replace(made.cell, adapter=word)).to_json() for word in words]
    segment.append("launched", schema=1, studies=cells, skipped=[], provenance={})
    segment.close()


SAME = ["mlp[dropout=0,hidden=8]", "mlp[hidden=8,dropout=0.0]", "mlp[ dropout = 0 , hidden = 8 ]"]


def test_spellings_of_one_configuration_are_one_row(home, dataset):
    assert {tuple(rows(home, dataset, word)[0]) for word in SAME} == {("mlp[dropout=0.0,hidden=8]",)}
    assert rows(home, dataset, "mlp[],mlp")[0] == ["mlp"]
    assert rows(home, dataset, 'mlp[activation="relu"],mlp[activation=relu]')[0] == ["mlp[activation=relu]"]
    assert rows(home, dataset, "svd[trainable=True]")[0] == ["svd[trainable=true]"]
    assert rows(home, dataset, "id", "sasrec[ n_heads=1 ],sasrec[n_heads=1]")[1] == {"sasrec[n_heads=1]"}


def test_an_ensemble_has_the_spelling_of_its_parts(home, dataset):
    names = {
        tuple(plan.make(small_homes.request(home, dataset, f"{word}+id"), Ledger()).studies[-1].cell.parts)
        for word in SAME
    }
    assert names == {("id", "mlp[dropout=0.0,hidden=8]")}


def test_a_spelling_that_the_ledger_has_stays(home, dataset):
    record(home, dataset, SAME[0], "gone[x=1]", "mlp[activation=swish]")
    assert {tuple(rows(home, dataset, word)[0]) for word in SAME} == {(SAME[0],)}
    record(home, dataset, SAME[1])
    assert {tuple(rows(home, dataset, word)[0]) for word in SAME} == {(SAME[1],)}, "the newest one"


@pytest.mark.parametrize("words", ["mlp[dropout=0.1,dropout=0.2]", "id+mlp[dropout=0.1, dropout=0.1]"])
def test_a_parameter_is_fixed_once(home, dataset, words):
    with pytest.raises(HarnessError, match="fixes dropout twice; keep one of its values"):
        plan.check(small_homes.request(home, dataset, words), Ledger())

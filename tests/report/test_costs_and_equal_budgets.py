"""What rows cost, which of them nobody beats for less, and who was given less than others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic_ledgers
from dataset_files import make_dataset
from hypothesis import given
from hypothesis import strategies as st
from small_homes import request
from synthetic_results import cell, results, run, seeds

from harness.record.ledger import Ledger
from harness.report import ledger_frames as ledger_results
from harness.report.tables import Results, Row, build, render
from harness.report.tables import _captions as words
from harness.report.tables._build import fronts
from harness.report.tables._parity import parity
from harness.search import plan, spaces

ID, SVD, MLP = (("beauty", "minilm" if name != "id" else "none", "sasrec", name) for name in ("id", "svd", "mlp"))
POPULARITY = ("beauty", "none", "none", "popularity")
SCORES = {ID: 0.6, SVD: 0.0, MLP: 0.3}  # a shift: the larger the worse


def made(cells: dict[tuple, dict], infos: dict[tuple, dict] | None = None) -> dict[str, Row]:
    """Rows by adapter, of cells that differ from usual ones in what is given."""
    own = results({key: seeds(SCORES.get(key, 3.0)) for key in cells}, [cell(key, **it) for key, it in cells.items()])
    if infos is not None:
        runs = [run(key, seed, info=info) | info for key, info in infos.items() for seed in range(3)]
        own = Results(own.runs.clear().vstack(type(own.runs)(runs, schema=own.runs.schema)), own.ranks, own.cells)
    return {row.cell.adapter: row for row in build(own).sections[0].rows}


def beaten(own: tuple, others: list[tuple]) -> bool:
    """By a plain loop: somebody as good and as cheap, and better in one."""
    return any(s >= own[0] and c <= own[1] and (s > own[0] or c < own[1]) for s, c in others)


numbers = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(st.none() | numbers, st.none() | numbers, st.none() | numbers), max_size=8))
def test_the_front_is_who_is_not_beaten_in_both(rows):
    found = fronts([(score, {"a": a, "b": b}) for score, a, b in rows])
    for place, name in ((1, "a"), (2, "b")):
        known = [(row[0], row[place]) for row in rows if None not in (row[0], row[place])]
        for row, own in zip(rows, found, strict=True):
            on_it = None not in (row[0], row[place]) and not beaten((row[0], row[place]), known)
            assert (name in own) == on_it


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_somebody_is_always_on_the_front(rows):
    found = fronts([(score, {"a": a}) for score, a in rows])
    assert ("a",) in found
    best = max(rows, key=lambda row: (row[0], -row[1]))
    assert found[rows.index(best)] == ("a",), "the best row at its least cost"


def test_a_dearer_and_worse_row_is_off_the_front_in_the_table_and_its_formats():
    cells = {ID: {"search_seconds": 10.0}, SVD: {"search_seconds": 50.0}, MLP: {"search_seconds": 60.0}}
    infos = {
        key: {"parameters": count, "seconds": 5.0, "peak_mb": 100.0}
        for key, count in zip(cells, (9, 9, 7), strict=True)
    }
    rows = made(cells, infos)
    assert rows["svd"].front == ("parameters", "train_seconds", "search_seconds"), "peak memory has no front"
    assert rows["mlp"].front == ("parameters",), "worse than svd, and smaller"
    assert rows["id"].front == ("search_seconds",), "the worst, and the cheapest to search"
    assert {row.costs["energy_wh"] for row in rows.values()} == {None}


def test_a_failed_row_has_a_cost_and_no_place_on_the_front():
    none = {"trials_done": 0, "trials_pruned": 0, "trials_failed": 3, "seeds_done": 0, "state": "failed"}
    own = results({ID: seeds(0.6)}, [cell(ID, search_seconds=900.0), cell(SVD, **none, search_seconds=1.0)])
    rows = {row.cell.adapter: row for row in build(own).sections[0].rows}
    assert rows["svd"].costs["search_seconds"] == 1.0
    assert rows["svd"].front == ()
    assert "search_seconds" in rows["id"].front


def test_energy_is_shown_where_the_machine_said_it_and_else_the_notes_say_so():
    rows = {ID: seeds(0.6), SVD: seeds(0.0)}
    own = results(rows)
    silent = build(own)
    assert "Energy was not measured: this machine does not report it." in " ".join(words.footnotes(silent))
    assert "energy Wh" not in render(silent, "md")
    infos = [run(key, seed, info={"energy_wh": 0.25, "peak_mb": 512.0}) for key in rows for seed in range(3)]
    told = build(Results(type(own.runs)(infos, schema=own.runs.schema), own.ranks, own.cells))
    assert "Energy was not measured" not in " ".join(words.footnotes(told))
    assert "energy Wh" in render(told, "md")
    assert "0.250 ◆" in render(told, "md")
    assert json.loads(render(told, "json"))["sections"][0]["rows"][0]["costs"]["energy_wh"] == 0.25


def test_times_of_unlike_machines_are_called_so():
    def told(**provenance) -> str:
        table = build(results({ID: seeds(0.6), SVD: seeds(0.0)}, header={"provenance": provenance}))
        return " ".join(words.footnotes(table))

    alike = {"machine": {"processor": "EPYC", "cores": 2}, "slots": 2, "code": ["a", "b"], "resources": {"each": [2]}}
    assert "measured alike" not in told(**alike)
    assert "measured alike" not in told()
    unlike = alike | {"machine": {"processor": ["EPYC", "Xeon"], "cores": 2}, "slots": [2, 4]}
    assert "Times of rows were not measured alike: processor EPYC, Xeon; slots 2, 4." in told(**unlike)


def test_what_a_gpu_cost_is_shown_where_a_row_ran_on_one():
    rows = {ID: seeds(0.6), SVD: seeds(0.0)}
    own = results(rows)
    assert "GPU" not in render(build(own), "md")
    infos = [run(key, seed, info={"gpu_seconds": 90.0, "peak_vram_mb": 2048.4}) for key in rows for seed in range(3)]
    told = build(Results(type(own.runs)(infos, schema=own.runs.schema), own.ranks, own.cells))
    text = render(told, "md")
    assert "| GPU |" in text
    assert "| peak GPU MB |" in text
    assert "2,048" in text
    row = json.loads(render(told, "json"))["sections"][0]["rows"][0]
    assert (row["costs"]["gpu_seconds"], row["costs"]["peak_vram_mb"]) == (90.0, 2048.4)
    assert "peak_vram_mb" in row["front"]


def test_rows_whose_batches_were_cut_for_want_of_memory_are_named_and_no_others():
    own = results({ID: seeds(0.6), SVD: seeds(0.0)})
    infos = [
        run(key, seed, info={"accumulated": 2.0} if key == SVD and not seed else {})
        for key in (ID, SVD)
        for seed in range(3)
    ]
    cut = build(Results(type(own.runs)(infos, schema=own.runs.schema), own.ranks, own.cells))
    note = "Batches in two parts, out of GPU memory: svd · minilm."
    assert note in cut.sections[0].remarks
    for name in ("terminal", "md", "html", "tex"):
        assert note.partition(":")[0] in render(cut, name)
        assert "Batches in two parts" not in render(build(own), name)


FEWER_TRIALS = {"trials_planned": 1, "trials_done": 1, "trials_pruned": 0}


def test_a_row_that_was_planned_less_is_marked_in_every_format_and_the_mark_explained():
    cells = {ID: {}, SVD: FEWER_TRIALS, MLP: {"seeds_planned": 2, "seeds_done": 2}}
    own = results(
        {key: seeds(SCORES[key], it.get("seeds_done", 3)) for key, it in cells.items()},
        [cell(k, **it) for k, it in cells.items()],
    )
    table = build(own)
    rows = {row.cell.adapter: row for row in table.sections[0].rows}
    assert "less" in rows["svd"].marks
    assert "less" in rows["mlp"].marks
    assert "less" not in rows["id"].marks
    assert not any("short" in row.marks for row in rows.values()), "each had all that was planned for it"
    assert "1 or 3 trials" in parity(table, table.sections[0])
    assert parity(table, table.sections[0]).endswith("smaller plan than others: svd · minilm, mlp · minilm.")
    for name in ("terminal", "md"):
        assert "★‡" in render(table, name)
    assert r"\ddagger" in render(table, "tex")
    for name in ("csv", "json"):
        assert "less" in render(table, name)
    explained = "smaller plan than other rows of its section"
    for name in ("terminal", "md", "tex", "html", "json"):
        assert explained in " ".join(str(render(table, name)).split())
    assert "‡" not in render(build(results({key: seeds(0.1) for key in (ID, SVD)})), "md")


def test_a_row_without_a_search_beside_searched_ones_is_told():
    none = {"trials_planned": 0, "trials_done": 0, "trials_pruned": 0}
    table = build(results({ID: seeds(0.6), SVD: seeds(0.0)}, [cell(ID), cell(SVD, **none)]))
    told = parity(table, table.sections[0])
    assert "3 trials or no search (default configurations), " in told
    assert told.endswith("all rows complete; smaller plan than others: svd · minilm.")


def test_baselines_skipped_cells_and_rows_of_equal_seconds_were_not_given_less():
    searched = {"trials_planned": 9, "trials_done": 9, "trials_pruned": 0}
    skipped = cell(("beauty", "minilm", "sasrec", "moe"), "skipped", "no text", trials_planned=0, seeds_planned=0)
    limited = {ID: searched | {"cell_seconds": 60.0}, SVD: FEWER_TRIALS | {"cell_seconds": 60.0}}
    baseline = {"trials_planned": 0, "trials_done": 0, "trials_pruned": 0, "seeds_done": 1, "seeds_planned": 1}
    cells = [*(cell(key, **it) for key, it in limited.items()), cell(POPULARITY, **baseline), skipped]
    own = results({ID: seeds(0.6), SVD: seeds(0.0), POPULARITY: seeds(3.0, 1)}, cells)
    rows = build(own).sections[0].rows
    assert not any("less" in row.marks for row in rows), "a slow method has fewer trials in the same time"


@pytest.mark.parametrize(("seconds", "marked"), [(30.0, True), (60.0, False)])
def test_a_row_of_fewer_seconds_was_given_less(seconds, marked):
    rows = made({ID: {"cell_seconds": 60.0}, SVD: {"cell_seconds": seconds, "trials_planned": 40, "trials_done": 40}})
    assert ("less" in rows["svd"].marks) == marked


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        (["train.lr", "text.fusion", "adapter.hidden"], "the rows search 1 to 3 dimensions"),
        (["text.fusion"], None),  # as many
        ([], None),  # nothing to search
        (None, None),  # not recorded
    ],
)
def test_the_certificate_states_how_many_dimensions_equal_trials_search(axes, sentence):
    cells = [cell(ID), cell(SVD, searched=axes)]
    table = build(results({ID: seeds(0.6), SVD: seeds(0.0)}, cells))
    text = parity(table, table.sections[0])
    if sentence is None:
        assert "dimensions" not in text
        return
    for name in ("terminal", "md", "tex", "html"):
        assert sentence in " ".join(render(table, name).split())


def test_the_certificate_names_the_published_setting_and_who_has_it():
    fixed = {"searched": [], "tuned": "fixed", "setting": "gsasrec", "trials_planned": 1, "trials_done": 1}
    header = {"settings": {"gsasrec": "gSASRec, Petrov & Macdonald 2023."}}
    for others, who in (({}, "svd · minilm"), (fixed, "all trained rows")):
        cells = [cell(ID, **others), cell(SVD, **fixed)]
        table = build(results({ID: seeds(0.6), SVD: seeds(0.0)}, cells, header))
        told = f"Published setting gsasrec (gSASRec, Petrov & Macdonald 2023): {who}."
        assert parity(table, table.sections[0]).endswith(told)
        for name in ("terminal", "md", "html"):
            shown = " ".join(render(table, name).split())
            assert told.replace("&", {"md": "\\&", "html": "&amp;"}.get(name, "&")) in shown
        assert "fixed (gsasrec)" in render(table, "md")
        assert table.frame()["setting"].to_list()[0] == "gsasrec"
    assert "Published setting" not in render(build(results({ID: seeds(0.6)})), "md")


def test_a_bench_with_a_published_setting_leaves_its_name_in_the_launch_and_an_own_folder_none(tmp_path):
    dataset = make_dataset(tmp_path / "toy")
    own = tmp_path / "gsasrec"
    own.mkdir()
    own.joinpath("train.toml").write_text("d = 32\n")
    named = {}
    for folder in ("gsasrec", "spectran", own, None):
        asked = request(tmp_path, str(dataset), "id,svd", spaces=spaces.SpaceSource(folder and Path(folder)))
        grid = plan.make(asked, Ledger())
        named[folder] = {s.cell.adapter: s.record().setting for s in grid.studies}
    assert named["gsasrec"] == {
        "popularity": "",
        "transition_knn": "",
        "content_knn": "",
        "id": "gsasrec",
        "svd": "gsasrec",
    }
    assert set(named[own].values()) == set(named[None].values()) == {""}


def test_the_table_of_a_ledger_says_what_the_published_setting_is(tmp_path, monkeypatch):
    described = synthetic_ledgers.MadeStudy.describe
    monkeypatch.setattr(
        synthetic_ledgers.MadeStudy, "describe", lambda study: described(study) | {"searched": [], "setting": "gsasrec"}
    )
    synthetic_ledgers.write(tmp_path, datasets=1)
    found = ledger_results.of_home(tmp_path)
    assert found.header["settings"] == {"gsasrec": spaces.about("gsasrec")}
    assert (
        "Published setting gsasrec (gSASRec, Petrov & Macdonald 2023, arXiv 2308.07192): all trained rows."
        in render(build(found), "terminal")
    )


def test_a_limit_of_time_that_some_rows_had_is_told_of_these_only():
    """Rows with and without one can share a table: one with fewer trials was given less."""
    limited = {"cell_seconds": 60.0, "trials_planned": 5, "trials_done": 5, "trials_pruned": 0}
    cells = [cell(ID, **limited), cell(SVD, trials_planned=16, trials_done=16, trials_pruned=0)]
    table = build(results({key: seeds(0.1) for key in (ID, SVD)}, cells))
    rows = {row.cell.adapter: row for row in table.sections[0].rows}
    assert "less" in rows["id"].marks
    assert "less" not in rows["svd"].marks
    assert "up to 60 seconds of trials for id" in parity(table, table.sections[0])
    both = build(results({key: seeds(0.1) for key in (ID, SVD)}, [cell(key, **limited) for key in (ID, SVD)]))
    assert "up to 60 seconds of trials," in parity(both, both.sections[0])

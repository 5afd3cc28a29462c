"""From a ledger to the frames of a table, at its end and at every moment before."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import asdict, replace

import polars as pl
import pytest
import synthetic_ledgers

from harness.record import artifacts, events, leases, segments, tracking
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import comparison, ledger_frames, row_lookup, table_scope, tables
from harness.types import HarnessError, Inputs
from harness.workflows import status


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    synthetic_ledgers.write(folder)
    return folder


def built(home) -> tables.Results:
    return ledger_frames.build(Ledger.open(home), lambda i: artifacts.load_ranks(home, i))


def test_every_trial_of_the_tables_cells_is_in_the_trials(home):
    trials = built(home).trials.collect()
    planned = synthetic_ledgers.studies()
    assert trials.height == sum(study.trials + study.seeds for study in planned)
    for study in planned:
        own = trials.filter(pl.col("study") == study.id)
        searched = own.filter(pl.col("role") == "search")
        assert searched["number"].to_list() == list(range(study.trials))
        assert searched["trial"].to_list() == [trial.id for trial in study.searched()]
        confirmed = own.filter(pl.col("role") == "confirm")
        assert confirmed["seed"].to_list() == [trial.seed for trial in study.confirmations()]
        for record, trial in zip(searched.iter_rows(named=True), study.searched(), strict=True):
            wanted = synthetic_ledgers.result_of(trial)
            assert record["status"] == wanted.status
            assert record["reason"] == wanted.reason
            assert record["curve"] == wanted.curve
            assert record["best"] == (wanted.best if wanted.status == "done" else None)
            assert json.loads(record["params"]) == trial.params
            assert record["ended"] >= record["started"] > 1e9


def test_a_trial_that_was_started_and_not_ended_is_running(home, tmp_path):
    [file] = home.glob("ledger/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if line.startswith(b'{"kind":"started"') and b'"search"' in line)
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / file.name).write_bytes(b"".join(lines[: first + 1]))
    [*_, last] = built(tmp_path).trials.collect().iter_rows(named=True)
    assert (last["status"], last["best"], last["curve"], last["ended"]) == ("running", None, [], None)


def test_only_rows_of_a_launch_that_goes_on_are_running(home, tmp_path):
    [file] = home.glob("ledger/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    starts = [n for n, line in enumerate(lines) if line.startswith(b'{"kind":"started"')]
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / file.name).write_bytes(b"".join(lines[: starts[2] + 1]))
    assert "running" not in built(tmp_path).cells["state"], "killed"
    with leases.Leases(tmp_path, file.stem):
        ledger = Ledger.open(tmp_path)
        assert "running" in built(tmp_path).cells["state"]
        ledger.take(file.stem, {"kind": "stopped", "signal": 2})
        stopped = ledger_frames.build(ledger, lambda i: artifacts.load_ranks(home, i))
        assert "running" not in stopped.cells["state"], "stopped by a signal"


def test_a_search_cut_to_k_trials_has_their_best_as_its_winner(home):
    """Its test is known exactly where that was the winner of the whole search as well."""
    for k in (1, 2, 3):
        made = ledger_frames.of_home(home, at_trials=k)
        table = tables.build(made)
        assert made.header["at_trials"] == k
        assert made.cells["trials_planned"].max() == k
        assert made.trials.collect().filter(pl.col("role") == "search")["number"].max() == k - 1
        rows = {row.cell: row for section in table.sections for row in section.rows}
        for study in (s for s in synthetic_ledgers.studies() if s.trials):
            row, searched = rows[study.cell], study.searched()[:k]
            done = [t for t in searched if synthetic_ledgers.result_of(t).status == "done"]
            if not done:
                assert row.state == "failed"
                continue
            winner = max(done, key=lambda trial: synthetic_ledgers.result_of(trial).best)
            assert bool(row.metrics) == (winner == study.winner())
            assert row.metrics or row.reason == f"the best of its first {k} trials was not confirmed"
            assert row.best_of[-1].observed == synthetic_ledgers.result_of(winner).best
    assert f"first {k} trials" in tables.render(table, "md")


def test_a_budget_beyond_the_search_changes_nothing(home):
    whole, cut = (tables.build(ledger_frames.of_home(home, at_trials=k)).frame() for k in (None, 99))
    assert whole.equals(cut)


def test_searches_at_smaller_budgets_are_those_of_their_first_trials(home):
    table = tables.build(built(home))
    for row in (row for section in table.sections for row in section.rows if row.best_of):
        study = next(s for s in synthetic_ledgers.studies() if s.cell == row.cell)
        found = [synthetic_ledgers.result_of(trial) for trial in study.searched()]
        values = [r.best if r.status == "done" else 0.0 for r in found]
        assert [one.k for one in row.best_of] == [1, 2, 4]
        for one in row.best_of:
            assert one.observed == max((r.best for r in found[: one.k] if r.status == "done"), default=None)
        assert row.best_of[0].expected == pytest.approx(sum(values) / len(values))
        assert row.best_of[-1].expected == pytest.approx(max(values))


def test_the_certificate_says_what_each_search_took(home):
    table = tables.build(built(home))
    for row in (row for section in table.sections for row in section.rows):
        study = next(s for s in synthetic_ledgers.studies() if s.cell == row.cell)
        assert row.spent.tuned == ("nothing" if row.cell.is_baseline else "searched")
        found = [synthetic_ledgers.result_of(trial) for trial in study.searched()]
        assert row.spent.epochs == sum(int(r.info.get("epochs", len(r.curve))) for r in found)
        assert row.search_seconds == sum(r.info.get("seconds", 0.0) for r in found)


def test_a_table_can_be_made_at_every_moment_and_shows_what_is_complete(home, tmp_path):
    """The ledger cut after every event, and in the middle of one: every planned cell is there, done or a hole with its
    state, comparisons are on common cells alone, and every format takes it."""
    [file] = home.glob("ledger/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger").mkdir()
    planned = {study.cell for study in synthetic_ledgers.studies()}
    seen: set[str] = set()
    finished = 0
    for count in [*range(1, len(lines), 2), len(lines)]:
        torn = lines[count][:20] if count % 3 == 0 and count < len(lines) else b""
        (tmp_path / "ledger" / file.name).write_bytes(b"".join(lines[:count]) + torn)
        with leases.Leases(tmp_path, file.stem):
            table = tables.build(ledger_frames.build(Ledger.open(tmp_path), artifacts.sources(home)))
        rows = {row.cell: row for section in table.sections for row in section.rows}
        assert set(rows) == planned
        for row in rows.values():
            ended = row.seeds_done
            assert bool(row.metrics) == bool(ended)
            assert (row.state == "done") == (row.seeds_done == row.seeds_planned)
            assert row.state != "running" or " of " in row.reason
        for one in table.across:
            for name in one.datasets:
                known = {(c.adapter, c.encoder) for c, row in rows.items() if row.metrics and c.dataset == name}
                assert {(s.adapter, s.encoder) for s in one.standings} <= known
        seen |= {row.state for row in rows.values()}
        done = sum(row.state == "done" for row in rows.values())
        assert done >= finished, "what is complete stays complete"
        finished = done
        if count % 7 == 0:
            for name in tables.formats():
                assert tables.render(table, name)
    assert seen >= {"done", "running", "pending", "partial"}
    assert finished == len(planned)
    assert table.frame().equals(tables.build(built(home)).frame())


def test_queries_and_spectra_of_a_home_reach_the_table(home, tmp_path):
    key = artifacts.queries_key("set0", {"split": "loo", "filter_seen": True, "quantile": 0.9})
    frame = pl.DataFrame({"user": range(synthetic_ledgers.USERS)}).with_columns(
        cold=pl.col("user") % 2 == 0,
        popularity=pl.col("user"),
        band=pl.lit("mid"),
        history=pl.col("user"),
        tied=pl.lit(None, pl.Boolean),
        words=pl.lit(3),
    )
    artifacts.save_queries(home, key, lambda: frame)
    try:
        table = tables.build(ledger_frames.of_home(home))
    finally:
        artifacts.queries_path(home, key).unlink()
    assert {one.name for one in table.sections[0].slices} >= {"cold", "warm", "mid"}
    assert table.spectra["end"].to_list() == [[1.0, 0.25]] * table.spectra.height
    assert table.spectra.height == sum(row.seeds_done for row in rows_once(table))


def rows_once(table):
    return {row.cell: row for section in table.sections for row in section.rows}.values()


def test_columns_of_trials_are_had_alone_and_without_the_disk_where_the_ledger_knows_them(home, tmp_path):
    shutil.copytree(home / "ledger", tmp_path / "ledger")
    whole, lazily = built(home).trials.collect(), built(tmp_path).trials
    for file in tmp_path.glob("ledger/*.jsonl"):
        file.write_bytes(b"")
    light = ["trial", "study", "adapter", "role", "number", "status", "reason", "best", "epochs", "started", "run"]
    assert lazily.select(light).collect().equals(whole.select(light))
    failed = pl.col("status") == "failed"
    assert lazily.filter(failed).select("reason").collect().equals(whole.filter(failed).select("reason"))
    assert lazily.select("number", "best").head(5).collect().equals(whole.select("number", "best").head(5))
    with pytest.raises(Exception, match="changed while it was read"):
        lazily.collect()


CONFIRMED = pl.col("role") == "confirm"


@pytest.mark.parametrize(
    "predicate",
    [
        CONFIRMED,
        pl.col("best_epoch") == 1,
        CONFIRMED & (pl.col("seed") > 1) & (pl.col("status") == "done"),
        pl.col("adapter").str.len_chars() > 3,
        pl.col("best").is_null(),
        pl.lit(True),
        pl.lit(False),
    ],
)
@pytest.mark.parametrize("columns", [["trial", "curve"], ["seed", "best", "study"], None])
def test_trials_are_filtered_as_a_whole_frame_is(home, predicate, columns):
    trials = built(home).trials
    wanted = trials.collect().filter(predicate)
    lazy = trials.filter(predicate)
    if columns is not None:
        wanted, lazy = wanted.select(columns), lazy.select(columns)
    assert lazy.collect().equals(wanted)


def test_only_trials_that_a_filter_keeps_are_read_from_the_disk(home, monkeypatch):
    trials, reads = built(home).trials, []
    whole = segments.lines_at
    monkeypatch.setattr(segments, "lines_at", lambda path, places: reads.extend(places) or whole(path, places))
    kept = trials.filter(CONFIRMED).select("best_epoch", "curve", "info", "seed", "params").collect()
    assert len(reads) == len(set(reads)) == 2 * kept.height > 0  # a start and an end each


def test_the_page_of_runs_is_that_of_the_store_which_the_results_were_read_from(home):
    page = "https://lab/#/experiments/7/runs"
    ledger, beside = Ledger.open(home), artifacts.sources(home)
    assert "tracking" not in ledger_frames.build(ledger, beside).header
    assert ledger_frames.build(ledger, replace(beside, page=page)).header["tracking"] == page
    ledger.over["20990101"] = {"tracking": "https://other/#/experiments/1/runs"}
    assert ledger_frames.build(ledger, beside).header["tracking"] == "https://other/#/experiments/1/runs"
    assert ledger_frames.build(ledger, replace(beside, page=page)).header["tracking"] == page


SKIPPED = synthetic_ledgers.studies()[2]  # svd on set0
REASON = "SVD keeps d=64 components, but the text has rank 32"


def launch_that_skips(home):
    """A launch of the same grid, of which one cell could not be built and the others are done."""
    kept = [study for study in synthetic_ledgers.studies() if study.cell != SKIPPED.cell]
    event = synthetic_ledgers.launch(kept, 4, 2)
    event["skipped"] = [{"cell": asdict(SKIPPED.cell), "reason": REASON}]
    with closing(Segment(home)) as segment:
        segment.append("launched", **event)


def shown(made) -> list[bool]:
    """Whether each text format shows the reason why the cell was skipped."""
    table = tables.build(made)
    return [REASON in tables.render(table, name) for name in ("terminal", "md", "json", "csv", "html")]


def state(made) -> str:
    [row] = [row for section in tables.build(made).sections for row in section.rows if row.cell == SKIPPED.cell]
    return row.state


def test_a_cell_that_was_skipped_once_and_trained_later_is_trained_everywhere(tmp_path):
    launch_that_skips(tmp_path)
    first = Ledger.open(tmp_path).newest
    synthetic_ledgers.write(tmp_path)
    made = ledger_frames.of_home(tmp_path)
    assert state(made) == "done"
    assert not any(shown(made))
    assert SKIPPED.cell in row_lookup.of(Ledger.open(tmp_path))
    assert status.of(tmp_path)["skipped"] == []
    assert SKIPPED.cell in comparison.side(str(tmp_path), tmp_path).rows
    assert state(ledger_frames.of_home(tmp_path, run=first)) == "skipped", "as it stood at the first launch"
    assert SKIPPED.cell not in row_lookup.of(Ledger.open(tmp_path), first)


def test_a_table_names_every_code_that_trained_it_and_no_other(tmp_path):
    synthetic_ledgers.write(tmp_path)
    longer = synthetic_ledgers.studies(2, 4, 3)
    study = next(study for study in longer if not study.cell.is_baseline)
    for git, date, trained in (("4567def", "2026-11-03", study.confirmations()[2:]), ("89abcde", "2026-11-04", [])):
        with closing(Segment(tmp_path)) as segment:
            event = synthetic_ledgers.launch(longer, 4, 3)
            segment.append("launched", **event | {"provenance": event["provenance"] | {"git": git, "date": date}})
            for trial in trained:
                events.started(segment, trial, study.id, 2)
                events.ended(segment, trial.id, synthetic_ledgers.result_of(trial))
    assert len(Ledger.open(tmp_path).launches) == 3
    both = {"git": ["0123abc", "4567def"], "date": "2026-11-01 to 2026-11-03"}
    table = tables.build(ledger_frames.of_home(tmp_path))
    assert table.header["provenance"].items() >= both.items()
    for name in ("md", "html"):
        assert "0123abc, 4567def" in tables.render(table, name)
    first = min(Ledger.open(tmp_path).launches)
    alone = ledger_frames.of_home(tmp_path, run=first).header["provenance"]
    assert (alone["git"], alone["date"]) == ("0123abc", "2026-11-01")


def test_a_configuration_that_was_drawn_twice_costs_once(tmp_path):
    study = next(study for study in synthetic_ledgers.studies(1) if study.cell.adapter == "id")
    with closing(Segment(tmp_path)) as segment:
        segment.append("launched", **synthetic_ledgers.launch([study], 2, 2))
        trial = study.searched()[0]
        for number in range(2):
            events.started(segment, trial, study.id, number)
        result = synthetic_ledgers.result_of(trial)
        events.ended(segment, trial.id, result)
    [row] = ledger_frames.of_home(tmp_path).cells.iter_rows(named=True)
    assert (row["trials_done"], row["search_epochs"]) == (2, 2)
    assert row["search_seconds"] == result.info["seconds"]


def test_rows_of_other_data_or_texts_do_not_stand_beside_those_of_the_present_ones(tmp_path, monkeypatch):
    """A folder of the user's, or its titles, may have changed between two launches."""
    monkeypatch.setitem(synthetic_ledgers.EMBEDDINGS, "minilm", "a" * 24)
    synthetic_ledgers.write(tmp_path, datasets=1)
    of_minilm = [study for study in synthetic_ledgers.studies(1) if study.cell.encoder == "minilm"]
    svd = next(study for study in of_minilm if study.cell.adapter == "svd")

    def again(data, embedding):
        """A launch that trains one trial of svd on these inputs."""
        trial = replace(svd.searched()[0], inputs=Inputs(data=data, embedding=embedding))
        event = synthetic_ledgers.launch([svd], 4, 2)
        event["studies"][0]["study"] = data + embedding
        event["data"]["set0"]["hash"] = data
        with closing(Segment(tmp_path)) as segment:
            segment.append("launched", **event)
            events.started(segment, trial, data + embedding, 0)
        table = tables.build(ledger_frames.of_home(tmp_path))
        return {row.cell.adapter: (row.state, row.reason) for row in table.sections[0].rows}

    rows = again("set0", "b" * 24)
    assert rows["mlp"][0] == "skipped"
    assert "other texts (hash aaaaaaaa, now bbbbbbbb); name it in a bench" in rows["mlp"][1]
    assert rows["id"][0] == rows["popularity"][0] == "done"
    assert rows["svd"][0] == "pending", "the launch does not run any more"
    rows = again("new", "b" * 24)
    assert {rows[name][0] for name in ("mlp", "id", "popularity")} == {"skipped"}
    assert "other data (hash set0, now new)" in rows["id"][1]

    ledger, first = Ledger.open(tmp_path), min(Ledger.open(tmp_path).launches)
    with pytest.raises(HarnessError, match=rf"is not in this table: .* or add --run {first} to use that one\."):
        row_lookup.find(row_lookup.of(ledger), "set0/none/sasrec/id")
    assert not row_lookup.find(row_lookup.of(ledger, first), "set0/none/sasrec/id").outdated
    found = comparison.compare(first, str(tmp_path), tmp_path)
    (cell,) = [one for one in found.cells if one.cell.adapter == "id"]
    assert cell.why_not.startswith("B's table skips it: trained on other data")


def test_the_beginning_of_a_name_stands_for_the_launch_if_it_is_the_only_one(tmp_path):
    launch_that_skips(tmp_path)
    synthetic_ledgers.write(tmp_path)
    ledger = Ledger.open(tmp_path)
    first, last = sorted(ledger.launches)
    own = first[: next(n for n, (a, b) in enumerate(zip(first, last, strict=True)) if a != b) + 1]
    assert state(ledger_frames.of_home(tmp_path, run=own)) == "skipped"
    assert table_scope.named(ledger, last) == last
    with pytest.raises(HarnessError, match=f"'2' matches 2 launches of this home, {first} to {last}"):
        table_scope.named(ledger, "2")
    for word in ("", "2099", first + "0"):
        with pytest.raises(HarnessError, match=f"no launch '{word}' in this home; the newest is {last}"):
            table_scope.named(ledger, word)


def test_a_cell_that_was_trained_and_is_skipped_later_is_skipped_everywhere(tmp_path):
    synthetic_ledgers.write(tmp_path / "trained")
    shutil.copytree(tmp_path / "trained", tmp_path / "home")
    launch_that_skips(tmp_path / "home")
    made = ledger_frames.of_home(tmp_path / "home")
    assert state(made) == "skipped"
    assert all(shown(made))
    assert SKIPPED.cell not in row_lookup.of(Ledger.open(tmp_path / "home"))
    assert f"skipped {SKIPPED.cell}: {REASON}" in status.text(status.of(tmp_path / "home"))
    assert SKIPPED.cell not in comparison.side(str(tmp_path / "home"), tmp_path).rows


@pytest.mark.parametrize("skipped_last", [False, True])
def test_mlflow_alone_knows_the_newest_state_of_a_skipped_cell(tmp_path, mlflow_store, skipped_last):
    home = tmp_path / "home"
    writers = [launch_that_skips, synthetic_ledgers.write]
    for write in writers[::-1] if skipped_last else writers:
        write(home)
    uri = mlflow_store(tmp_path / "mlflow.db")
    tracking.sync(uri, home, Ledger.open(home))
    assert state(ledger_frames.build(*tracking.read(uri, home))) == ("skipped" if skipped_last else "done")

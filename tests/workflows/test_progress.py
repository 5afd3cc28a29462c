"""The standings of a running bench: once in a plain log, redrawn on a terminal."""

import io
import re
from dataclasses import replace

from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import plan, spaces
from harness.search.studies import TrialQueue
from harness.types import Budget, Cell, Engine, Inputs, Protocol, TrialResult
from harness.workflows.progress import Progress
from harness.workflows.standings import Standings

BUDGET = Budget("tiny", trials=6, epochs=10, patience=3, seeds=2)
SCORES = {"svd": 0.1, "mlp": 0.3, "linear": 0.2}


def study(ledger, adapter):
    cell = Cell("toy", "noise", "sasrec", adapter)
    space = spaces.of_cell(cell, spaces.SpaceSource())
    return plan.Study(cell, space, BUDGET, Protocol(), Engine("random", "none"), Inputs(data="toy"), ledger)


def run(home, stream, limit=10**9, names=tuple(SCORES), **shown):
    """A real queue whose trials score by adapter, 0.01 more at each number; returns its progress."""
    ledger, segment = Ledger.open(home), Segment(home)
    made = [study(ledger, name) for name in names]
    progress = Progress([own for own in made if own.state == "pending"], slots=2, stream=stream, shown=made)
    grid = TrialQueue(progress.studies, segment, progress)
    ran = 0
    while ran < limit and (found := grid.next()) is not None:
        score = SCORES[found.trial.cell.adapter] + 0.01 * found.number
        test = {"NDCG@10": 0.9} if found.trial.role == "confirm" else {}
        grid.ended(found.trial.id, TrialResult("done", "", score, 0, [score], test=test, info={"seconds": 1.0}))
        ran += 1
    segment.close()
    return progress


def table_of(text):
    """Adapter, score and trials of each line of the standings in a log."""
    return re.findall(r"^ +(\w+) +(\d\.\d{4}) +(\S+)$", text, re.M)


def test_a_log_has_the_standings_once_when_every_cell_has_a_trial(home):
    stream = io.StringIO()
    run(home, stream)
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["[1/24]", "[2/24]", "[3/24]", "Every"]
    assert table_of(stream.getvalue()) == [
        ("mlp", "0.3000", "1/8"),
        ("linear", "0.2000", "1/8"),
        ("svd", "0.1000", "1/8"),
    ]


def test_a_resumed_bench_counts_the_trials_of_the_ledger_and_repeats_no_standings(home):
    run(home, io.StringIO(), limit=5)
    stream = io.StringIO()
    progress = run(home, stream)
    assert table_of(stream.getvalue()) == []
    assert progress.standings.rows() == [
        ["mlp", "0.3500", "8/8"],  # the best of six trials; confirmations and tests do not count
        ["linear", "0.2500", "8/8"],
        ["svd", "0.1500", "8/8"],
    ]


def test_a_failed_cell_is_listed_last_and_without_a_score(home):
    ledger, segment = Ledger.open(home), Segment(home)
    made = [study(ledger, name) for name in ("svd", "mlp")]
    progress = Progress(made, slots=2, stream=io.StringIO())
    grid = TrialQueue(made, segment, progress)
    grid.ended(grid.next().trial.id, TrialResult("failed", "loss is not finite"))
    grid.ended(grid.next().trial.id, TrialResult("done", "", 0.2, 0, [0.2]))
    assert progress.standings.rows() == [["mlp", "0.2000", "1/8"], ["svd", "", "1/8"]]
    assert "[1/16] toy / noise / sasrec / svd trial 0 failed: loss is not finite" in progress.stream.getvalue()


def test_standings_name_only_what_their_cells_differ_in(home):
    ledger = Ledger.open(home)
    plain, text = study(ledger, "id"), study(ledger, "svd")
    plain = replace(plain, cell=replace(plain.cell, encoder="none"))
    assert Standings([plain, text]).header() == ["adapter", "NDCG@10", "trials"]
    other = replace(text, cell=replace(text.cell, encoder="minilm", dataset="beauty"))
    assert Standings([plain, text, other]).header()[:3] == ["data set", "encoder", "adapter"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_the_standings_within_its_window_and_erases_them(home, monkeypatch):
    monkeypatch.setattr("harness.workflows.progress.REDRAW", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "6")
    stream = Terminal()
    progress = run(home, stream, limit=4)
    frame = stream.getvalue()
    last = frame[frame.rindex("adapter") :]
    assert re.findall(r"(mlp|linear|svd) +([\d.]+)", last) == [("mlp", "0.3000"), ("linear", "0.2000")]
    assert "1 cell(s) not shown" in last
    progress.line("a line that stays")
    progress.close()
    assert "a line that stays" in stream.getvalue()
    assert "\x1b[2K" in stream.getvalue()[-100:], "the standings are erased"


def test_a_dumb_terminal_gets_plain_lines(home, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    run(home, stream, limit=2)
    assert "\x1b" not in stream.getvalue()
    assert "[2/24]" in stream.getvalue()


def test_standings_count_the_trials_of_another_search(home):
    """A search without pruner, then the same with one: the default point and the best trial may be the same."""
    run(home, io.StringIO(), names=("mlp",))
    ledger, segment = Ledger.open(home), Segment(home)
    again = replace(study(ledger, "mlp"), engine=Engine("random", "median"))
    progress = Progress([again], slots=2, stream=io.StringIO())
    grid = TrialQueue([again], segment, progress)
    ran = 0
    while (found := grid.next()) is not None:
        grid.ended(found.trial.id, TrialResult("done", "", 0.0, 0, [0.0], info={"seconds": 1.0}))
        ran += 1
    segment.close()
    [row] = progress.standings.rows()
    assert ran < 8, "some trials were reused"
    assert row == ["mlp", f"{max(result.best for result in again.ended()):.4f}", "8/8"]

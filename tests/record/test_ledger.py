import errno
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path

import pytest

from harness.record import events, ledger
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.types import Cell, HarnessError, Inputs, Protocol, Trial, TrialResult


def a_trial(seed=0, role="search", **params):
    return Trial(Cell("toy", "noise", "sasrec", "mlp"), role, seed, 3, 2, params, Protocol(), Inputs(data="x"))


def write(home, *trials, best=0.5):
    segment = Segment(home)
    for number, trial in enumerate(trials):
        events.started(segment, trial, "study", number)
        events.ended(segment, trial.id, TrialResult("done", best=best + number, curve=[0.1, best]))
    segment.close()
    return segment


def test_what_was_written_is_read_back(home):
    first, second = a_trial(lr=0.1), a_trial(lr=0.2)
    write(home, first, second)
    read = Ledger.open(home)
    assert set(read.trials) == {first.id, second.id}
    assert read.trials[first.id].trial == first
    assert read.result(second.id).curve == [0.1, 0.5]
    assert read.studies == {"study": {0: first.id, 1: second.id}}
    assert read.winner("study", 2) == second
    assert read.winner("study", 1) == first, "a longer search can be cut back"
    assert read.winner("study", 3) is None


@pytest.mark.parametrize("order", [("ann", "bob"), ("bob", "ann")])
@pytest.mark.parametrize("decides", [False, True])
def test_a_row_that_is_complete_stays_so_when_another_home_finished_what_was_pruned_in_it(home, order, decides):
    """Ann's pruner stopped the second trial and her winner is tested; Bob's finished it, as the best, and went no
    further than his decision."""
    first, second = a_trial(lr=0.1), a_trial(lr=0.2)
    ends = {"ann": TrialResult("pruned", best=0.2, curve=[0.2]), "bob": TrialResult("done", best=0.9, curve=[0.9])}
    for who in order:
        segment = Segment(home)
        for number, trial in enumerate((first, second)):
            events.started(segment, trial, "study", number)
            events.ended(segment, trial.id, ends[who] if number else TrialResult("done", best=0.5, curve=[0.5]))
        if who == "ann" or decides:
            winner = first if who == "ann" else second
            segment.append("decided", study="study", trials=2, winner=winner.id)
        if who == "ann":
            events.started(segment, first.confirmation(1), "study", 0)
            events.ended(segment, first.confirmation(1).id, TrialResult("done", best=0.5, curve=[0.5]))
        segment.close()
    read = Ledger.open(home)
    assert read.trials[second.id].status == "done"
    assert read.winner("study", 2) == first


@pytest.mark.parametrize("cut", [2, 20, 150])
def test_a_torn_last_line_costs_that_line_alone(home, cut):
    first, second = a_trial(lr=0.1), a_trial(lr=0.2)
    path = write(home, first, second).path
    path.write_bytes(path.read_bytes()[:-cut])
    read = Ledger.open(home)
    assert read.result(first.id) is not None
    assert read.trials[second.id].result is None, "started, not ended: it will be run again"
    assert [damage.torn for damage in read.damages] == [True]


def test_a_line_cut_at_its_newline_only_is_whole(home):
    trial = a_trial(lr=0.1)
    path = write(home, trial).path
    path.write_bytes(path.read_bytes()[:-1])
    assert Ledger.open(home).result(trial.id) is not None


def test_every_flipped_byte_inside_is_noticed_and_named(home):
    trials = [a_trial(lr=0.1), a_trial(lr=0.2)]
    path = write(home, *trials).path
    data = path.read_bytes()
    end_of_second = data.index(b"\n", data.index(b"\n") + 1)
    for position in range(0, end_of_second, 37):
        if data[position : position + 1] == b"\n":
            continue
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        read = Ledger.open(home)
        assert len(read.damages) == 1, f"byte {position}"
        assert path.name in str(read.damages[0])
        assert not read.damages[0].torn


def test_a_newer_schema_is_refused_clearly(home):
    segment = Segment(home)
    segment.append("launched", schema=ledger.SCHEMA + 1)
    with pytest.raises(HarnessError, match="newer harness"):
        Ledger.open(home)


def test_segments_of_two_homes_are_merged_by_copying(home, tmp_path):
    other = tmp_path / "other"
    mine, theirs = a_trial(lr=0.1), a_trial(lr=0.2)
    write(home, mine)
    path = write(other, theirs).path
    (home / "ledger" / path.name).write_bytes(path.read_bytes())
    assert set(Ledger.open(home).trials) == {mine.id, theirs.id}


def test_epoch_events_are_read_only_on_demand(home):
    trial = a_trial(lr=0.1)
    segment = Segment(home)
    events.started(segment, trial, "study", 0)
    segment.append("epoch", id=trial.id, epoch=4, value=0.2)
    read = Ledger.open(home)
    assert read.trials[trial.id].epochs == 0
    read.read_epochs(segment.run)
    assert read.trials[trial.id].epochs == 5
    events.started(segment, trial, "study", 0)  # again, as after a crash
    read = Ledger.open(home)
    read.read_epochs(segment.run)
    assert read.trials[trial.id].epochs == 0


def test_lines_are_plain_json(home):
    path = write(home, a_trial(lr=0.1)).path
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["kind"] for event in events] == ["started", "ended"]
    assert [event["seq"] for event in events] == [0, 1]


def test_an_unwritable_ledger_is_one_clear_line(tmp_path):
    blocked = tmp_path / "home"
    blocked.mkdir()
    (blocked / "ledger").write_text("a file where the folder should be")
    with pytest.raises(HarnessError, match=r"ledger.*cannot be written"):
        Segment(blocked).append("launched", schema=1)


def test_what_stays_on_disk_until_it_is_asked_for_is_what_was_written(home):
    trial = a_trial(lr=0.1, **{"adapter.note": 'braces {"role":"confirm"} and "quotes"'})
    result = TrialResult("failed", 'no "luck": \\ {ü}', 0.25, 3, [0.1, 0.25], {"NDCG@10": 0.25}, {}, {"seconds": 1.5})
    segment = Segment(home)
    events.started(segment, trial, "study", 0)
    events.ended(segment, trial.id, result)
    read = Ledger.open(home)
    assert (read.trials[trial.id].trial, asdict(read.result(trial.id))) == (trial, asdict(result))
    assert (read.result(trial.id).status, read.result(trial.id).reason) == ("failed", result.reason)


def test_a_line_changed_after_the_ledger_was_opened_is_refused(home):
    trial = a_trial(lr=0.1)
    path = write(home, trial).path
    read = Ledger.open(home)
    path.write_bytes(path.read_bytes().replace(b'"curve":[0.1', b'"curve":[0.9'))
    with pytest.raises(HarnessError, match="changed while it was read"):
        _ = read.result(trial.id).curve


def test_lines_lost_from_the_middle_are_noticed(home):
    path = write(home, a_trial(lr=0.1), a_trial(lr=0.2)).path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[3:]))
    assert [str(damage) for damage in Ledger.open(home).damages] == [
        f"{path.name}:2: 2 event(s) before this line are missing"
    ]


def test_a_refreshed_ledger_takes_what_others_have_written_since_and_its_own_only_once(home):
    mine, other = Segment(home), Segment(home)
    read, first, second = Ledger.open(home), a_trial(lr=0.1), a_trial(lr=0.2)
    read.take(mine.run, events.started(mine, first, "study", 0))
    events.started(other, second, "study", 1)
    size = other.path.stat().st_size
    with other.path.open("ab") as file:
        file.write(b'{"kind":"ended","seq":1')  # another process in the middle of a write is no damage
    read.refresh(mine.run)
    assert (read.trials[first.id].starts, read.trials[second.id].starts, read.damages) == (1, 1, [])
    os.truncate(other.path, size)
    events.ended(other, second.id, TrialResult("done", best=0.4))
    read.refresh(mine.run)
    assert read.result(second.id).best == 0.4
    assert {i: e.starts for i, e in read.trials.items()} == {i: e.starts for i, e in Ledger.open(home).trials.items()}


def test_a_size_that_a_network_file_system_answers_from_its_cache_hides_no_event(home, monkeypatch):
    """Such a file system asks the server when a file is opened, not for its path's `stat`."""
    mine, other, trial = Segment(home), Segment(home), a_trial()
    read = Ledger.open(home)
    events.started(other, trial, "study", 0)
    read.refresh(mine.run)
    stale, real = other.path.stat(), Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **k: stale if self == other.path else real(self, **k))
    events.ended(other, trial.id, TrialResult("done", best=0.4))
    read.refresh(mine.run)
    assert read.trials[trial.id].status == "done"


def test_a_voided_result_does_not_count_and_a_new_one_does(home):
    trial = a_trial(1, "confirm", lr=0.1)
    segment = write(home, trial)
    events.voided(segment, trial.id, "its ranks are lost", segment.run)
    assert Ledger.open(home).result(trial.id) is None
    events.ended(segment, trial.id, TrialResult("done", best=0.7))
    assert Ledger.open(home).result(trial.id).best == 0.7


@pytest.mark.parametrize("order", list(permutations(["done", "failed", "done, lost"])))
def test_a_finished_result_outlives_what_became_of_the_trial_in_other_homes(home, order):
    """Segments of merged homes: here the trial finished, there it failed, there it finished and lost its ranks."""
    trial, mine = a_trial(1, "confirm", lr=0.1), ""
    for end in order:
        segment = Segment(home)
        events.started(segment, trial, "s", 0)
        if end == "failed":
            events.ended(segment, trial.id, TrialResult("failed", reason="out of memory"))
        else:
            events.ended(segment, trial.id, TrialResult("done", best=0.7 if end == "done" else 0.6))
        if end == "done, lost":
            events.voided(segment, trial.id, "its ranks are lost", segment.run)
        mine = segment.run if end == "done" else mine
    read = Ledger.open(home)
    assert (read.result(trial.id).best, read.trials[trial.id].run) == (0.7, mine)
    events.voided(Segment(home), trial.id, "its ranks are lost", mine)
    assert Ledger.open(home).trials[trial.id].status != "done"


@pytest.mark.parametrize("order", [("ann", "bob"), ("bob", "ann")])
def test_a_number_keeps_the_trial_that_is_done(home, order):
    """Bob's search found the configuration stopped by another one, trained it itself and stopped it too."""
    trial = a_trial(lr=0.1)
    own = replace(trial, study="study")
    for who in order:
        segment = Segment(home)
        events.started(segment, trial if who == "ann" else own, "study", 0)
        result = TrialResult("done", best=0.5, curve=[0.5]) if who == "ann" else TrialResult("pruned", best=0.1)
        events.ended(segment, trial.id if who == "ann" else own.id, result)
        segment.close()
    read = Ledger.open(home)
    assert read.studies == {"study": {0: trial.id}}
    assert read.winner("study", 1) == trial


def test_a_trial_searched_under_two_numbers_knows_both_places(home):
    trial, segment = a_trial(lr=0.1), Segment(home)
    for study, number in (("a", 0), ("b", 0), ("a", 7), ("a", 0)):
        events.started(segment, trial, study, number)
    assert Ledger.open(home).places(trial.id) == [("a", 0), ("b", 0), ("a", 7)]


def test_a_launch_is_newer_than_all_before_it_though_the_clock_went_back(home, monkeypatch):
    now = time.time()
    runs = []
    for hours in (0, -1, 1, -30, 0):
        monkeypatch.setattr(time, "time", lambda h=hours: now + 3600 * h)
        segment = Segment(home)
        segment.append("launched", schema=1)
        segment.close()
        runs.append(segment.run)
        assert Ledger.open(home).newest == segment.run
    assert runs == sorted(runs)


FULL = """
import resource, signal, sys
from pathlib import Path
from harness.record.segments import Segment
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
segment = Segment(Path(sys.argv[1]))
segment.append("launched", schema=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (segment.path.stat().st_size + 40, resource.RLIM_INFINITY))
try:
    segment.append("note", text="x" * 100)
except Exception as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
segment.append("note", text="y")
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on the size of files here")
def test_a_disk_that_takes_half_a_line_leaves_no_half_line(home):
    process = subprocess.run([sys.executable, "-c", FULL, str(home)], capture_output=True, text=True, check=True)
    assert process.stdout.startswith("HarnessError The ledger")
    assert "rerun the same command" in process.stdout
    read = Ledger.open(home)
    assert read.damages == []
    (path,) = (home / "ledger").iterdir()
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["launched", "note"]


def test_an_event_that_the_disk_does_not_sync_is_not_in_the_ledger(home, monkeypatch):
    """As under a quota, which some file systems check only then."""
    segment, sync, full = Segment(home), os.fsync, [OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))]

    def refuse_once(file):
        if full:
            raise full.pop()
        sync(file)

    segment.append("opened", id="one")
    monkeypatch.setattr(os, "fsync", refuse_once)
    with pytest.raises(HarnessError, match="The ledger"):
        segment.append("opened", id="two")
    segment.append("opened", id="three")
    assert segment.last.event()["id"] == "three"
    segment.close()
    read = Ledger.open(home)
    assert read.damages == []
    assert read.opened == {"one": 1, "three": 1}


OLD = sorted((Path(__file__).parents[1] / "golden" / "ledgers").glob("*.jsonl"))


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_ledger_of_every_earlier_writer_opens(home, path):
    (home / "ledger").mkdir()
    (home / "ledger" / f"20260101T000000-{path.stem}.jsonl").write_bytes(path.read_bytes())
    read = Ledger.open(home)
    assert read.damages == []
    (launch,) = read.launches.values()
    done = [entry for entry in read.trials.values() if entry.result is not None]
    assert len(done) == len(read.trials) == sum(study.trials + study.seeds for study in launch.studies)
    for entry in done:
        assert entry.trial.cell.dataset == "toy"
        assert entry.result.valid.keys() == entry.result.valid.keys() | {"NDCG@10"}
    for study in launch.studies:
        winner = read.winner(study.id, study.trials)
        if study.trials:
            assert all(read.result(winner.confirmation(1 + k).id) is not None for k in range(study.seeds))


@pytest.mark.parametrize(
    "info",
    [{}, {"seconds": 1.5}, {"epochs": 7.0}, {"spent epochs": 3.0, "seconds": 2e-05, "epochs": 12.0, "more": -1.0}],
)
@pytest.mark.parametrize("curve", [[], [0.1], [0.1, 2e-05, 0.3]])
def test_seconds_and_epochs_are_known_without_parsing_and_are_those_of_the_result(home, info, curve):
    trial, segment = a_trial(lr=0.1), Segment(home)
    result = TrialResult("done", "", 0.3, 2, curve, {"seconds": 9.0}, {"epochs": 9.0}, info)
    kept = Ledger()
    kept.take("run", events.started(segment, trial, "study", 0))
    kept.take("run", events.ended(segment, trial.id, result))
    for entry in (Ledger.open(home).trials[trial.id], kept.trials[trial.id]):
        assert entry.seconds == info.get("seconds", 0.0)
        assert entry.trained == int(info.get("epochs", len(curve)))


def test_a_ledger_reads_alike_in_pieces_of_any_size(home, monkeypatch):
    path = home / "ledger" / "20260101T000000-0.jsonl"
    segment = Segment(home)
    for number in range(6):
        trial = a_trial(lr=0.1 + number)
        events.started(segment, trial, "study", number)
        for epoch in range(number):
            segment.append("epoch", id=trial.id, epoch=epoch, value=0.5)
        events.ended(segment, trial.id, TrialResult("done", best=0.1 * number))
    lines = segment.path.read_bytes().splitlines(keepends=True)
    lines[4] = b"\n" + lines[4].replace(b"done", b"gone")  # changed, behind an empty line
    lines[9:11] = [b"no line of ours\n"]  # one is lost, and what stands in its place is none
    path.write_bytes(b"".join(lines)[:-7])
    segment.path.unlink()
    found = []
    for size in (2**22, 1000, 37, 1):
        monkeypatch.setattr("harness.record.segments.CHUNK", size)
        read = Ledger.open(home)
        found.append((read.damages, {i: (e.best, e.status) for i, e in read.trials.items()}))
    assert found[1:] == [found[0]] * 3
    assert str(found[0][0][0]) == f"{path.name}:5: damaged line"
    assert found[0][0][-1].torn

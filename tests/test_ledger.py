import json

import pytest

from harness import ledger
from harness.ledger import Ledger, Segment
from harness.types import Cell, HarnessError, Protocol, Trial, TrialResult


def a_trial(seed=0, role="search", **params):
    return Trial(Cell("toy", "noise", "sasrec", "mlp"), role, seed, 3, 2, params, Protocol(), {"data": "x"})


def write(home, *trials, best=0.5):
    segment = Segment(home)
    for number, trial in enumerate(trials):
        ledger.started(segment, trial, "study", number)
        ledger.ended(segment, trial.id, TrialResult("done", best=best + number, curve=[0.1, best]))
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
    ledger.started(segment, trial, "study", 0)
    segment.append("epoch", id=trial.id, epoch=4, value=0.2)
    assert Ledger.open(home).trials[trial.id].epochs == 0
    assert Ledger.open(home, epochs=True).trials[trial.id].epochs == 5


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

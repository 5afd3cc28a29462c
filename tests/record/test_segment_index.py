"""A ledger reads alike with and without the indexes of its segments, whatever happened to either."""

import os
import random
import shutil
import signal
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
import synthetic_ledgers

from harness.record import ledger, lines, segment_index
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.types import Cell, HarnessError, Inputs, Protocol, Trial, TrialResult

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "ledgers").glob("*.jsonl"))
NEVER = 2**60
STATE = ("run", "role", "study", "number", "more", "status", "reason", "best", "seconds", "trained", "starts", "time")
STATE += ("ended", "epochs")
STUDIES = [study.id for study in synthetic_ledgers.studies()[1:3]]


def content(read):
    """Everything that a reader of a ledger can see."""
    entries = [
        (i, *((name, getattr(e, name)) for name in STATE), e.trial.to_json(), e.result and asdict(e.result))
        for i, e in read.trials.items()
    ]
    recorded = [study for launch in read.launches.values() for study in launch.studies]
    studies = [
        [
            *(study.id, read.planned(study), read.confirmations(study), read.by_seed(study), read.winner(study.id, n)),
            *(read.ended(study.id, n), read.affordable(study.id, n, 3.0), sorted(read.history(study.id, n))),
        ]
        for study in recorded
        for n in (1, 3, study.trials)
    ]
    places = [read.places(i) for i in read.trials]
    seconds = [read.seconds(i) for i in [*read.trials, "unknown"]]
    events = (list(read.studies.items()), read.decisions, read.launches, read.opened, read.over, read.newest)
    return entries, studies, places, seconds, events, read.damages, read.extent(), read.foreign


@pytest.fixture
def opened(monkeypatch):
    """Open a home: `opened(home)` with indexes of segments of any size, `opened(home, False)` without indexes."""

    def opened(home, indexes=True, **options):
        monkeypatch.setattr(segment_index, "LEAST", 0 if indexes else NEVER)
        return content(Ledger.open(home, **options))

    return opened


@pytest.fixture
def unparsed(monkeypatch):
    """Make the parsing of a trial's line an error."""

    def fail(line):
        assert not line.startswith((b'{"kind":"started"', b'{"kind":"ended"')), line

    def switch(on):
        for name in ("start", "end"):
            monkeypatch.setattr(lines, name, fail if on else originals[name])

    originals = {name: getattr(lines, name) for name in ("start", "end")}
    return switch


def indexes(home):
    return sorted((home / "cache" / "ledger").glob("[!.]*.index"))


def segments_of(home):
    return sorted((home / "ledger").glob("*.jsonl"))


def a_trial(lr, role="search", seed=0):
    return Trial(Cell("toy", "noise", "sasrec", "mlp"), role, seed, 3, 2, {"lr": lr}, Protocol(), Inputs(data="x"))


def result(rng):
    status = rng.choice(["done", "done", "pruned", "failed"])
    curve = [round(rng.random(), 4) for _ in range(rng.randrange(4))]
    info = {"seconds": round(rng.random(), 3), "epochs": 7.0} if rng.random() < 0.7 else {}
    reason = rng.choice(['no "luck"', "step 3 {", ""]) if status == "failed" else ""
    return TrialResult(status, reason, round(rng.random(), 4), 1, curve, {"NDCG@10": 0.1}, {}, info)


def spaced(segment, kind, **fields):
    """Write an event as another writer may: valid JSON that no regular expression knows."""
    event = segment.append(kind, **fields)
    text = segment.path.read_bytes()
    at = text.rindex(b"\n", 0, -1) + 1 if text.count(b"\n") > 1 else 0
    body = text[at:].replace(b'{"kind":"%s",' % event["kind"].encode(), b'{"kind": "%s",' % event["kind"].encode())
    body = body[: body.rindex(b',"crc"')]
    segment.path.write_bytes(text[:at] + body + b',"crc":"%08x"}\n' % zlib.crc32(body))


def random_events(segment, rng, count):
    trials = [a_trial(lr=k / 100) for k in range(12)] + [a_trial(0.5, "confirm", seed) for seed in (1, 2)]
    for _ in range(count):
        trial = rng.choice(trials)
        write = spaced if rng.random() < 0.1 else Segment.append
        match rng.choice(["started"] * 5 + ["ended"] * 5 + ["epoch"] * 4 + ["voided", "opened", "decided", "later"]):
            case "started":
                facts = {"study": rng.choice(STUDIES), "number": rng.randrange(8), "trial": trial.to_json()}
                write(segment, "started", id=trial.id, **facts)
            case "ended":
                write(segment, "ended", id=trial.id, result=asdict(result(rng)))
            case "epoch":
                write(segment, "epoch", id=trial.id, epoch=rng.randrange(9), value=0.5)
            case "decided":
                write(segment, "decided", study=STUDIES[0], trials=3, winner=trial.id)
            case kind:
                write(segment, kind, id=trial.id)


def hurt(path, rng):
    """Change, lose, repeat, swap and cut lines."""
    found = path.read_bytes().splitlines(keepends=True)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(found) - 1)
        match rng.randrange(5):
            case 0:
                found[at] = found[at].replace(b'"', b"'", 1)
            case 1:
                del found[at]
            case 2:
                found.insert(at, found[at])
            case 3:
                found[at], found[at + 1] = found[at + 1], found[at]
            case 4:
                found.insert(at, rng.choice([b"\n", b"no line of ours\n"]))
    data = b"".join(found)
    path.write_bytes(data[: len(data) - rng.choice([0, 0, 1, 9])])


def write_random(home, seed):
    rng = random.Random(seed)
    for number in range(3):
        segment = Segment(home)
        segment.append("launched", **synthetic_ledgers.launch(synthetic_ledgers.studies(), 4, 2))
        random_events(segment, rng, 40)
        if number:
            segment.append("finished", ran=3)
        segment.close()
        hurt(segment.path, rng)


@pytest.mark.parametrize("seed", range(12))
def test_any_events_in_any_order_read_alike(home, opened, seed):
    write_random(home, seed)
    plain = opened(home, indexes=False)
    assert opened(home) == plain, "while the indexes are written"
    assert opened(home) == plain, "from the indexes"
    assert len(indexes(home)) == 3


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_recorded_ledgers_read_alike(home, opened, unparsed, path):
    (home / "ledger").mkdir()
    shutil.copy(path, home / "ledger" / f"20260101T000000-{path.stem}.jsonl")
    plain = opened(home, indexes=False)
    assert opened(home) == plain
    unparsed(True)
    assert opened(home) == plain, "no start or end is parsed"


def test_a_small_segment_gets_no_index(home):
    synthetic_ledgers.write(home)
    Ledger.open(home)
    assert not (home / "cache").exists()


def test_lines_appended_to_an_indexed_segment_are_read(home, opened, monkeypatch):
    rng = random.Random(0)
    segment = Segment(home)
    random_events(segment, rng, 200)
    opened(home)
    (path,) = indexes(home)
    first = path.read_bytes()
    for count in (1, 1, 1):
        random_events(segment, rng, count)
        assert opened(home) == opened(home, indexes=False)
    assert path.read_bytes() == first, "a few new lines are read from the segment"
    random_events(segment, rng, 100)
    assert opened(home) == opened(home, indexes=False)
    assert path.read_bytes() != first, "many are worth a new index"
    assert opened(home) == opened(home, indexes=False)


def test_a_ledger_opened_from_an_index_is_refreshed_like_another(home, monkeypatch):
    rng = random.Random(1)
    mine, other = Segment(home), Segment(home)
    random_events(other, rng, 100)
    monkeypatch.setattr(segment_index, "LEAST", 0)
    Ledger.open(home)
    read = Ledger.open(home)
    monkeypatch.setattr(segment_index, "LEAST", NEVER)
    same = Ledger.open(home)
    random_events(other, rng, 30)
    random_events(third := Segment(home), rng, 5)
    trial = a_trial(lr=0.3)
    for one in (read, same):
        one.refresh(mine.run)
        one.take(
            mine.run,
            {
                "kind": "started",
                "time": 1.0,
                "id": trial.id,
                "study": STUDIES[0],
                "number": 0,
                "trial": trial.to_json(),
            },
        )
        one.take(
            mine.run, {"kind": "ended", "time": 2.0, "id": trial.id, "result": asdict(TrialResult("done", best=0.4))}
        )
    assert content(read) == content(same)
    assert read.result(trial.id).best == 0.4
    third.close()


def damaged_indexes(data):
    yield "empty", b""
    yield "torn", data[: len(data) // 2]
    yield "longer", data + b"x"
    yield "of zeros", bytes(len(data))
    for at in range(0, len(data), max(len(data) // 60, 1)):
        yield f"flipped at {at}", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_damaged_index_is_ignored_and_rewritten(home, opened):
    write_random(home, 3)
    plain = opened(home)
    path = indexes(home)[1]
    right = path.read_bytes()
    for what, data in damaged_indexes(right):
        path.write_bytes(data)
        assert opened(home) == plain, what
        assert path.read_bytes() == right, what


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.setattr(segment_index, "FORMAT", 99),
        lambda m: m.setattr(sys, "byteorder", "middle"),
        lambda m: m.setattr(segment_index, "TYPES", segment_index.TYPES | {"role": "q"}),
    ],
    ids=["version", "byte order", "columns"],
)
def test_an_index_of_another_writer_is_ignored_and_rewritten(home, opened, monkeypatch, change):
    write_random(home, 4)
    plain = opened(home)
    right = [path.read_bytes() for path in indexes(home)]
    with monkeypatch.context() as patch:
        patch.setattr(segment_index, "LEAST", 0)
        change(patch)
        Ledger.open(home)
    assert [path.read_bytes() for path in indexes(home)] != right
    assert opened(home) == plain
    assert [path.read_bytes() for path in indexes(home)] == right


def test_the_index_of_another_segment_is_ignored(home, opened):
    write_random(home, 5)
    plain = opened(home)
    first, *others = indexes(home)
    for other in others:
        shutil.copy(first, other)
    assert opened(home) == plain


@pytest.mark.parametrize("seed", range(6))
def test_a_segment_that_changed_behind_its_index_is_read_itself(home, opened, seed):
    write_random(home, 6)
    opened(home)
    before = opened(home, indexes=False)
    rng = random.Random(seed)
    path = segments_of(home)[1]
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1
    path.write_bytes(bytes(data[: len(data) - rng.choice([0, 0, 300])]))
    after = opened(home, indexes=False)
    assert after[-3:] != before[-3:] or bytes(data).count(b'"kind":"epoch"'), "its damage or extent shows"
    assert opened(home) == after
    assert opened(home) == after


def test_homes_with_indexes_are_merged_by_copying(tmp_path, opened):
    homes = [tmp_path / name for name in ("mine", "theirs", "both")]
    for number, home in enumerate(homes[:2]):
        write_random(home, 7 + number)
        opened(home)
        for path in [*segments_of(home), *indexes(home)]:  # names may be equal, content is not
            target = homes[2] / path.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert opened(homes[2]) == opened(homes[2], indexes=False)
    for path in indexes(homes[2]):
        path.unlink()
        assert opened(homes[2]) == opened(homes[2], indexes=False)


def test_without_a_writable_folder_a_ledger_reads_alike(home, opened, monkeypatch):
    write_random(home, 9)
    plain = opened(home, indexes=False)
    (home / "cache").write_text("a file where the folder should be")
    assert opened(home) == plain

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (home / "cache").unlink()
    monkeypatch.setattr("harness.system.files._beside", refuse)
    assert opened(home) == plain
    assert indexes(home) == []


def test_a_folder_in_place_of_an_index_is_no_error(home, opened):
    write_random(home, 9)
    plain = opened(home)
    path = indexes(home)[0]
    path.unlink()
    path.mkdir()
    assert opened(home) == plain


def test_processes_that_write_an_index_at_once_leave_a_right_one(home, opened, monkeypatch):
    write_random(home, 10)
    plain = opened(home, indexes=False)
    monkeypatch.setattr(segment_index, "LEAST", 0)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: content(Ledger.open(home)), range(16)))
    assert found == [plain] * 16
    assert len(list((home / "cache" / "ledger").iterdir())) == 3, "no temporary file stays"


OPEN = """
import sys
from pathlib import Path
from harness.record import segment_index
from harness.record.ledger import Ledger
segment_index.LEAST = 0
Ledger.open(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("part", [1, 7])
def test_a_process_killed_while_it_writes_an_index_leaves_none(home, opened, part):
    write_random(home, 11)
    plain = opened(home, indexes=False)
    environment = {**os.environ, "HARNESS_FAILPOINT": f"index:{part}"}
    done = subprocess.run([sys.executable, "-c", OPEN, str(home)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert indexes(home) == []
    assert opened(home) == plain
    assert len(indexes(home)) == 3


def test_a_newer_schema_is_refused_from_an_index_too(home, monkeypatch):
    segment = Segment(home)
    segment.append("launched", schema=ledger.SCHEMA + 1)
    monkeypatch.setattr(segment_index, "LEAST", 0)
    for _ in range(2):
        with pytest.raises(HarnessError, match="newer harness"):
            Ledger.open(home)
    assert len(indexes(home)) == 1

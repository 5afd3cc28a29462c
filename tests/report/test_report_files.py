"""The files of a table: written once for what it was made of, and again where that or a file has changed."""

from __future__ import annotations

import polars as pl
import pytest
import synthetic_ledgers

from harness.record import events
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.report import ledger_frames, report_files, tables


@pytest.fixture
def home(tmp_path):
    synthetic_ledgers.write(tmp_path)
    return tmp_path


def report(home):
    """The HTML file, as a bench with nothing to do gives it."""
    read = Ledger.open(home)
    of = report_files.inputs_hash(read)
    return report_files.existing(home, of) or report_files.write(tables.build(ledger_frames.of_home(home)), home, of)


def test_a_report_of_the_same_ledger_is_not_written_again(home):
    first = report(home)
    assert report(home) == first
    assert sorted(path.suffix for path in first.parent.glob("leaderboard.*")) == sorted(
        f".{f}" for f in report_files.FORMATS
    )


def test_reports_of_two_benches_that_end_in_one_second_are_two_folders(home, monkeypatch):
    table, stamp = tables.build(ledger_frames.of_home(home)), report_files.next_stamp
    taken = iter(["20261201T000000", "20261201T000000"])  # as two processes see it that look at the same time
    monkeypatch.setattr(report_files, "next_stamp", lambda folder: next(taken, None) or stamp(folder))
    one, other = (report_files.write(table, home, of) for of in ("a", "b"))
    assert one.parent != other.parent
    assert one.is_file()
    assert other.is_file()


@pytest.mark.parametrize("what", ["event", "damage", "file", "half", "code"])
def test_a_report_is_written_again_where_anything_has_changed(home, monkeypatch, what):
    first = report(home)
    [segment] = home.glob("ledger/*.jsonl")
    if what == "event":
        events.voided(Segment(home), "0" * 24, "for a test", "")
    elif what == "damage":
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b"kind", b"kimd")]))
    elif what == "file":
        first.write_text("cut off")
    elif what == "half":  # killed while it was written
        (first.parent / report_files.MANIFEST).unlink()
    else:
        monkeypatch.setattr("harness.report.report_files.code_hash", lambda: "another")
    again = report(home)
    assert again != first
    assert report(home) == again


def test_every_trial_is_in_a_file_beside_the_report(home):
    folder = report(home).parent
    wanted = ledger_frames.of_home(home).trials.drop("info").collect()
    assert pl.read_parquet(folder / report_files.TRIALS).equals(wanted)
    assert wanted.height > 10
    (folder / report_files.TRIALS).unlink()
    assert report(home).parent != folder, "a report without its trials is not whole"


def test_the_study_file_of_a_launch_is_beside_its_report_and_checked(home):
    table, inputs = tables.build(ledger_frames.of_home(home)), report_files.inputs_hash(Ledger.open(home))
    folder = report_files.write(table, home, inputs).parent
    assert not (folder / report_files.STUDY).exists(), "launches of earlier versions have none"
    page = report_files.write(table, home, inputs, 'adapters = ["id"]\n')
    assert (page.parent / report_files.STUDY).read_text() == 'adapters = ["id"]\n'
    assert report_files.existing(home, inputs) == page
    (page.parent / report_files.STUDY).unlink()
    assert report_files.existing(home, inputs) is None

"""Launches, studies and data cards come back from the ledger as they were written."""

import json
from pathlib import Path

import pytest

from harness.data.cards import DataCard
from harness.record.launches import LaunchRecord
from harness.types import HarnessError

GOLDEN = Path(__file__).parents[1] / "golden" / "ledgers"
NEWEST = "schema-1-core-3"


def launched(stem):
    """The launch event of a recorded ledger, read as plain JSON, without what the segment adds."""
    event = json.loads((GOLDEN / f"{stem}.jsonl").read_text().splitlines()[0])
    return {key: value for key, value in event.items() if key not in ("kind", "seq", "time", "crc")}


@pytest.mark.parametrize("stem", sorted(path.stem for path in GOLDEN.glob("*.jsonl")))
def test_a_launch_of_every_writer_is_written_again_as_it_was(stem):
    event = launched(stem)
    assert LaunchRecord.from_json(event).to_json() == {"ties": "mid-rank"} | event


def test_facts_about_the_search_are_no_options_of_the_engine():
    """`reproduce --search` builds an engine from the launch of a search that drew some parameters at random."""
    search = {"sampler": "gp", "pruner": "none", "warm_start": "toy", "warm_cells": "1 of 2", "drawn_at_random": ["a"]}
    record = LaunchRecord.from_json(launched(NEWEST) | {"engine": search})
    assert (record.engine.sampler, record.drawn_at_random, record.search) == ("gp", ("a",), search)
    assert {study.warm_start for study in record.studies} == {"toy"}


def test_an_option_of_a_later_version_is_one_clear_line():
    event = launched(NEWEST)
    event["protocol"] = event["protocol"] | {"embargo": 3}
    with pytest.raises(HarnessError, match=r"does not know .*embargo.*; update harness"):
        LaunchRecord.from_json(event)


def test_a_card_is_written_again_as_it_was():
    [card] = launched(NEWEST)["data"].values()
    assert card["duplicates_dropped"] == 0, "a count of zero is a fact"
    assert DataCard.from_json(card).to_json() == card


def test_null_facts_of_a_card_are_unknown():
    assert DataCard.from_json({"users": 3, "warnings": None, "read": None}) == DataCard(users=3)

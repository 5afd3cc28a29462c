"""Published numbers beside a table: what answers to what, what differs, what is a hole."""

import json
from dataclasses import replace

import polars as pl
import pytest
import synthetic_results
from command_line import harness as command

from harness import registry
from harness.report import published, tables
from harness.types import HarnessError

PAPER = """
title = "A paper"
[protocol]
split = "loo"
candidates = "all"
filter_seen = true
d = 64
epochs = 8
loss = "softmax"
[data.beauty]
users = 22363
items = 12101
events = 198502
[[row]]
dataset = "beauty"
backbone = "sasrec"
adapter = "id"
metric = "NDCG@10"
value = 0.05
confidence = "repository"
"""


@pytest.fixture
def table():
    boards = synthetic_results.results({("beauty", "none", "sasrec", "id"): synthetic_results.seeds(0.6)})
    params = json.dumps({"train.d": 64, "train.loss": "softmax"})
    return tables.build(replace(boards, runs=boards.runs.with_columns(params=pl.lit(params))))


def paper(tmp_path, text=PAPER):
    (tmp_path / "p.toml").write_text(text)
    return published.read(str(tmp_path / "p.toml"))


def test_an_equal_protocol_matches_and_the_gap_is_relative_to_theirs(tmp_path, table):
    [line] = published.compare(paper(tmp_path), table)
    assert line.match == "protocols match"
    mean = table.sections[0].rows[0].metrics["NDCG@10"].mean
    assert line.ours[0] == mean
    assert line.gap == pytest.approx(100 * (mean - 0.05) / 0.05)
    assert line.ours[1] < mean < line.ours[2]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("users = 22363", "users = 40226", "users 40,226 / 22,363"),
        ('split = "loo"', 'split = "gts"', "split gts / loo"),
        ('candidates = "all"', 'candidates = "100 sampled"', "candidates 100 sampled / all"),
        ("filter_seen = true", "filter_seen = false", "seen items excluded no / yes"),
        ("d = 64", "d = 128", "d 128 / 64"),
        ("epochs = 8", "epochs = 200", "max epochs 200 / 8"),
        ('loss = "softmax"', 'loss = "bce"', "loss bce / softmax"),
    ],
)
def test_each_fact_that_is_not_equal_is_told_in_words(tmp_path, table, old, new, words):
    [line] = published.compare(paper(tmp_path, PAPER.replace(old, new)), table)
    assert line.differs == (words,)
    assert line.match == "protocols differ"


def test_a_table_with_held_out_items_matches_no_paper(tmp_path, table):
    held_out = replace(table, header=table.header | {"protocol": table.header["protocol"] | {"cold_items": 0.1}})
    [line] = published.compare(paper(tmp_path, PAPER), held_out)
    assert line.differs == ("held-out items none / 0.1",)


def test_the_text_encoder_is_compared_where_the_row_reads_text(tmp_path):
    boards = synthetic_results.results({("beauty", "minilm", "sasrec", "svd"): synthetic_results.seeds(0.0)})
    text = PAPER.replace('adapter = "id"', 'adapter = "svd"').replace("d = 64", 'd = 64\nencoder = "LLaMA3-8B"')
    [line] = published.compare(paper(tmp_path, text), tables.build(boards))
    assert "text encoder LLaMA3-8B / minilm" in line.differs


def test_what_a_file_does_not_say_is_never_taken_for_equal(tmp_path, table):
    [line] = published.compare(
        paper(tmp_path, PAPER.replace("filter_seen = true\n", "").replace("d = 64\n", "")), table
    )
    assert line.unstated == ("seen items excluded", "d")
    assert line.match == "protocols match as far as stated"


def test_a_row_that_is_not_here_is_a_hole_with_what_to_run(tmp_path, table):
    gru = PAPER.replace('"sasrec"', '"gru4rec"').replace('"softmax"', '"bce"')
    for found in (published.compare(paper(tmp_path, gru), table), published.compare(paper(tmp_path, gru), None)):
        [line] = found
        assert line.ours is None
        assert line.match == "no row here"
        assert line.hole == "harness bench --datasets beauty --backbones gru4rec --adapters id --set train.loss=bce"


def test_of_several_rows_the_best_stands_beside_a_number_of_an_unknown_backbone(tmp_path):
    rows = {
        ("beauty", "none", backbone, "id"): synthetic_results.seeds(x)
        for backbone, x in (("sasrec", 0.6), ("hstu", 0.1))
    }
    [line] = published.compare(
        paper(tmp_path, PAPER.replace('"sasrec"', '"*"')), tables.build(synthetic_results.results(rows))
    )
    assert line.row == "beauty/none/hstu/id"
    assert "backbone" in line.unstated


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('split = "loo"', 'splitt = "loo"', "p.toml: protocol has an unknown key 'splitt'. Did you mean 'split'"),
        ("users = ", "user = ", r"data.beauty has an unknown key 'user'. Did you mean 'users'"),
        ('adapter = "id"\n', "", "row 1 has no 'adapter'"),
        ("value = 0.05", "value = 5", "value is 5; it must be a number from 0 to 1"),
        ('"repository"', '"repo"', "confidence: "),
        ("d = 64", "d = true", "d is True; it must be a int"),
        ("[[row]]", "[[rows]]", "has an unknown key 'rows'. Did you mean 'row'"),
        ('title = "A paper"', "title = ", "cannot be read"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path, old, new, match):
    with pytest.raises(HarnessError, match=match):
        paper(tmp_path, PAPER.replace(old, new))


def test_a_metric_that_is_none_names_those_there_are(tmp_path, table):
    with pytest.raises(HarnessError, match="Did you mean 'NDCG@10'"):
        published.compare(paper(tmp_path, PAPER.replace('"NDCG@10"', '"NDCG@100"')), table)


@pytest.mark.parametrize("name", published.names())
def test_every_shipped_paper_names_components_and_data_sets_that_there_are(name, tmp_path):
    from harness.data import library

    found = published.read(name)
    assert found.source
    for number in found.numbers:
        assert number.dataset in library.names(tmp_path)
        assert number.adapter in registry.names(registry.ADAPTERS)
        assert number.backbone in (published.ANY, *registry.names(registry.BACKBONES))
        assert number.facts.get("loss", "softmax") in registry.names(registry.LOSSES)
        assert number.confidence in published.CONFIDENCE


def test_paper_on_the_command_line(tmp_path):
    every = command(tmp_path / "home", "paper", "--json")
    assert every.returncode == 0, every.stderr
    assert len(json.loads(every.stdout)) == len(published.names())
    one = command(tmp_path / "home", "paper", "time-to-split")
    assert "0.0601  -" in one.stdout
    assert "from a page that collects results" in command(tmp_path / "home", "paper", "spectran").stdout
    wrong = command(tmp_path / "home", "paper", "spektran")
    assert wrong.returncode == 2
    assert "Did you mean 'spectran'" in wrong.stderr
    assert command(tmp_path / "home", "paper", str(tmp_path / "none.toml")).returncode == 2

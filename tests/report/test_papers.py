"""Published numbers beside a table: what answers to what, what differs, what is a hole."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import synthetic_results
from command_line import harness as command

from harness import registry
from harness.report import published, published_levels, tables
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


@pytest.mark.parametrize(
    ("protocol", "prep", "differs", "unstated"),
    [
        ({"drop_tied_test": True}, {}, ("tied tests kept / dropped",), ()),
        ({}, {"tie_policy": "random:1"}, ("order of ties as in the file / random:1",), ()),
        ({"split": "gts", "target": "successive"}, {}, (), ("target", "quantile of time", "validation")),
        ({"split": "users"}, {}, (), ("target", "share of trained users")),
    ],
)
def test_options_that_change_our_test_are_no_match(tmp_path, table, protocol, prep, differs, unstated):
    header = table.header | {"protocol": table.header["protocol"] | protocol, "prep": prep}
    text = PAPER.replace('split = "loo"', f'split = "{protocol.get("split", "loo")}"')
    [line] = published.compare(paper(tmp_path, text), replace(table, header=header))
    assert (line.differs, line.unstated) == (differs, unstated)
    assert line.match != "protocols match"


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


def test_our_best_row_is_the_best_in_validation_not_in_the_test(tmp_path):
    shifts = {"sasrec": 0.6, "hstu": 0.1}  # hstu is better in the test
    rows = {("beauty", "none", backbone, "id"): synthetic_results.seeds(x) for backbone, x in shifts.items()}
    made = synthetic_results.results(rows)
    better = pl.when(pl.col("backbone") == "sasrec").then(0.5).otherwise(0.1).alias("best_valid")
    text = PAPER.replace('"sasrec"', '"*"').replace("[[row]]", '[[row]]\nselected_by = "test"')
    whole = paper(tmp_path, text)
    [line] = published.compare(whole, tables.build(replace(made, runs=made.runs.with_columns(better))))
    assert line.row == "beauty/none/sasrec/id"
    assert ", selected by the test set; ours: beauty" in published.text([(whole, [line])])


def test_noise_and_misassigned_texts_are_not_our_best(tmp_path):
    rows = {
        ("beauty", encoder, "sasrec", "svd"): synthetic_results.seeds(x)
        for encoder, x in (("minilm", 0.6), ("noise", 0.1), ("shuffled:minilm", 0.1))
    }
    text = PAPER.replace('adapter = "id"', 'adapter = "svd"')
    [line] = published.compare(paper(tmp_path, text), tables.build(synthetic_results.results(rows)))
    assert line.row == "beauty/minilm/sasrec/svd"


def test_the_row_that_differs_least_from_the_paper_stands_beside_its_number(tmp_path):
    rows = {("beauty", e, "sasrec", "svd"): synthetic_results.seeds(x) for e, x in (("minilm", 0.6), ("own:big", 0.1))}
    text = PAPER.replace('adapter = "id"', 'adapter = "svd"').replace("d = 64", 'd = 64\nencoder = "minilm"')
    [line] = published.compare(paper(tmp_path, text), tables.build(synthetic_results.results(rows)))
    assert line.row == "beauty/minilm/sasrec/svd"


def test_one_test_user_has_no_interval_in_text_and_json(tmp_path):
    boards = synthetic_results.results({("beauty", "none", "sasrec", "id"): [np.array([2.0])]})
    made = paper(tmp_path)
    pairs = [(made, published.compare(made, tables.build(boards)))]
    assert "[–, –]" in published.text(pairs)
    assert "nan" not in published.text(pairs)
    assert json.loads(json.dumps(tables.finite(published_levels.to_json(pairs, [])), allow_nan=False))


METHOD = PAPER.replace('backbone = "sasrec"\nadapter = "id"', 'method = "TIGER"')


def test_a_method_without_counterpart_is_compared_with_our_best_row_of_any_kind(tmp_path):
    rows = {
        ("beauty", "none", "sasrec", "id"): synthetic_results.seeds(0.6),
        ("beauty", "minilm", "hstu", "svd"): synthetic_results.seeds(0.1),
    }
    [line] = published.compare(paper(tmp_path, METHOD), tables.build(synthetic_results.results(rows)))
    assert line.number.row == "beauty/TIGER"
    assert line.row == "beauty/minilm/hstu/svd"
    assert not {"backbone", "loss", "d", "max epochs"} & {*line.unstated}
    assert not any(word.startswith(("loss", "d ", "max epochs")) for word in line.differs)
    encoder = METHOD.replace("[data.", 'encoder = "t5"\n[data.')
    [line] = published.compare(paper(tmp_path, encoder), tables.build(synthetic_results.results(rows)))
    assert line.row == "beauty/minilm/hstu/svd", "another encoder does not make a row without text our best"
    [hole] = published.compare(paper(tmp_path, METHOD.replace("beauty", "toys")), None)
    assert hole.hole == "harness bench --datasets toys"


def numbers(tmp_path, name, *rows, head=""):
    """A paper with rows of Beauty and SASRec, each a value with further lines, or only a value."""
    blocks = [f"{row[0]}\n{row[1]}" if isinstance(row, tuple) else str(row) for row in rows]
    start = """[[row]]
dataset = "beauty"
metric = "NDCG@10"
confidence = "paper"
value = """
    model = 'backbone = "sasrec"\nadapter = "id"\n'
    text = "".join(f"{start}{b}\n" + ("" if "method" in b else model) for b in blocks)
    return paper(tmp_path, f'title = "{name}"\n{head}\n{text}')


def test_a_level_spans_the_papers_whose_stated_protocols_agree(tmp_path):
    users = '[protocol]\nsplit = "{}"\n[data.beauty]\nusers = {}\n'
    papers = [
        numbers(tmp_path, "low", 0.04, head=users.format("loo", 100)),
        numbers(tmp_path, "high", 0.05, head=users.format("loo", 100)),
        numbers(tmp_path, "states nothing", 0.045),
        numbers(tmp_path, "other data", 0.09, head=users.format("loo", 999)),
        numbers(tmp_path, "other split", 0.01, head=users.format("gts", 100)),
    ]
    [level] = published_levels.levels(papers)
    assert [(title, number.value) for title, number in level.numbers] == [
        ("low", 0.04),
        ("states nothing", 0.045),
        ("high", 0.05),
    ]
    assert level.spread == pytest.approx(25)
    assert level.papers == 3


def test_a_published_0_has_no_relative_spread(tmp_path):
    [level] = published_levels.levels([numbers(tmp_path, "one", 0.0), numbers(tmp_path, "two", 0.05)])
    assert level.spread == float("inf")
    assert "A gain below" not in published_levels.text([level], [])


def test_one_paper_has_no_level(tmp_path):
    assert published_levels.levels([numbers(tmp_path, "one", 0.04, 0.05)]) == []


def test_a_number_that_the_test_set_selected_is_shown_and_not_counted(tmp_path):
    chosen = (0.08, 'selected_by = "test"')
    others = numbers(tmp_path, "a", 0.04), numbers(tmp_path, "b", 0.05, chosen)
    [level] = published_levels.levels(others)
    assert len(level.numbers) == 3
    assert (level.low, level.high) == (0.04, 0.05)
    assert published_levels.levels([others[0], numbers(tmp_path, "b", chosen)]) == []


def test_methods_are_named_whose_best_number_is_below_a_level(tmp_path):
    def method(name):
        return f'method = "{name}"'

    rows = [(0.049, method("Under")), (0.051, method("Over")), (0.02, method("Over"))]
    papers = [numbers(tmp_path, "a", 0.04, *rows), numbers(tmp_path, "b", 0.05)]
    [level] = published_levels.levels(papers)
    assert level.below == ["Under (0.0490)"]


def test_levels_are_printed_for_the_papers_that_were_requested(tmp_path, table):
    papers = [numbers(tmp_path, "a", 0.04), numbers(tmp_path, "b", 0.05)]
    found = published_levels.levels(papers)
    pairs = [(papers[0], published.compare(papers[0], table))]
    text = published_levels.text(found, pairs)
    assert "beauty/sasrec/id  NDCG@10  0.0400 to 0.0500 in 2 papers" in text
    assert "A gain below 25 % over the lowest does not reach the highest." in text
    mean = table.sections[0].rows[0].metrics["NDCG@10"].mean
    assert f"{mean:.4f}  ours [" in text
    [value] = published_levels.to_json(pairs, found)
    assert value["rows"][0]["level"]["high"] == 0.05
    gru = paper(tmp_path, PAPER.replace('"sasrec"', '"gru4rec"'))
    assert published_levels.text(found, [(gru, published.compare(gru, None))]) == ""
    [value] = published_levels.to_json([(gru, published.compare(gru, None))], found)
    assert value["rows"][0]["level"] is None


def test_published_sasrec_baselines_lie_far_apart_on_beauty():
    found = published_levels.levels([published.read(name) for name in published.names()])
    level = next(x for x in found if x.row == "amazon2014-beauty/sasrec/id" and x.metric == "NDCG@10")
    assert level.papers >= 4
    assert 0.0375 in [number.value for _, number in level.numbers]
    assert all(number.counts.get("users", 22363) == 22363 for _, number in level.numbers)
    assert level.high > 1.4 * 0.0375


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('split = "loo"', 'splitt = "loo"', "p.toml: protocol has an unknown key 'splitt'. Did you mean 'split'"),
        ("users = ", "user = ", r"data.beauty has an unknown key 'user'. Did you mean 'users'"),
        ('adapter = "id"\n', "", "row 1 has no 'adapter'"),
        ("value = 0.05", "value = 5", "value is 5; it must be a number from 0 to 1"),
        ('"repository"', '"repo"', "row 1: confidence is 'repo'. Known: paper"),
        ('"NDCG@10"', '"ndcg"', r"p.toml: row 1: metric is 'ndcg'\. .*Known: NDCG@5"),
        ('split = "loo"', 'split = "lou"', r"p.toml: row 1: split is 'lou'\. Did you mean 'loo'"),
        ('adapter = "id"', 'adapter = "id"\nselected_by = "tests"', "selected_by is 'tests'. Did you mean 'test'"),
        ('backbone = "sasrec"', 'methode = "TIGER"', "unknown key 'methode'. Did you mean 'method'"),
        ("d = 64", "d = true", "d is True; it must be a int"),
        ("value = 0.05", "value = true", "value is True; it must be a number"),
        ('metric = "NDCG@10"', "metric = 5", "row 1: metric is 5; it must be a text"),
        ('confidence = "repository"', 'confidence = ["paper"]', r"row 1: confidence is \['paper'\]; it must be a text"),
        ('title = "A paper"', "title = 7", "title is 7; it must be a text"),
        ("users = 22363", "users = '22363'", "data.beauty.users is '22363'; it must be a whole number"),
        ("[[row]]", "[[rows]]", "has an unknown key 'rows'. Did you mean 'row'"),
        ('title = "A paper"', "title = ", "cannot be read"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path, old, new, match):
    with pytest.raises(HarnessError, match=match):
        paper(tmp_path, PAPER.replace(old, new))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("data = 3", "data is 3; it must be tables"),
        ("[data]\nshop = 3", "data.shop is 3; it must be a table of: users"),
        ("protocol = 4", "protocol is 4; it must be a table of: split"),
        ("row = 4", r"row is 4; write each as \[\[row\]\]"),
        ("row = [4]", "row 1 is 4; it must be a table of: dataset"),
    ],
)
def test_a_file_of_other_types_is_one_line(tmp_path, text, match):
    with pytest.raises(HarnessError, match=match):
        paper(tmp_path, text)


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
        assert number.adapter in ([published.ANY] if number.method else registry.names(registry.ADAPTERS))
        assert number.backbone in (published.ANY, *registry.names(registry.BACKBONES))
        assert number.facts.get("loss", "softmax") in registry.names(registry.LOSSES)
        assert number.confidence in published.CONFIDENCE


def test_paper_on_the_command_line(tmp_path):
    every = command(tmp_path / "home", "paper", "--json")
    assert every.returncode == 0, every.stderr
    assert len(json.loads(every.stdout)) == len(published.names())
    one = command(tmp_path / "home", "paper", "time-to-split")
    assert "0.0601  -" in one.stdout
    assert "The same row in several papers" in one.stdout
    assert "from a page that collects results" in command(tmp_path / "home", "paper", "spectran").stdout
    wrong = command(tmp_path / "home", "paper", "spektran")
    assert wrong.returncode == 2
    assert "Did you mean 'spectran'" in wrong.stderr
    assert command(tmp_path / "home", "paper", str(tmp_path / "none.toml")).returncode == 2


def test_our_row_stands_in_a_level_with_what_makes_it_another_test(tmp_path, table):
    papers = [
        numbers(tmp_path, name, value, head='[protocol]\nsplit = "loo"') for name, value in (("a", 0.04), ("b", 0.05))
    ]
    found = published_levels.levels(papers)
    by_time = replace(table, header=table.header | {"protocol": table.header["protocol"] | {"split": "gts"}})
    text = published_levels.text(found, [(papers[0], published.compare(papers[0], by_time))])
    assert "], protocols differ: split loo / gts" in text


def test_a_level_that_a_paper_contradicts_is_not_shown_for_it(tmp_path, table):
    users = "[data.beauty]\nusers = {}"
    papers = [numbers(tmp_path, name, 0.04, head=users.format(100)) for name in "ab"]
    other = numbers(tmp_path, "c", 0.09, head=users.format(999))
    found = published_levels.levels([*papers, other])
    assert len(found) == 1
    assert published_levels.text(found, [(other, published.compare(other, table))]) == ""

"""The leaderboard: what it ranks, compares, marks and says, and that no name can break a format."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness import leaderboard
from harness.leaderboard import Results, terminal
from harness.types import HarnessError

GOLDEN = Path(__file__).parent / "golden" / "leaderboard"
SCRIPT, FORMULA, PIPE, ESCAPE = (
    "<script>alert(1)</script>",
    "=1+cmd|'/C calc'!A0",
    "a|b`c`\n[d](e)",
    "\x1b[31mred\u202e",
)
KEY = ("dataset", "encoder", "backbone", "adapter")
HEADER = {
    "protocol": {
        "split": "loo",
        "candidates": "all items",
        "filter_seen": True,
        "ties": "mid-rank",
        "tie_policy": "source",
    },
    "budget": {"name": "quick", "trials": 3, "epochs": 8, "patience": 3, "seeds": 3},
    "datasets": {
        "beauty": {"users": 22363, "items": 12101, "events": 198502, "density": 0.000733, "mean_length": 8.88}
        | {"test_users": 400, "tied_test_share": 0.42}
    },
    "provenance": {"git": "0123abc", "date": "2026-11-01", "versions": {"torch": "2.13", "note": SCRIPT}},
    "test_opened": {"beauty / minilm / sasrec / svd": 2},
}


def targets(shift: float, users: int = 400, seed: int = 0) -> np.ndarray:
    """Test ranks of some users, by arithmetic alone; a larger shift ranks worse."""
    x = (np.arange(users) * 7919 + seed * 104729) % 1009
    return 1 + np.floor(x / 1009 * 60 * (1 + shift))


def cell(key: tuple[str, ...], state: str = "done", reason: str = "", **numbers: int) -> dict:
    counts = {"trials_done": 2, "trials_pruned": 1, "trials_failed": 0, "trials_planned": 3}
    counts |= {"search_seconds": 100.0, "seeds_done": 3, "seeds_planned": 3}
    return dict(zip(KEY, key, strict=True)) | counts | numbers | {"state": state, "reason": reason}


def run(key: tuple[str, ...], seed: int, params: dict | None = None, info: dict | None = None) -> dict:
    facts = {"best_valid": 0.05 + 0.001 * seed, "seconds": 10.0 + seed, "parameters": 46123, "effective_rank": 31.5}
    texts = {"params": json.dumps(params or {"train.lr": 0.001}), "info": json.dumps(info or {"isotropy": 0.5 + seed})}
    return {"trial": "|".join((*key, str(seed))), **dict(zip(KEY, key, strict=True)), "seed": seed, **facts, **texts}


def results(rows: dict[tuple[str, ...], list[np.ndarray]], cells: list[dict] | None = None, header=HEADER) -> Results:
    """A bench in which each row has one array of test ranks a seed."""
    runs = [run(key, seed) for key, seeds in rows.items() for seed in range(len(seeds))]
    ranks = [
        pl.DataFrame({"trial": "|".join((*key, str(seed))), "user": np.arange(len(values)), "rank": values})
        for key, seeds in rows.items()
        for seed, values in enumerate(seeds)
    ]
    return Results(pl.DataFrame(runs), pl.concat(ranks), pl.DataFrame(cells or [cell(key) for key in rows]), header)


def seeds(shift: float, n: int = 3) -> list[np.ndarray]:
    return [targets(shift, seed=seed) for seed in range(n)]


@pytest.fixture(scope="module")
def hostile() -> Results:
    """Two data sets, several backbones, holes of every kind and names that attack every format."""
    rows = {
        ("beauty", "none", "none", "popularity"): seeds(3.0, 1),
        ("beauty", "none", "sasrec", "id"): seeds(0.6),
        ("beauty", "minilm", "sasrec", "svd"): seeds(0.0),
        ("beauty", "e5", "sasrec", "svd"): seeds(0.02),
        ("beauty", "minilm", "sasrec", SCRIPT): seeds(0.9, 2),
        ("beauty", "minilm", "sasrec", FORMULA): seeds(1.0),
        ("beauty", PIPE, "sasrec", "mlp[hidden=256]"): seeds(0.4),
        ("beauty", "none", "gru4rec", "id"): seeds(0.5),
    }
    cells = [cell(key) for key in rows]
    cells[0] |= {"trials_done": 0, "trials_pruned": 0, "trials_planned": 0, "seeds_done": 1, "seeds_planned": 1}
    cells[4] |= {"seeds_done": 2, "state": "partial", "reason": "seed 2 is missing"}
    none = {"trials_done": 0, "trials_pruned": 0, "seeds_done": 0}
    cells += [
        cell(("beauty", "minilm", "sasrec", ESCAPE), "failed", "CUDA | out of <memory>", **none, trials_failed=3),
        cell(("beauty", "minilm", "gru4rec", "svd"), "pending", "", **none),
        cell(("toys", "minilm", "sasrec", "svd"), "skipped", "d=64 is more than the rank, 12", **none),
    ]
    return results(rows, cells)


@pytest.fixture(scope="module")
def table(hostile: Results) -> leaderboard.Table:
    return leaderboard.build(hostile)


def row_of(
    table: leaderboard.Table, adapter: str, backbone: str = "sasrec", encoder: str = "minilm"
) -> leaderboard.Row:
    section = next(s for s in table.sections if s.backbone == backbone)
    return next(r for r in section.rows if (r.cell.adapter, r.cell.encoder) == (adapter, encoder))


# --- what is ranked and compared -------------------------------------------------------------------------------


def test_metrics_are_the_registry_at_5_10_20_with_ndcg_first(table):
    ends = ("5", "10", "20")
    assert table.metrics[:9] == tuple(f"{name}@{k}" for name in ("NDCG", "HR", "MRR") for k in ends)
    assert table.headline == "NDCG@10"


def test_a_row_holds_the_means_that_its_ranks_have(table, hostile):
    ranks = hostile.ranks.filter(pl.col("trial").str.starts_with("beauty|minilm|sasrec|svd|"))["rank"].to_list()
    oracle = {
        "NDCG@10": math.fsum(1 / math.log2(r + 1) for r in ranks if r <= 10) / len(ranks),
        "HR@20": sum(r <= 20 for r in ranks) / len(ranks),
        "MRR@5": math.fsum(1 / r for r in ranks if r <= 5) / len(ranks),
    }
    for name, mean in oracle.items():
        value = row_of(table, "svd").metrics[name]
        assert value.mean == pytest.approx(mean, rel=1e-12)
        assert value.low < value.mean < value.high


def test_rows_are_ranked_by_headline_with_holes_last(table):
    for section in table.sections:
        means = [row.metrics[table.headline].mean for row in section.rows if row.metrics]
        assert means == sorted(means, reverse=True)
        assert [row.rank for row in section.rows] == [
            *range(1, len(means) + 1),
            *[None] * (len(section.rows) - len(means)),
        ]


def test_there_is_a_section_a_dataset_and_backbone_and_baselines_stand_in_each(table):
    assert [(s.dataset, s.backbone) for s in table.sections] == [
        ("beauty", "gru4rec"),
        ("beauty", "sasrec"),
        ("toys", "sasrec"),
    ]
    for section in table.sections[:2]:
        assert [row.cell.adapter for row in section.rows].count("popularity") == 1
        assert [row.cell.adapter for row in section.rows].count("id") == 1


def test_gain_over_id_is_the_ratio_of_means_inside_its_interval(table):
    best, reference = row_of(table, "svd"), row_of(table, "id", encoder="none")
    expected = 100 * (best.metrics["NDCG@10"].mean / reference.metrics["NDCG@10"].mean - 1)
    assert best.vs_id is not None
    assert best.vs_id.percent == pytest.approx(expected)
    assert best.vs_id.low < expected < best.vs_id.high
    assert reference.vs_id is None


def test_best_rival_is_the_best_other_row_that_is_no_baseline(table):
    assert row_of(table, "svd").vs_rival.against.encoder == "e5"
    assert row_of(table, "svd", encoder="e5").vs_rival.against.encoder == "minilm"
    assert row_of(table, "popularity", encoder="none").vs_rival.against.adapter == "svd"
    assert row_of(table, "id", backbone="gru4rec", encoder="none").vs_rival is None


def test_a_baseline_that_wins_is_best_but_nobodys_rival():
    key = ("beauty", "none", "sasrec", "id")
    built = leaderboard.build(results({("beauty", "none", "none", "popularity"): seeds(0.0), key: seeds(2.0)}))
    first, second = built.sections[0].rows
    assert (first.cell.adapter, first.marks[0]) == ("popularity", "best")
    assert second.vs_rival is None


def test_marks_say_best_second_tied_short_differing_and_reopened(table):
    assert set(row_of(table, "svd").marks) == {"best", "differs", "reopened"}
    assert set(row_of(table, "svd", encoder="e5").marks) == {"second", "tied", "differs"}
    assert "short" in row_of(table, SCRIPT).marks
    assert "tied" not in row_of(table, "popularity", encoder="none").marks


def test_identical_rows_share_the_first_rank_and_are_tied():
    twins = {("beauty", "none", "sasrec", "id"): seeds(0.1), ("beauty", "minilm", "sasrec", "svd"): seeds(0.1)}
    rows = leaderboard.build(results(twins)).sections[0].rows
    assert [row.rank for row in rows] == [1, 1]
    assert "tied" in rows[1].marks
    assert rows[1].vs_id.percent == 0
    assert rows[1].vs_id.p == 1


def test_a_gain_that_rests_on_one_lucky_seed_is_not_called_a_difference():
    lucky = [targets(0.0), targets(0.6), targets(0.6)]
    rows = {("beauty", "none", "sasrec", "id"): [targets(0.6)] * 3, ("beauty", "minilm", "sasrec", "svd"): lucky}
    best = leaderboard.build(results(rows)).sections[0].rows[0]
    assert best.cell.adapter == "svd"
    assert best.vs_id.percent > 5
    assert best.vs_id.low <= 0
    assert "differs" not in best.marks


def test_gain_over_a_row_that_scores_nothing_is_left_open():
    rows = {
        ("beauty", "none", "sasrec", "id"): [np.full(50, 900.0)],
        ("beauty", "e", "sasrec", "svd"): [np.full(50, 1.0)],
    }
    first = leaderboard.build(results(rows)).sections[0].rows[0]
    assert first.metrics["NDCG@10"].mean == 1
    assert first.vs_id is None


def test_the_order_of_the_frames_does_not_matter(hostile, table):
    turned = Results(hostile.runs.reverse(), hostile.ranks.reverse(), hostile.cells.reverse(), hostile.header)
    assert leaderboard.build(turned) == table


def test_diagnostics_are_means_over_seeds_and_not_numbers_become_null():
    key = ("beauty", "none", "sasrec", "id")
    made = results({key: seeds(0.1, 2)})
    runs = [run(key, 0, info={"isotropy": 1.0, "note": "x"}), run(key, 1, info={"isotropy": 2.0, "note": "y"})]
    runs[0] |= {"effective_rank": float("nan"), "info": '{"isotropy": 1.0, "alignment": NaN, "note": "x"}'}
    fit = leaderboard.build(Results(pl.DataFrame(runs), made.ranks, made.cells, {})).sections[0].rows[0].fit
    assert fit.info == {"isotropy": 1.5, "alignment": None, "note": "x"}
    assert fit.effective_rank == 31.5
    assert fit.valid == pytest.approx(0.0505)


def test_a_bench_without_any_result_is_a_table_of_holes():
    made = results({("beauty", "none", "sasrec", "id"): seeds(0.0, 1)})
    cells = made.cells.with_columns(state=pl.lit("pending"))
    built = leaderboard.build(Results(made.runs.clear(), made.ranks.clear(), cells, {}))
    assert built.sections[0].rows[0].rank is None
    for name in leaderboard.formats():
        assert "pending" in leaderboard.render(built, name)


# --- what is refused -------------------------------------------------------------------------------------------


def spoiled(made: Results, **frames: pl.DataFrame) -> Results:
    return Results(**{**vars(made), **frames})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: spoiled(r, runs=r.runs.rename({"seed": "sed"})), r"'runs' has no column 'seed'. Did you mean 'sed'"),
        (lambda r: spoiled(r, cells=r.cells.with_columns(state=pl.lit("don"))), r"state 'don'. Did you mean 'done'"),
        (lambda r: spoiled(r, cells=pl.concat([r.cells, r.cells])), r"cells hold beauty / none / sasrec / id 2 times"),
        (lambda r: spoiled(r, cells=r.cells.filter(pl.col("adapter") == "id")), r"svd, which is no cell of the plan"),
        (lambda r: spoiled(r, runs=pl.concat([r.runs, r.runs])), r"a seed more than once: 0, 0, 1, 1"),
        (
            lambda r: spoiled(r, ranks=r.ranks.filter(pl.col("user") > 0)).__class__(r.runs, r.ranks[1:], r.cells),
            r"399",
        ),
        (lambda r: spoiled(r, ranks=r.ranks.filter(~pl.col("trial").str.ends_with("1"))), r"seed 1: .* of 0 users"),
        (lambda r: spoiled(r, ranks=r.ranks.with_columns(rank=pl.col("rank") - 1)), r"hold 0.0; ranks .* start at 1"),
        (lambda r: spoiled(r, ranks=pl.concat([r.ranks, r.ranks])), r"hold a user more than once"),
        (lambda r: spoiled(r, runs=r.runs.with_columns(params=pl.lit("[1]"))), r"params is no JSON object: \[1\]"),
        (
            lambda r: spoiled(r, runs=r.runs.with_columns(params=pl.format('{"lr":{}}', pl.col("seed")))),
            r"differ in their params",
        ),
    ],
)
def test_frames_that_contradict_themselves_are_refused_in_one_line(spoil, message):
    made = results({("beauty", "none", "sasrec", "id"): seeds(0.1, 2), ("beauty", "e", "sasrec", "svd"): seeds(0.2, 2)})
    with pytest.raises(HarnessError, match=message) as error:
        leaderboard.build(spoil(made))
    assert "\n" not in str(error.value)


def test_an_unknown_format_is_refused_with_the_nearest_name(table):
    with pytest.raises(HarnessError, match=r"no 'htlm'. Did you mean 'html'\? Known: csv, html, json, md, terminal"):
        leaderboard.render(table, "htlm")


# --- the formats -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["csv", "html", "json", "md", "terminal"])
def test_each_format_is_what_its_golden_file_holds(name, table, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    text, path = leaderboard.render(table, name), GOLDEN / f"hostile.{name}"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["csv", "html", "json", "md", "terminal"])
def test_every_cell_of_the_plan_is_seen_in_every_format(name, table):
    text = leaderboard.render(table, name)
    for words in ("failed", "pending", "skipped", "d=64 is more than the rank, 12", "seed 2 is missing", "popularity"):
        assert words in text


def test_json_is_the_whole_table_without_nan(table):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    value = json.loads(leaderboard.render(table, "json"), parse_constant=refuse)
    rows = value["sections"][1]["rows"]
    assert len(rows) == 8
    best = rows[0]
    assert best["cell"] == {"dataset": "beauty", "encoder": "minilm", "backbone": "sasrec", "adapter": "svd"}
    assert best["metrics"]["NDCG@10"]["mean"] == pytest.approx(row_of(table, "svd").metrics["NDCG@10"].mean, rel=1e-7)
    assert best["fit"]["params"] == {"train.lr": 0.001}
    assert rows[-1]["fit"] is None
    assert value["header"]["provenance"]["git"] == "0123abc"


def test_csv_reads_back_and_starts_no_formula(table):
    lines = list(csv.DictReader(io.StringIO(leaderboard.render(table, "csv"))))
    assert len(lines) == sum(len(section.rows) for section in table.sections)
    for line in lines:
        for value in line.values():
            assert value[:1] not in ("=", "+", "@", "\t") and not re.match(r"-(?![\d.])", value)
    assert f"'{FORMULA}" in {line["adapter"] for line in lines}
    best = next(line for line in lines if line["rank"] == "1" and line["backbone"] == "sasrec")
    assert float(best["NDCG@10_low"]) < float(best["NDCG@10"]) < float(best["NDCG@10_high"])


def test_markdown_tables_keep_their_columns_whatever_the_names(table):
    text = leaderboard.render(table, "md")
    assert "<script" not in text.replace("\\<script", "")
    assert "\x1b" not in text and "\u202e" not in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 5
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1
        assert all(line.startswith("| ") and line.endswith(" |") for line in block)


def test_plain_text_obeys_no_escape_and_is_aligned(table):
    text = terminal.plain(table, 10_000)
    assert all(char.isprintable() or char == "\n" for char in text)
    lines = text.splitlines()
    rule = next(line for line in lines if line.startswith("---") or line.startswith("-  "))
    first = lines.index(rule)
    start = lines[first - 1].index("NDCG@10 [95 %]")
    assert lines[first + 1][start - 2 : start] == "  "


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("style", [terminal.plain, terminal.coloured])
def test_columns_leave_until_the_table_fits_and_the_headline_stays(width, style):
    rows = {("beauty", "none", "sasrec", "id"): seeds(0.6), ("beauty", "minilm", "sasrec", "svd"): seeds(0.0)}
    text = re.sub(r"\x1b\[[\d;]*m", "", style(leaderboard.build(results(rows)), width))
    grid = [line for line in text.splitlines() if re.match(r"\s*(#|\d)\s", line)]
    assert len(grid) == 3
    assert max(map(len, grid)) <= width
    assert "NDCG@10 [95 %]" in grid[0]
    assert ("erank" in grid[0]) is (width >= 1000) or width < 1000


def test_a_terminal_gets_colours_and_a_pipe_gets_none(table, monkeypatch):
    assert "\x1b[" not in leaderboard.render(table, "terminal")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    text = leaderboard.render(table, "terminal")
    assert "\x1b[1;32m" in text
    assert "\x1b[31m" not in text


class Page(html.parser.HTMLParser):
    """What a browser would act on: elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(table) -> Page:
    return Page(leaderboard.render(table, "html"))


def test_the_page_runs_its_own_script_only_and_asks_for_nothing(page, table):
    assert len(page.all("script")) == 1
    assert "alert(1)" not in page.scripts[0]
    addresses = [v for _, a in page.elements for k, v in a.items() if k in ("src", "href", "action", "data") and v]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert not re.search(r"https?://|url\(|@import", leaderboard.render(table, "html"))
    assert not [k for _, attributes in page.elements for k in attributes if k.startswith("on")]


def test_the_page_is_accessible(page, table):
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("caption")) == len(page.all("table")) == len(table.sections)
    heads = page.all("th")
    assert {head["scope"] for head in heads} == {"col", "row"}
    assert all("aria-sort" in head for head in heads if head["scope"] == "col")
    assert all(region["aria-label"] and region["tabindex"] == "0" for region in page.all("div") if region.get("role"))
    assert all(drawing["aria-hidden"] == "true" for drawing in page.all("svg"))


def test_the_page_draws_every_interval_and_shows_one_metric_at_a_time(page, table):
    shown = sum(bool(row.metrics) for section in table.sections for row in section.rows)
    assert len(page.all("svg")) == shown * len(table.metrics)
    visible = {cell["data-metric"] for cell in page.all("td") if "data-metric" in cell and "hidden" not in cell}
    assert visible == {table.headline}
    assert len(page.all("option")) == len(table.metrics) + 1


def test_a_new_metric_and_a_new_format_are_one_file_each(tmp_path):
    """In a copy of the package: a file in metrics becomes columns, a file in leaderboard becomes a format."""
    root = Path(leaderboard.__file__).parents[1]
    copy = tmp_path / "harness"
    for part in ("__init__.py", "types.py", "registry.py", "stats.py", "metrics", "leaderboard"):
        for source in [root / part] if (root / part).is_file() else (root / part).iterdir():
            if source.is_file():
                target = copy / source.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    first = "import numpy as np\n\n\ndef first(ranks, k):\n    return (ranks == 1).astype(np.float64)\n"
    (copy / "metrics" / "first.py").write_text(first)
    (copy / "leaderboard" / "names.py").write_text("def render(table):\n    return ' '.join(table.metrics)\n")
    program = (
        "import sys, polars as pl; from harness import leaderboard as board\n"
        "cells = pl.DataFrame(schema=dict.fromkeys(board._frames.COLUMNS['cells'], pl.String))\n"
        "runs = pl.DataFrame(schema=dict.fromkeys(board._frames.COLUMNS['runs'], pl.String))\n"
        "ranks = pl.DataFrame(schema=dict.fromkeys(board._frames.COLUMNS['ranks'], pl.String))\n"
        "print(board.render(board.build(board.Results(runs, ranks, cells)), 'names'))\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'jinja2', 'rich'} & set(sys.modules)))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.stdout.splitlines() == [
        "NDCG@5 NDCG@10 NDCG@20 HR@5 HR@10 HR@20 MRR@5 MRR@10 MRR@20 FIRST@5 FIRST@10 FIRST@20",
        "[]",
    ], told.stderr

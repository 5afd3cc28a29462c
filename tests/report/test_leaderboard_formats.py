"""The formats of the leaderboard: what they say, and that no name can break one."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as parquet
import pytest
import synthetic_ledgers
from command_line import harness
from synthetic_results import FORMULA, cell, hostile, results, row_of, run, seeds

from harness.report.tables import Results, Table, build, render, terminal
from harness.types import HarnessError

GOLDEN = Path(__file__).parents[1] / "golden" / "leaderboard"


@pytest.fixture(scope="module")
def table() -> Table:
    return build(hostile())


def test_an_unknown_format_is_refused_with_the_nearest_name(table):
    with pytest.raises(
        HarnessError,
        match=r"no table format 'htlm'. Did you mean 'html'\? Known: csv, html, json, md, parquet, terminal, tex",
    ):
        render(table, "htlm")


def golden(name: str, text: str) -> None:
    """Equal to the golden file of that name, or written to it where that is asked for."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["csv", "json", "md", "terminal", "tex"])
def test_each_format_is_what_its_golden_file_holds(name, table, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    golden(f"hostile.{name}", render(table, name))


def test_the_page_is_its_golden_skeleton_around_its_golden_data(table):
    """Scripts and styles are tried in a browser (test_report.py); here stands what they are given."""
    text = render(table, "html")
    data = re.search(r'<script type="application/json" id="board">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    skeleton = text.replace(data.group(1), "DATA")
    skeleton = re.sub(r"<(script|style)>.*?</\1>", r"<\1>CODE</\1>", skeleton, flags=re.DOTALL)
    golden("hostile.html", re.sub(r"'sha256-[^']+'", "'HASH'", skeleton))
    golden("hostile.board.json", json.dumps(json.loads(data.group(1)), indent=1, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("name", ["csv", "html", "json", "md", "terminal", "tex"])
def test_every_cell_of_the_plan_is_seen_in_every_format(name, table):
    text = render(table, name)
    for words in ("failed", "pending", "skipped", "d=64 is more than the rank, 12", "seed 2 is missing", "popularity"):
        assert words in text


def test_json_is_the_whole_table_without_nan(table):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    value = json.loads(render(table, "json"), parse_constant=refuse)
    rows = value["sections"][1]["rows"]
    assert len(rows) == 8
    best = rows[0]
    assert best["cell"] == {"dataset": "beauty", "encoder": "minilm", "backbone": "sasrec", "adapter": "svd"}
    assert best["metrics"]["NDCG@10"]["mean"] == pytest.approx(row_of(table, "svd").metrics["NDCG@10"].mean, rel=1e-7)
    assert best["fit"]["params"] == {"train.lr": 0.001}
    assert rows[-1]["fit"] is None
    assert value["header"]["provenance"]["git"] == "0123abc"


def test_parquet_is_its_golden_schema_and_rows_as_another_library_reads_them(table):
    file = parquet.ParquetFile(io.BytesIO(render(table, "parquet")))
    found = file.read()
    schema = {field.name: str(field.type) for field in found.schema}
    rows = [{key: _digits(value) for key, value in row.items()} for row in found.to_pylist()]
    about = json.loads(file.metadata.metadata[b"harness"])
    whole = {"schema": schema, "metadata": about, "rows": rows}
    golden("hostile.parquet.json", json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _digits(value):
    return float(f"{value:.8g}") if isinstance(value, float) else value


def test_the_columns_of_a_table_without_results_are_typed_as_those_of_any_other(table):
    none = {"trials_done": 0, "trials_pruned": 0, "seeds_done": 0, "searched": None}
    holes = pl.DataFrame([cell(("toys", "minilm", "sasrec", "svd"), "pending", **none)])
    made = hostile()
    empty = build(Results(made.runs.clear(), made.ranks.clear(), holes, made.header))
    assert empty.frame().schema == table.frame().schema


def test_parquet_holds_the_numbers_of_the_json(table):
    sections = json.loads(render(table, "json"))["sections"]
    expected = [row for section in sections for row in section["rows"]]
    rows = pl.read_parquet(render(table, "parquet")).to_dicts()
    assert len(rows) == len(expected) == 12
    states = {"failed", "pending", "skipped", "partial", "done"}
    assert {row["state"] for row in rows} == states
    for row, own in zip(rows, expected, strict=True):
        assert (row["adapter"], row["state"], row["reason"]) == (own["cell"]["adapter"], own["state"], own["reason"])
        for name in table.metrics:
            known = own["metrics"].get(name) or dict.fromkeys(("mean", "low", "high"))
            assert_same([row[name], row[f"{name}_low"], row[f"{name}_high"]], known.values())
        for prefix in ("vs_id", "vs_rival"):
            known = own[prefix] or {"against": None, "percent": None, "p": None, "detectable": None}
            assert_same([row[f"{prefix}_{key}"] for key in known if key != "against"], list(known.values())[1:])
        for key, value in own["trials"].items():
            assert row[f"trials_{key}"] == value
        costs = ("parameters", "train_seconds", "peak_mb", "energy_wh")
        assert_same([row[key] for key in costs], [own["costs"][key] for key in costs])


def assert_same(found, expected):
    """Each number to seven digits, and nothing where nothing is known."""
    for one, other in zip(found, expected, strict=True):
        assert one == (other if other is None else pytest.approx(other, rel=1e-7))


def test_csv_reads_back_and_starts_no_formula(table):
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(lines) == sum(len(section.rows) for section in table.sections)
    for line in lines:
        for value in line.values():
            assert not re.match(r"[=+@\t\r]|-(?![\d.])", value)
    assert f"'{FORMULA}" in {line["adapter"] for line in lines}
    best = next(line for line in lines if line["rank"] == "1" and line["backbone"] == "sasrec")
    assert float(best["NDCG@10_low"]) < float(best["NDCG@10"]) < float(best["NDCG@10_high"])


def test_markdown_tables_keep_their_columns_whatever_the_names(table):
    text = render(table, "md")
    assert "<script" not in text.replace("\\<script", "")
    assert not {"\x1b", "\u202e"} & set(text)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 5
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1
        assert all(line.startswith("| ") and line.endswith(" |") for line in block)


CARD = {
    **{"users": 5, "items": 4, "events": 9, "density": 0.45, "mean_length": 1.8, "raw_events": 9, "timed": True},
    **{"tie_share": 0.25, "test_tie_share": 0.5, "id_increasing_share": 0.7, "cold_test_share": 0.125, "spec": {}},
    **{"text": "{title}", "missing_text": 1, "duplicate_texts": 0, "licence": "for research", "redistributable": False},
    **{"citation": "Somebody. 2015.", "order_test": {"ndcg": 0.05, "shuffled": 0.02, "drop_percent": 60.0}},
    "published": {"users": {"published": 6, "ours": 5, "percent": -16.67}, "source": "the paper"},
}


@pytest.mark.parametrize("name", ["md", "html", "json"])
def test_a_report_holds_the_whole_card_of_each_data_set(name):
    rows = {("beauty", "none", "sasrec", "id"): seeds(0.6), ("beauty", "none", "gru4rec", "id"): seeds(0.5)}
    text = render(build(results(rows, header={"data": {"beauty": CARD}})), name).replace("\\", "")
    for words in ("for research", "Somebody. 2015.", "the paper", "16.67", "12.5" if name != "json" else "0.125"):
        assert words in text
    if name != "json":
        assert "60 % is due to the order" in text
    if name == "md":
        assert text.count("## Data: beauty") == 1
        assert "must not be redistributed" in text


def test_how_warm_and_cold_targets_fare_stands_in_columns_of_their_own_where_it_is_known():
    rows = {("beauty", "none", "sasrec", "id"): seeds(0.6)}
    made = results(rows)
    assert "NDCG@10 cold" not in render(build(made), "terminal")
    info = json.dumps({"test_warm_NDCG@10": 0.0512, "test_cold_NDCG@10": 0.0034})
    made = replace(made, runs=made.runs.with_columns(info=pl.lit(info)))
    text = terminal.render(build(made), wide=True)
    assert "NDCG@10 warm  NDCG@10 cold" in text
    assert "0.0512        0.0034" in text


def test_plain_text_obeys_no_escape_and_is_aligned(table):
    text = terminal.plain(table, 10_000)
    assert all(char.isprintable() or char == "\n" for char in text)
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("-  "))
    gaps = [gap.span() for gap in re.finditer("  ", lines[first])]
    assert len(gaps) == len(lines[first].split()) - 1
    for line in lines[first - 1 : first + 4]:
        assert all(line[start:end].strip() == "" for start, end in gaps)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("style", [terminal.plain, terminal.coloured])
def test_columns_leave_until_the_table_fits_and_the_headline_stays(width, style):
    rows = {("beauty", "none", "sasrec", "id"): seeds(0.6), ("beauty", "minilm", "sasrec", "svd"): seeds(0.0)}
    text = re.sub(r"\x1b\[[\d;]*m", "", style(build(results(rows)), width))
    grid = [line for line in text.splitlines() if re.match(r"\s*(#|\d)\s", line)]
    assert len(grid) == 3
    assert max(map(len, grid)) <= width
    assert "NDCG@10 [95 %]" in grid[0]
    assert "search" not in grid[0]


def test_a_terminal_gets_colours_and_a_pipe_gets_none(table, monkeypatch):
    assert "\x1b[" not in render(table, "terminal")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    text = render(table, "terminal")
    assert "\x1b[1;32m" in text
    assert "\x1b[31m" not in text


FRONT = (
    "__init__.py",
    "types.py",
    "registry.py",
    "overlay.py",
    "paths.py",
    "words.py",
    "domains.py",
    "report/__init__.py",
)


def test_notes_explain_only_columns_and_marks_that_occur(table):
    text = render(table, "terminal")
    assert "First:" in text
    assert "Effect size:" not in text, "a column of other formats"
    assert "Effect size:" in render(table, "md")
    assert "Text beyond d:" not in render(table, "md"), "no run recorded it"
    assert "vs best rival %:" not in render(table, "tex")
    assert "First:" not in terminal.plain(table, 60), "dropped for lack of width"


def test_texts_are_wrapped_at_the_width_and_the_rest_is_shown_on_request(table, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    brief = render(table, "terminal")
    assert max(map(len, brief.splitlines())) <= 120
    assert brief.endswith("harness leaderboard --notes\n")
    assert "Student's t" not in brief
    assert "Provenance:" not in brief
    whole = terminal.render(table, notes=True)
    assert max(map(len, whole.splitlines())) <= 120
    assert all(word in " ".join(whole.split()) for word in ("Student's t", "Provenance:", "[31mred� · minilm: failed"))
    assert "peak MB" not in brief
    wide = terminal.render(table, wide=True).splitlines()
    assert any("peak MB" in line and len(line) > 120 for line in wide)
    assert max(len(line) for line in wide if "  " not in line.strip()) <= 120, "only tables are wide"


def test_a_brief_table_counts_the_rows_that_it_does_not_name():
    rows = {("beauty", "none", "sasrec", name): seeds(0.1 * n, 2) for n, name in enumerate("abcdefgh")}
    made = build(results(rows, [cell(key) | {"seeds_done": 2} for key in rows]))
    brief, whole = terminal.render(made), terminal.render(made, notes=True)
    assert "c (2/1/0 of 3 trials, 2/3 seeds), 5 more." in " ".join(brief.split())
    assert "h (2/1/0 of 3 trials, 2/3 seeds)" in " ".join(whole.split())


def test_a_new_metric_and_a_new_format_are_one_file_each(tmp_path):
    """In a copy of the package: a file in metrics becomes columns, a file in leaderboard becomes a format."""
    root = Path(terminal.__file__).parents[2]
    copy = tmp_path / "harness"
    for part in (*FRONT, "system", "stats", "metrics", "metrics/lists", "report/tables"):
        for source in [root / part] if (root / part).is_file() else (root / part).iterdir():
            if source.is_file():
                target = copy / source.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    first = "import numpy as np\n\n\ndef first(ranks, k):\n    return (ranks == 1).astype(np.float64)\n"
    (copy / "metrics" / "first.py").write_text(first)
    (copy / "report" / "tables" / "names.py").write_text("def render(table):\n    return ' '.join(table.metrics)\n")
    program = (
        "import sys, polars as pl; import harness.report.tables as board\n"
        "cells = pl.DataFrame(schema=board._frames.SCHEMAS['cells'])\n"
        "runs = pl.DataFrame(schema=board._frames.SCHEMAS['runs'])\n"
        "ranks = pl.DataFrame(schema=board._frames.SCHEMAS['ranks'])\n"
        "print(board.render(board.build(board.Results(runs, ranks, cells)), 'names'))\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'jinja2', 'rich'} & set(sys.modules)))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.stdout.splitlines() == [
        "NDCG@5 NDCG@10 NDCG@20 HR@5 HR@10 HR@20 MRR@5 MRR@10 MRR@20 FIRST@5 FIRST@10 FIRST@20",
        "[]",
    ], told.stderr


LISTED = {"coverage@10": 0.25, "novelty@10": 3.5}


def with_lists():
    rows = {key: seeds(shift) for key, shift in (((*TOY, "id"), 0.6), ((*TOY, "svd"), 0.0))}
    own, [first, _] = results(rows), rows
    infos = [run(key, seed, info=LISTED if key == first else {}) for key in rows for seed in range(3)]
    return build(Results(type(own.runs)(infos, schema=own.runs.schema), own.ranks, own.cells))


TOY = ("toy", "none", "sasrec")


def test_metrics_of_lists_are_details_and_no_column_of_the_ranked_table():
    table = with_lists()
    frame = table.frame()
    assert {"coverage@10", "novelty@10"} <= set(frame.columns)
    assert "gini@10" not in frame.columns, "no run recorded it"
    assert frame.filter(pl.col("adapter") == "id")["coverage@10"].to_list() == [0.25]
    assert frame.filter(pl.col("adapter") == "svd")["coverage@10"].to_list() == [None]
    assert "coverage@10" not in render(table, "terminal")
    assert "novelty@10" in terminal.lists(table)
    assert "bits" in terminal.lists(table), "explained below"
    for form in ("md", "tex", "html"):
        assert "novelty@10" in render(table, form)
    rows = json.loads(render(table, "json"))["sections"][0]["rows"]
    assert [row["fit"]["info"].get("coverage@10") for row in rows if row["cell"]["adapter"] == "id"] == [0.25]


def test_results_of_earlier_versions_say_that_they_have_no_metrics_of_lists(table):
    assert "No metrics of lists were recorded" in terminal.lists(table)
    assert "coverage@10" not in table.frame().columns
    assert "Top-10 lists" not in render(table, "md")


def test_scores_of_sliding_windows_are_called_means_over_windows_in_every_format(table):
    header = table.header | {"protocol": table.header["protocol"] | {"split": "windows", "folds": 3}}
    windows = replace(table, header=header)
    for name, words in (("tex", "mean over"), ("html", "mean over"), ("terminal", "Student"), ("md", "Student")):
        text, plain = render(windows, name), render(table, name)
        assert "windows" in text, name
        assert "windows" not in plain, name
        assert f"{words} users and seeds" not in text, name


def test_the_suffix_of_the_output_file_chooses_the_format(tmp_path):
    synthetic_ledgers.write(tmp_path / "home")
    starts = {
        "table.tex": "%",
        "table.csv": "dataset,",
        "table.JSON": "{",
        "table.txt": "Protocol:",
        "table": "Protocol:",
    }
    for name, start in starts.items():
        assert harness(tmp_path / "home", "leaderboard", "--output", str(tmp_path / name)).returncode == 0
        assert (tmp_path / name).read_text().startswith(start), name
    chosen = harness(tmp_path / "home", "leaderboard", "--output", str(tmp_path / "a.csv"), "--format", "tex")
    assert chosen.returncode == 0
    assert (tmp_path / "a.csv").read_text().startswith("%")

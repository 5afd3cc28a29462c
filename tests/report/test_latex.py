"""The LaTeX of the tables: read by a strict reader everywhere, and compiled where there is a LaTeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import latex
import numpy as np
import polars as pl
import pytest
import synthetic_results
import synthetic_tables
from synthetic_results import FORMULA, PIPE

from harness.report.tables import Table, build, render, tex

ALL = "".join(map(chr, range(32, 127)))
NAMES = [
    r"\input{/etc/passwd}",
    r"}\end{tabular}",
    "50% off",
    "$x$ & y",
    "a_b^c~d#e",
    "?`!`''",
    "[t] *",
    "–—…−≥≤×·±≈★☆†‡◆↑",
    ALL,
]
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")


@pytest.fixture(scope="module")
def hostile() -> Table:
    """Nasty names, holes of every kind, all marks, slices, costs."""
    made = synthetic_results.hostile()
    renamed = [f"{name}-{number}" for number, name in enumerate(NAMES)]
    rows = {("toys", "none", "sasrec", "id"): synthetic_results.seeds(0.2)}
    rows |= {("toys", PIPE, "sasrec", name): synthetic_results.seeds(0.1 * n) for n, name in enumerate(renamed)}
    other = synthetic_results.results(rows)
    frames = {name: getattr(made, name).vstack(getattr(other, name)) for name in ("runs", "ranks")}
    cells = made.cells.vstack(other.cells.select(made.cells.columns).cast(dict(made.cells.schema)))
    return synthetic_tables.searched(synthetic_results.Results(**frames, cells=cells, header=made.header))


@pytest.fixture(scope="module")
def usual() -> Table:
    """Names as ours are, the longest among them, on as many data sets as get ratings."""
    made = synthetic_tables.wide(10, 3)
    longer = {"adapter01": "spectran_softmax", "adapter02": "whitenrec_plus", "popularity": "transition_knn"}
    frames = {name: getattr(made, name).with_columns(pl.col("adapter").replace(longer)) for name in ("runs", "cells")}
    table = synthetic_tables.searched(replace(made, **frames))
    assert {one.name for one in table.sections[0].slices} >= {"up to 5 events", "21 to 50 events", "6 to 10 words"}
    return table


def test_no_name_breaks_the_latex(hostile):
    text = render(hostile, "tex")
    assert latex.faults(text) == []
    assert r"\textbackslash{}input\{/etc/passwd\}{-}0" in text
    assert r"\emph{failed}" in text
    assert r"\emph{pending}" in text
    assert r"\dagger" in text
    for title in ("Further test scores", "Parity:", "Cost:", "Spectrum of", "after k trials", "Gain over id in"):
        assert title in text


def test_tables_as_they_are_usually_named_are_sound(usual):
    assert latex.faults(render(usual, "tex")) == []


@pytest.mark.parametrize("text", [*NAMES, FORMULA, PIPE])
def test_every_text_is_set_as_it_is_read(text):
    """What escaping gives is sound, and read back it is the text."""
    made = tex.escape(text)
    assert latex.faults(made) == []
    back = {value: key for key, value in tex.SPECIAL.items()}
    pattern = "|".join(re.escape(value) for value in sorted(back, key=len, reverse=True))
    assert re.sub(pattern, lambda found: back[found.group()], made) == text.replace("\n", " ")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (r"\textbf{a", "not closed"),
        ("a}", "without an opening one"),
        (r"\begin{tabular}{ll} a \\ \end{tabular}", "1 columns, not 2"),
        (r"\begin{tabular}{l} a & b \\ \end{tabular}", "2 columns, not 1"),
        (r"\begin{tabular}{ll} \multicolumn{3}{l}{a} \\ \end{tabular}", "3 columns, not 2"),
        (r"\begin{tabular}{l} a \\ [b] \\ \end{tabular}", "begins like an argument"),
        (r"\begin{table}\begin{tabular}{l}\end{table}\end{tabular}", "not the innermost group"),
        ("a & b", "& outside"),
        ("a_b", "_ outside math"),
        ("a^b", "^ outside math"),
        ("a # b", "# not escaped"),
        ("50% off", "% not escaped"),
        ("$a", "not closed"),
        (r"\write18{ls}", "unknown command"),
        (r"\begin{verbatim}", "unknown environment"),
        ("naïve", "other than ASCII"),
    ],
)
def test_the_reader_sees_every_fault_that_it_is_there_for(broken, why):
    assert any(why in fault for fault in latex.faults(broken)), latex.faults(broken)


def compiled(folder: Path, text: str) -> str:
    """The log of pdfLaTeX over a document that holds the tables and nothing else; fails where it stops."""
    (folder / "tables.tex").write_text(text, encoding="ascii")
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n\\input{tables}\n\\end{document}\n"
    (folder / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "paper.log").read_text(errors="replace")


@needs_latex
def test_pdflatex_sets_every_name_and_every_hole(hostile, tmp_path):
    log = compiled(tmp_path, render(hostile, "tex"))
    assert "Missing character" not in log
    assert "pk>" not in log.replace("\n", ""), "a font of bitmaps, which publishers refuse"
    if shutil.which("pdftotext"):
        told = subprocess.run(["pdftotext", "paper.pdf", "-"], cwd=tmp_path, capture_output=True, text=True, check=True)
        for words in ("failed", "skipped, d=64 is more than the rank, 12", r"\input{/etc/passwd}", "50% off"):
            assert words in told.stdout


@needs_latex
def test_the_tables_fit_the_page_of_an_article(usual, tmp_path):
    log = compiled(tmp_path, render(usual, "tex"))
    assert "Overfull" not in log
    assert "Float too large" not in log


def test_bold_and_underlined_are_the_rows_that_lead_unrounded_and_intervals_are_printed():
    users = 40_000
    hits = {"id": 7000, "first": 8002, "second": 8001, "third": 8000}  # three means that round alike
    rows = {
        ("beauty", "none" if name == "id" else "minilm", "sasrec", name): [
            np.where(np.arange(users) < count, 1.0, 99.0) for _ in range(2)
        ]
        for name, count in hits.items()
    }
    table = build(synthetic_results.results(rows))
    text = render(table, "tex")
    scores = {
        line.split(" & ")[0]: line for line in text.splitlines()[: text[: text.index("Intervals of")].count("\n")]
    }
    assert [name for name in hits if r"\textbf{0.2" in scores[name]] == ["first"]
    assert [name for name in hits if r"\underline{0.2" in scores[name]] == ["second"]
    best = table.sections[0].rows[0].metrics["NDCG@10"]
    low, high = tex.escape(f"[{best.low:.4f}, {best.high:.4f}]").split(", ")
    assert f"first & minilm & {best.mean:.4f} & {low}, {high} &" in text

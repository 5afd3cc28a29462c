"""The HTML report in a real browser: what a reader sees, sorts, narrows and follows; and what it must never do."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import browser as chromium
import numpy as np
import polars as pl
import pytest
import synthetic_results
from scipy.stats import rankdata
from synthetic_results import FORMULA, SCRIPT, hostile
from synthetic_tables import searched, wide

from harness.report.tables import Results, Row, Section, Table, render
from harness.report.tables._page._board import board
from harness.stats import resampling


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    try:
        with chromium.running() as browser:
            yield browser
    except chromium.Absent as reason:
        pytest.skip(f"the report's tests need Chromium: {reason}")


@pytest.fixture(scope="module")
def desktop(browser) -> Iterator[chromium.Tab]:
    tab = chromium.Tab(browser)
    yield tab
    tab.close()


@pytest.fixture
def tab(desktop) -> Iterator[chromium.Tab]:
    """One tab for all tests: opening one costs more than most of them do."""
    yield desktop
    desktop.reset()


@pytest.fixture
def phone(browser) -> Iterator[chromium.Tab]:
    tab = chromium.Tab(browser, phone=True)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def table() -> Table:
    return searched(hostile())


@pytest.fixture(scope="module")
def page(table, tmp_path_factory) -> str:
    return written(table, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def grid() -> Table:
    return searched(wide(datasets=3, adapters=5, users=300))


@pytest.fixture(scope="module")
def grid_page(grid, tmp_path_factory) -> str:
    return written(grid, tmp_path_factory.mktemp("grid"))


def written(table: Table, folder: Path) -> str:
    (folder / "report.html").write_text(render(table, "html"), encoding="utf-8")
    return (folder / "report.html").as_uri()


def rows_of(tab: chromium.Tab, place: str) -> list[dict[str, str]]:
    """What a table shows, row by row: column key -> text."""
    return tab.run(
        f"""(() => {{
          const table = document.querySelector({json.dumps(place)} + " table");
          const keys = [...table.tHead.rows[0].cells].map((head) => head.dataset.key);
          return [...table.tBodies[0].rows].map((row) =>
            Object.fromEntries([...row.cells].map((cell, k) => [keys[k], cell.textContent.trim()])));
        }})()"""
    )


def number(text: str) -> float:
    return float(re.match(r"[+-]?[\d.,]+", text.replace(",", "")).group())


def names(rows: list[dict[str, str]]) -> list[str]:
    return [re.match(r"\w+", row["adapter"]).group() for row in rows]


def choose(tab: chromium.Tab, place: str, value: str) -> None:
    """Another option of a select (`#` and what `place` says), as a reader would take it."""
    tab.run(
        f"(() => {{ const box = document.querySelector('#{place}'); box.value = {json.dumps(value)};"
        " box.dispatchEvent(new Event('change')) })()"
    )


def scored(section: Section) -> list[Row]:
    return [row for row in section.rows if row.metrics]


def row_address(row: Row) -> str:
    return "#row/" + "/".join(map(quoted, vars(row.cell).values()))


def quoted(word: str) -> str:
    """As encodeURIComponent has it."""
    return quote(word, safe="!~*'()")


# what it must never do


def test_nothing_is_asked_for_and_nothing_goes_wrong_on_any_page_of_it(tab, page, table):
    tab.open(page)
    assert tab.faults() == []
    for section in table.sections:
        for row in section.rows:
            tab.run(f"location.hash = {json.dumps(row_address(row))}")
            tab.until("!document.getElementById('row').hidden")
    assert tab.faults() == []
    assert tab.requests() == [page]


def test_hostile_names_are_text_and_nothing_else(tab, page):
    tab.open(page)
    assert tab.run("document.querySelectorAll('script').length") == 2
    shown = tab.run("document.body.innerText")
    assert SCRIPT in shown
    assert not set("\u202e\x1b") & set(shown)
    assert tab.run("document.querySelectorAll('memory, tie, one').length") == 0


def test_the_policy_forbids_every_script_and_style_but_its_own(tab, page):
    tab.open(page)
    tab.run(
        "for (const tag of ['script', 'style']) { const node = document.createElement(tag);"
        " node.textContent = tag === 'script' ? 'window.ran = 1' : 'body { opacity: 0 }'; document.body.append(node) }"
        " const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);"
    )
    assert tab.run("[window.ran ?? null, getComputedStyle(document.body).opacity]") == [None, "1"]
    assert sum("Content Security Policy" in fault for fault in tab.faults()) >= 3


def test_the_policy_names_the_hashes_of_what_the_file_holds(table):
    text = render(table, "html")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text).group(1)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL).group(1)
        found = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{found}'" in policy


# what a reader does


def test_every_column_sorts_both_ways_and_says_so(tab, grid_page):
    tab.open(grid_page)
    keys = tab.run("[...document.querySelectorAll('#s1 .table thead th')].map((head) => head.dataset.key)")
    assert {"rank", "adapter", "encoder", "m:NDCG@10", "gain", "p", "rival", "parameters"} <= set(keys)
    for key in keys:
        seen = []
        for _ in range(2):
            tab.run(f"document.querySelector('#s1 .table th[data-key=\"{key}\"] button').click()")
            told = tab.run(
                "[...document.querySelectorAll('#s1 .table thead th')].map((h) => h.getAttribute('aria-sort'))"
            )
            assert sorted(word != "none" for word in told)[-2:] == [False, True]
            values = [row[key] for row in rows_of(tab, "#s1 .table") if row[key] != "–"]
            if key not in ("adapter", "encoder", "group", "p", "trials", "seeds", "train_seconds", "search_seconds"):
                numbers = [number(value) for value in values]
                down = told[keys.index(key)] == "descending"
                assert numbers == sorted(numbers, reverse=down)
            seen.append(told[keys.index(key)])
        assert sorted(seen) == ["ascending", "descending"]


def test_a_column_sorts_from_the_keyboard(tab, grid_page):
    tab.open(grid_page)
    before = names(rows_of(tab, "#s1 .table"))
    tab.run("document.querySelector('#s1 .table th[data-key=adapter] button').focus()")
    tab.press("Enter")
    after = names(rows_of(tab, "#s1 .table"))
    assert after == sorted(before)
    assert after != before
    assert tab.run("document.activeElement.closest('th').dataset.key") == "adapter"
    tab.press(" ")
    assert names(rows_of(tab, "#s1 .table")) == sorted(before, reverse=True)


def test_unnarrowed_the_page_says_what_the_table_says(tab, page, table):
    tab.open(page)
    for k, section in enumerate(table.sections, 1):
        rows = rows_of(tab, f"#s{k} .table")
        assert len(rows) == len(section.rows)
        for shown, row in zip(rows, section.rows, strict=True):
            assert shown["rank"] == str(row.rank or "–")
            if not row.metrics:
                assert shown["m:NDCG@10"].startswith(row.state)
                continue
            value = row.metrics["NDCG@10"]
            assert shown["m:NDCG@10"] == f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"
            for mark, symbol in {"best": "★", "second": "☆", "tied": "≈", "short": "†", "rising": "↑"}.items():
                assert (symbol in shown["adapter"]) == (mark in row.marks)
            assert ("*" in shown["gain"]) == ("differs" in row.marks)
            assert shown["group"] == row.group
            for key, gain in (("gain", row.vs_id), ("rival", row.vs_rival)):
                expected = f"{gain.percent:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]" if gain else "–"
                assert shown[key].rstrip("*↑") == expected
                assert ("↑" in shown[key]) == bool(gain and gain.preliminary)


def test_over_a_row_that_may_score_nothing_the_page_shows_the_test_and_no_ratio(tab, tmp_path):
    rows = {
        ("beauty", "none", "sasrec", "id"): [np.full(50, 900.0)],
        ("beauty", "e", "sasrec", "svd"): [np.where(np.arange(50) < 25, 1.0, 900.0)],
        ("beauty", "e", "sasrec", "mlp"): [np.where(np.arange(50) < 1, 1.0, 900.0)],
    }
    table = searched(synthetic_results.results(rows))
    tab.open(written(table, tmp_path))
    for shown, row in zip(rows_of(tab, "#s1 .table"), table.sections[0].rows, strict=True):
        assert row.vs_id is None
        assert shown["gain"] == ("–*" if "differs" in row.marks else "–")
    assert "differs" in table.sections[0].rows[0].marks
    assert tab.faults() == []


def test_a_section_of_one_test_user_is_drawn_without_intervals(tab, tmp_path):
    rows = {("beauty", "none", "sasrec", name): [np.full(1, rank)] for name, rank in (("id", 2.0), ("id x5", 1.0))}
    tab.open(written(searched(synthetic_results.results(rows)), tmp_path))
    assert [row["m:NDCG@10"].split()[-1] for row in rows_of(tab, "#s1 .table")] == ["–", "–"]
    assert tab.faults() == []


def test_without_a_row_to_compare_with_the_page_offers_none_and_takes_another(tab, tmp_path):
    rows = {("beauty", "e", "sasrec", name): [np.full(50, rank)] for name, rank in (("svd", 2.0), ("mlp", 3.0))}
    tab.open(written(searched(synthetic_results.results(rows)), tmp_path))
    chosen = "document.querySelector('#reference').selectedOptions[0].textContent"
    assert tab.run(chosen) == "–"
    assert tab.faults() == []


def test_narrowed_ranks_marks_gains_and_holm_are_of_the_rows_left(tab, grid_page, grid):
    """Compared with numbers made in Python from the table's means and raw p-values."""
    tab.open(grid_page)
    section = grid.sections[0]
    kept = [row for row in scored(section) if row.cell.adapter in ("adapter01", "adapter03", "adapter04")]
    reference = next(row for row in kept if row.cell.adapter == "adapter03")
    tab.run("document.querySelector('#pick-adapter summary').click()")
    for name in ("adapter02", "id", "popularity"):
        tab.click(f"#pick-adapter input[name={name}]")
    choose(tab, "reference", json.dumps(["adapter03", "minilm"], separators=(",", ":")))
    rows = rows_of(tab, "#s1 .table")
    means = {row.cell.adapter: row.metrics["NDCG@10"].mean for row in kept}
    order = sorted(means, key=means.get, reverse=True)
    assert names(rows) == order
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    pairs = section.pairs
    at = {cell.adapter: k for k, cell in enumerate(pairs.cells)}
    places = [at[n] for n in order]
    of_pairs = resampling.holm_pairs(pairs.p[np.ix_(places, places)])
    to_best = dict(zip(order[1:], of_pairs[0, 1:], strict=True))
    # a reference that the reader chooses, maybe by its score, has no family of its own
    adjusted = dict(zip(order, of_pairs[order.index("adapter03")], strict=True))
    for name, row in zip(order, rows, strict=True):
        assert ("★" in row["adapter"]) == (name == order[0])
        assert ("☆" in row["adapter"]) == (name == order[1])
        assert ("≈" in row["adapter"]) == (to_best.get(name, 0) >= 0.05)
        if name == reference.cell.adapter:
            assert row["gain"] == row["p"] == "–"
            continue
        percent = 100 * (means[name] / means["adapter03"] - 1)
        low, high = pairs.low[at[name], at["adapter03"]], pairs.high[at[name], at["adapter03"]]
        assert row["gain"].rstrip("*↑") == f"{percent:+.1f} [{low:+.1f}, {high:+.1f}]"
        assert ("*" in row["gain"]) == (adjusted[name] < 0.05)
        assert row["p"] == ("<.001" if adjusted[name] < 0.001 else f"{adjusted[name]:.3f}".removeprefix("0"))
    assert "9 of 18 rows" in tab.run("document.getElementById('status').textContent")


def test_mean_ranks_and_win_rates_across_data_sets_are_of_the_rows_left(tab, grid_page, grid):
    tab.open(grid_page)
    for hidden in ([], ["adapter01", "popularity"]):
        for name in hidden:
            tab.run(f"document.querySelector('#pick-adapter input[name={name}]').click()")
        ways = [f"adapter{k:02d}" for k in range(1, 5)] + ["id", "popularity"]
        ways = [way for way in ways if way not in hidden]
        means = np.array([[of(section, way) for way in ways] for section in grid.sections])
        ranks = rankdata(-means, axis=1)
        beaten = (means[:, :, None] > means[:, None]) + 0.5 * (means[:, :, None] == means[:, None])
        wins = (beaten.sum(2) - 0.5).mean(0) / (len(ways) - 1)
        gains = (100 * (means / means[:, [ways.index("id")]] - 1)).mean(0)
        rows = {re.match(r"\w+", row["adapter"]).group(): row for row in rows_of(tab, "#across")}
        assert set(rows) == set(ways)
        for k, way in enumerate(ways):
            assert number(rows[way]["rank"]) == pytest.approx(ranks[:, k].mean(), abs=0.0051)
            assert number(rows[way]["wins"]) == pytest.approx(100 * wins[k], abs=0.51)
            assert way == "id" or number(rows[way]["gain"]) == pytest.approx(gains[k], abs=0.051)
            assert ("[" in rows[way]["rank"]) == (not hidden)  # intervals are of the whole table alone


def test_unnarrowed_the_comparison_over_data_sets_is_the_tables_own(tab, grid_page, grid):
    tab.open(grid_page)
    rows = rows_of(tab, "#across")
    assert names(rows) == [own.adapter for own in grid.across[0].standings]
    for shown, own in zip(rows, grid.across[0].standings, strict=True):
        assert shown["rank"] == f"{own.rank.mean:.2f} [{own.rank.low:.1f}, {own.rank.high:.1f}]"
        wins = [number for value in vars(own.wins).values() for number in [100 * value]]
        found = [float(word) for word in re.findall(r"[\d.]+", shown["wins"])]
        assert found == pytest.approx(wins, abs=0.51)
        gain = shown["gain"].split(" ")[0]
        assert gain == ("–" if own.gain is None else f"{own.gain.mean:+.1f}")
    told = tab.run("document.getElementById('across').textContent")
    assert grid.across[0].too_few in told
    assert "read this as a summary" in told


def test_a_mean_gain_over_what_may_be_nothing_is_withheld_on_the_page_too(tab, tmp_path):
    """On one data set, the reference finds the target of one user: drawn again, its score can be 0."""
    users = len(synthetic_results.seeds(0.0)[0])
    rows = {(name, "none", "sasrec", "id"): synthetic_results.seeds(0.5) for name in "xyz"}
    rows["x", "none", "sasrec", "id"] = [np.where(np.arange(users) == 7, 1.0, 99.0)] * 3
    rows |= {(name, "e", "sasrec", "svd"): synthetic_results.seeds(0.1) for name in "xyz"}
    table = searched(synthetic_results.results(rows))
    assert [one.gain for one in table.across[0].standings] == [None, None]
    tab.open(written(table, tmp_path))
    assert [row["gain"] for row in rows_of(tab, "#across")] == ["–", "–"]


@pytest.mark.parametrize(
    ("known", "compared"),
    [
        ({"w": ["svd"], "x": ["mlp"], "y": ["mlp"]}, ["x", "y"]),
        ({"w": ["svd", "mlp", "ace"], "x": ["svd"], "y": ["svd", "mlp"], "z": []}, ["w", "x", "y"]),
        ({"w": ["svd"], "x": ["mlp"], "y": ["ace"]}, []),
    ],
)
def test_with_holes_the_page_compares_what_the_table_compares(tab, tmp_path, known, compared):
    rows = {}
    for number, (name, adapters) in enumerate(known.items()):
        rows[name, "none", "sasrec", "id"] = synthetic_results.seeds(0.5 + 0.1 * number)
        rows |= {(name, "e", "sasrec", a): synthetic_results.seeds(0.1 * k) for k, a in enumerate(adapters)}
    table = searched(synthetic_results.results(rows))
    tab.open(written(table, tmp_path))
    assert [list(one.datasets) for one in table.across] == ([compared] if compared else [])
    if not compared:
        assert tab.run("document.getElementById('across').hidden")
        return
    shown = rows_of(tab, "#across")
    assert names(shown) == [own.adapter for own in table.across[0].standings]
    for row, own in zip(shown, table.across[0].standings, strict=True):
        assert row["rank"] == f"{own.rank.mean:.2f} [{own.rank.low:.1f}, {own.rank.high:.1f}]"
    assert tab.faults() == []


def test_from_ten_data_sets_on_there_is_a_rating_and_a_diagram_of_critical_differences(tab, tmp_path):
    table = searched(wide(datasets=10, adapters=4, users=80))
    tab.open(written(table, tmp_path))
    whole = table.across[0]
    assert "read this as a summary" not in tab.run("document.getElementById('across').textContent")
    for shown, own in zip(rows_of(tab, "#across"), whole.standings, strict=True):
        assert shown["elo"] == f"{own.elo.mean:.0f} [{own.elo.low:.0f}, {own.elo.high:.0f}]"
        assert shown["group"] == own.group
    assert tab.run("document.querySelector('#across figure title').textContent").endswith(
        f"{whole.critical_difference:.2f}"
    )
    named = tab.run("[...document.querySelectorAll('#across figure text.name')].map((word) => word.textContent)")
    assert sorted(word.split()[-1] for word in named) == sorted(f"{own.rank.mean:.2f}" for own in whole.standings)
    joined = {letter for own in whole.standings for letter in own.group}
    joined = [letter for letter in joined if sum(letter in own.group for own in whole.standings) > 1]
    assert tab.run("document.querySelectorAll('#across figure .clique').length") == len(joined)
    tab.click("#text")
    tab.type("minilm")
    assert tab.run("document.querySelector('#across figure')") is None


def test_letters_of_any_choice_of_rows_are_those_of_the_table(tab, grid_page, grid):
    tab.open(grid_page)
    section = grid.sections[1]
    for name in ("adapter02", "popularity"):
        tab.run(f"document.querySelector('#pick-adapter input[name={name}]').click()")
    kept = [row.cell for row in scored(section) if row.cell.adapter not in ("adapter02", "popularity")]
    places = [section.pairs.cells.index(cell) for cell in kept]
    differs = resampling.holm_pairs(section.pairs.p[np.ix_(places, places)]) < 0.05
    at = next(k for k, cell in enumerate(kept) if cell.adapter == "id")
    others = [k for k in range(len(kept)) if k != at]
    from_id = resampling.holm(section.pairs.p[[places[k] for k in others], places[at]]) < 0.05
    differs[others, at] |= from_id
    differs[at, others] |= from_id
    assert [row["group"] for row in rows_of(tab, "#s2 .table")] == resampling.letters(differs)


def test_parts_of_the_test_are_shown_by_what_they_are_cut_by(tab, grid_page, grid):
    tab.open(grid_page)
    section = grid.sections[0]
    choose(tab, "s1 select[name=dimension]", "target")
    rows = rows_of(tab, "#s1 [aria-label^='Parts of the test']")
    warm = next(part for part in section.slices if part.name == "warm")
    scores = {own.cell.adapter: own.score for own in warm.scores}
    assert set(rows[0]) == {"rank", "adapter", "warm", "cold"}
    for shown in rows:
        value = scores[re.match(r"\w+", shown["adapter"]).group()]
        assert shown["warm"].startswith(f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]")


def of(section: Section, adapter: str) -> float:
    return next(row.metrics["NDCG@10"].mean for row in section.rows if row.cell.adapter == adapter)


def test_words_narrow_and_hiding_drops_baselines_and_holes(tab, page):
    tab.open(page)
    tab.run("document.getElementById('text').focus()")
    tab.type("svd gru")
    assert tab.run("[...document.querySelectorAll('#boards .section[id^=s]')].map((s) => s.hidden)") == [
        False,
        True,
        True,
    ]
    assert names(rows_of(tab, "#s1 .table")) == ["svd"]
    tab.click("#reset")
    everything = rows_of(tab, "#s2 .table")
    tab.run("document.querySelector('#pick-hide summary').click()")
    tab.click("input[name=hide-baseline]")
    tab.click("input[name=hide-hole]")
    rest = rows_of(tab, "#s2 .table")
    assert [row["adapter"] for row in rest] == [
        row["adapter"] for row in everything if "baseline" not in row["adapter"] and row["rank"] != "–"
    ]
    assert [row["rank"] for row in rest] == [str(k + 1) for k in range(len(rest))]


def test_what_is_shown_is_saved_as_csv_that_starts_no_formula(tab, page, table):
    tab.open(page)
    tab.run("document.getElementById('text').focus()")
    tab.type("sasrec")
    tab.run("URL.createObjectURL = (blob) => { window.kept = blob; return '#' }; undefined")
    tab.click("#save")
    lines = list(csv.DictReader(io.StringIO(tab.run("kept.text()"))))
    shown = [row for section in table.sections if section.backbone == "sasrec" for row in section.rows]
    assert len(lines) == len(shown)
    assert {line["adapter"] for line in lines} >= {f"'{FORMULA}", SCRIPT}
    for line, row in zip(lines, shown, strict=True):
        assert line["state"] == row.state
        assert line["rank"] == str(row.rank or "")
        assert not row.metrics or float(line["HR@10_low"]) == pytest.approx(row.metrics["HR@10"].low, rel=1e-6)


def test_another_metric_ranks_the_rows_and_columns_come_and_go_in_groups(tab, grid_page, grid):
    tab.open(grid_page)
    choose(tab, "metric", "HR@20")
    best = sorted(scored(grid.sections[0]), key=lambda row: -row.metrics["HR@20"].mean)
    assert names(rows_of(tab, "#s1 .table"))[0] == best[0].cell.adapter
    assert "effective_rank" not in rows_of(tab, "#s1 .table")[0]
    tab.run("document.querySelector('input[name=group-spectral]').click()")
    assert number(rows_of(tab, "#s1 .table")[0]["effective_rank"]) == 31.5
    tab.run("document.querySelector('input[name=group-spectral]').click()")
    assert "effective_rank" not in rows_of(tab, "#s1 .table")[0]


def test_each_column_says_its_direction_and_unit_on_hover_and_on_focus(tab, grid_page):
    tab.open(grid_page)
    tab.run("document.querySelector('#s1 .table th[data-key=train_seconds] button').focus()")
    assert tab.run("[document.getElementById('tip').hidden, document.getElementById('tip').textContent]") == [
        False,
        "wall-clock time of one confirmed run, mean over seeds. Unit: seconds. Lower is better.",
    ]
    assert tab.run("document.activeElement.getAttribute('aria-describedby')") == "tip"
    tab.press("Escape")
    assert tab.run("document.getElementById('tip').hidden")


def test_a_number_leads_to_its_row_and_back_and_forward_work(tab, grid_page, grid):
    tab.open(grid_page)
    best = grid.sections[0].rows[0]
    tab.click("#s1 tbody tr:first-child a.number")
    tab.until("!document.getElementById('row').hidden")
    assert tab.run("location.hash") == row_address(best)
    assert tab.run("document.querySelector('#row h1').textContent").startswith(best.cell.adapter)
    assert tab.run("document.activeElement.id") == "row-title"
    word = "/".join(vars(best.cell).values())
    assert tab.run("[...document.querySelectorAll('#row .command code')].map((code) => code.textContent)") == [
        f"harness reproduce {word}",
        f"harness export {word} --output model",
    ]
    tab.run("history.back()")
    tab.until("document.getElementById('row').hidden && !document.getElementById('whole').hidden")
    tab.run("history.forward()")
    tab.until("!document.getElementById('row').hidden")
    tab.open(grid_page + row_address(best))
    assert tab.run("!document.getElementById('row').hidden")
    for broken in ("#row/no/such/row/here", "#row/%E0%A4%A", "#nothing"):
        tab.open(grid_page + broken)
        assert tab.run("document.getElementById('row').hidden && !document.getElementById('whole').hidden")
    assert tab.faults() == []


def test_a_row_with_slashes_and_quotes_in_its_name_has_a_page(tab, page, table):
    row = next(row for row in table.sections[1].rows if row.cell.adapter == SCRIPT)
    tab.open(page + row_address(row))
    assert tab.run("document.querySelector('#row h1').textContent").startswith(SCRIPT)
    assert tab.run("document.querySelector('#row .command code').textContent").endswith(f"sasrec/{SCRIPT}'")


def test_a_run_links_to_its_server_only_where_the_address_is_one_of_the_web(tab, tmp_path):
    made = hostile()
    for address, wanted in (("https://lab/#/experiments/7/runs", True), ("javascript:alert(1)//", False)):
        table = searched(Results(made.runs, made.ranks, made.cells, made.header | {"tracking": address}))
        row = table.sections[1].rows[0]
        tab.open(written(table, tmp_path) + row_address(row))
        links = tab.run("[...document.querySelectorAll('#row td a')].map((a) => a.href)")
        assert bool(links) == wanted
        assert all(link.startswith(f"{address}?searchFilter=tags.%60harness.trial%60%20%3D%20'") for link in links)


# what is drawn


def test_figures_of_a_section_have_a_mark_for_every_row(tab, grid_page, grid):
    tab.open(grid_page)
    section = grid.sections[0]
    count = "document.querySelectorAll('#s1 .figures figure:nth-of-type({}) {}').length"
    assert tab.run(count.format(1, "a.point")) == sum(row.vs_id is not None for row in section.rows)
    assert tab.run(count.format(1, "a.sure")) == sum("differs" in row.marks for row in section.rows)
    assert tab.run(count.format(2, "a.point circle")) == len(scored(section))
    assert tab.run(count.format(3, "a.small svg")) == sum(not row.cell.is_baseline for row in scored(section))
    sizes = tab.run(
        "[...document.querySelectorAll('#s1 .figures svg')].map((s) => s.getBBox()).map((b) => [b.width, b.height])"
    )
    assert min(min(size) for size in sizes) > 20


def test_figures_follow_what_is_narrowed(tab, grid_page):
    tab.open(grid_page)
    count = "document.querySelectorAll('#s1 .figures figure:nth-of-type(1) a.point').length"
    before = tab.run(count)
    tab.run("document.querySelector('#pick-adapter input[name=adapter01]').click()")
    assert tab.run(count) == before - 1


def test_a_rows_page_draws_its_search_curves_importance_and_parameters(tab, grid_page, grid):
    row = grid.sections[0].rows[0]
    tab.open(grid_page + row_address(row))
    titles = tab.run("[...document.querySelectorAll('#row figcaption b')].map((b) => b.textContent)")
    assert titles == [
        *("Search", "Validation curves", "Importance", "Smaller budgets", "Spectrum", "Trials by parameter")
    ]
    marks = {
        "circle.trial": 6 + 3 + 3,  # finished trials, the best epoch of each seed, the expected best of 1, 2, 3 trials
        "path.trial.pruned": 1 + 3,  # and the best of the first 1, 2, 3
        "path.trial.failed": 1,
        "path.thread": 7,
        "path.ahead": 1 + 3 + 1 + 1,
        "path.before": 1,
        "g.share": 3,
    }
    for selector, wanted in marks.items():
        assert tab.run(f"document.querySelectorAll('#row figure {selector}').length") == wanted, selector
    history = rows_of(tab, "#row [aria-label='Search history']")
    assert [row["status"] for row in history][4:7] == ["pruned", "done", "failed loss is <not> finite"]
    assert len(rows_of(tab, "#row [aria-label='Confirmed runs']")) == 3
    told = "[...svg.querySelectorAll('title, desc')].filter((node) => node.textContent).length === 2"
    assert tab.run(f"[...document.querySelectorAll('#row figure svg')].every((svg) => {told})")


def test_a_long_search_shows_all_scores_and_its_best_trials(tab, table, tmp_path, monkeypatch):
    whole = board(table)["cells"]
    searches = [cell.get("search") or {"number": []} for cell in whole]
    monkeypatch.setattr("harness.report.tables._page._board.DRAWN", 3)
    for cell, before in zip(board(table)["cells"], whole, strict=True):
        if "search" not in cell or len(before["search"]["id"]) <= 3:
            assert cell == before
            continue
        search, full = cell.pop("search"), before.pop("search")
        assert cell == before, "only the search is cut"
        assert search["all"] == {name: full[name] for name in ("number", "status", "best")}
        best = sorted(range(len(full["id"])), key=lambda k: (full["best"][k] is None, -(full["best"][k] or 0), k))
        for name in ("id", "number", "best", "at", "epochs", "seconds", "curves", "points"):
            assert search[name] == [full[name][k] for k in sorted(best[:3])], name
        assert (search["fixed"], search["axes"]) == (full["fixed"], full["axes"])
    row = next(row for row in table.sections[1].rows if row.cell.is_trained)
    tab.open(written(table, tmp_path) + row_address(row))
    assert len(rows_of(tab, "#row [aria-label='Search history']")) == 3
    [total] = [
        len(full["number"])
        for cell, full in zip(whole, searches, strict=True)
        if cell["cell"] == [*vars(row.cell).values()]
    ]
    assert tab.run("document.querySelector('#row').textContent").count(f"best 3 of {total} trials") >= 1
    assert tab.run("document.querySelectorAll('#row figure:first-child [data-tip^=trial]').length") == total
    assert tab.faults() == []


def test_what_a_search_could_choose_is_told_from_what_was_fixed_and_costs_have_units(tab, tmp_path):
    """By what the launch recorded, not by what happened to vary over a few trials."""
    made = hostile()
    params = json.dumps({"train.lr": 0.001, "text.fusion": "add", "train.d": 64})
    info = json.dumps({"peak_mb": 459.7, "energy_wh": 0.1234})
    runs = made.runs.with_columns(params=pl.lit(params), info=pl.lit(info))
    cells = made.cells.with_columns(searched=pl.lit(["train.lr", "text.fusion"]))
    table = searched(replace(made, runs=runs, cells=cells))
    tab.open(written(table, tmp_path) + row_address(table.sections[1].rows[0]))
    terms = "[...head.nextSibling.querySelectorAll('dt')].map((term) => term.textContent)"
    found = tab.run(f"[...document.querySelectorAll('#row h3')].map((head) => [head.textContent, {terms}])")
    assert dict(found) == {"Chosen by the search": ["train.lr", "text.fusion"], "Fixed": ["train.d"]}
    numbers = "document.querySelectorAll('#row section[aria-label=Numbers] dl div')"
    facts = dict(tab.run(f"[...{numbers}].map((one) => [...one.children].map((part) => part.textContent))"))
    assert (facts["memory"], facts["energy"]) == ("460 MB", "0.123 Wh")
    assert tab.faults() == []


# how it looks


CONTRASTS = """(() => {
  const light = (color) => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
    const [r, g, b] = parts.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
  };
  const text = "p, dt, dd, h1, h2, h3, td, tbody th, thead button, a, li, label, summary, button, small, span";
  const shown = (node) => node.checkVisibility() && node.textContent.trim() && !node.closest("svg");
  return [...document.querySelectorAll(text)].filter(shown).map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), `${node.tagName}: ${node.textContent.slice(0, 40)}`];
  });
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_both_schemes(scheme, tab, page, table):
    tab.media(color_scheme=scheme)
    for address in (page, page + row_address(table.sections[1].rows[0])):
        tab.open(address)
        measured = tab.run(CONTRASTS)
        assert len(measured) > 50
        assert min(measured)[0] >= 4.5, min(measured)


def test_the_switch_turns_the_scheme_and_the_choice_lasts(tab, page):
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.media(color_scheme="light")
    tab.open(page)
    light = tab.run(ground)
    tab.click("#theme")
    dark = tab.run(ground)
    assert dark != light
    assert tab.run("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    tab.open(page)
    assert tab.run(ground) == dark
    tab.run("localStorage.clear()")
    tab.media(color_scheme="dark")
    tab.open(page)
    assert tab.run(ground) == dark


def test_a_phone_scrolls_tables_inside_their_boxes_and_never_the_page(phone, page, table):
    for address in (
        page,
        page + row_address(table.sections[1].rows[0]),
        page + row_address(table.sections[1].rows[-1]),
    ):
        phone.open(address)
        assert phone.run("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
        shown = "[...document.querySelectorAll('.scroll')].filter((box) => box.checkVisibility())"
        boxes = phone.run(f"{shown}.map((box) => box.getBoundingClientRect().right)")
        assert not boxes or max(boxes) <= 390
    phone.open(page)
    assert phone.run(
        "(() => { const b = document.querySelector('#s2 .scroll'); return b.scrollWidth > b.clientWidth })()"
    )


def test_landmarks_heads_and_names_are_there_for_who_cannot_see(tab, page, table):
    tab.open(page)
    for landmark in ("header", "nav[aria-label]", "main", "footer", "[role=search]", "h1", "a.skip"):
        assert tab.run(f"document.querySelectorAll('{landmark}').length") == 1
    assert tab.run("[...document.querySelectorAll('th')].every((head) => ['col', 'row'].includes(head.scope))")
    assert tab.run("[...document.querySelectorAll('.scroll')].every((box) => box.tabIndex === 0 && box.ariaLabel)")
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    asked = {"button", "link", "combobox", "checkbox", "searchbox", "region", "image"}
    nameless = [
        node
        for node in tree
        if not node["ignored"]
        and node["role"]["value"] in asked
        and not (node.get("name") or {}).get("value", "").strip()
    ]
    assert nameless == []


def test_who_wants_no_motion_gets_none(tab, page):
    tab.media(reduced_motion="reduce")
    tab.open(page)
    assert tab.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert tab.run("getComputedStyle(document.querySelector('tbody td')).transitionDuration") == "0s"


# what is in the file


def test_without_scripts_every_row_of_the_plan_stands_in_a_table(table):
    class Tables(html.parser.HTMLParser):
        heads: list[str]

        def __init__(self) -> None:
            super().__init__()
            self.heads, self.inside = [], False

        def handle_starttag(self, tag, attrs):
            if tag == "th":
                self.inside = dict(attrs).get("scope") == "row"
                self.heads += [""] * self.inside

        def handle_endtag(self, tag):
            self.inside = self.inside and tag != "th"

        def handle_data(self, data):
            if self.inside:
                self.heads[-1] += data

    found = Tables()
    found.feed(render(table, "html"))
    assert len(found.heads) == sum(len(section.rows) for section in table.sections)
    assert SCRIPT in found.heads


def test_sixty_rows_of_thirty_two_trials_stay_under_three_megabytes(tab, tmp_path):
    table = searched(wide(datasets=3, adapters=20), trials=32, epochs=300)
    assert len(render(table, "html").encode()) < 3e6
    tab.open(written(table, tmp_path))
    assert len(rows_of(tab, "#s3 .table")) == 21
    assert tab.faults() == []

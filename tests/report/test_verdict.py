"""The sentence that says what a section shows: from its numbers, checked against formulas of their own."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from synthetic_results import cell, hostile, results

from harness.report.tables import Results, build, formats, render
from harness.report.tables._verdict import _needed, _p
from harness.stats import resampling

Z = 2.94 + 0.84  # of p < .0033 (15 pairs at once, two-sided) and of 80 % power
WITHOUT_TEXT = ("id", "id_gain")


def noisy(means: dict[str, float], users: int, encoder: str = "minilm", runs: int = 2, seed: int = 5) -> Results:
    """Independent rows of so many seeds, whose targets are first with this probability, else not in the list."""
    rng = np.random.default_rng(seed)
    rows = {
        ("beauty", "none" if name in WITHOUT_TEXT else encoder, "sasrec", name): [
            np.where(rng.random(users) < mean, 1.0, 99.0) for _ in range(runs)
        ]
        for name, mean in means.items()
    }
    return results(rows, [cell(key) | {"seeds_planned": runs, "seeds_done": runs} for key in rows])


def verdict(*arguments, **more) -> str:
    return build(noisy(*arguments, **more)).sections[0].verdict


EQUAL = {"a": 0.3, "b": 0.3, "c": 0.3, "d": 0.3, "e": 0.3, "worst": 0.01}


def test_text_helps_hurts_or_makes_no_significant_difference():
    helps = verdict({"id": 0.2, "svd": 0.3}, 3000)
    assert re.match(r"Text helps: svd \+\d\d\.\d % over id \[\+[\d.]+, \+[\d.]+\], p [<=] \.\d+; ", helps)
    assert helps.endswith("; the best trained row, svd, is better than the other trained row.")
    assert verdict({"id": 0.3, "svd": 0.2}, 3000).startswith("Text hurts: at best svd -")
    unclear = verdict({"id": 0.3, "svd": 0.3}, 400)
    assert unclear.startswith("Text makes no significant difference: svd ")
    assert float(re.search(r", p = (\.\d+);", unclear)[1]) >= 0.05


def test_the_control_without_id_does_not_show_that_text_hurts_the_others():
    assert verdict({"id": 0.3, "text": 0.2}, 3000).startswith("Text does not replace the ID embedding: text -")
    assert verdict({"id": 0.3, "text": 0.2, "svd": 0.1}, 3000).startswith("Text hurts: at best text -")


def test_the_id_control_with_a_gain_is_neither_a_row_with_text_nor_the_reference():
    assert verdict({"id": 0.2, "id_gain": 0.4, "svd": 0.3}, 3000).startswith("Text helps: svd +")
    assert "ext" not in verdict({"id_gain": 0.2, "svd": 0.3}, 3000)


@pytest.mark.parametrize("state", ["pending", "running", "partial"])
@pytest.mark.parametrize(("names", "words"), [("cd", "with 2 trained rows"), ("c", "with 1 trained row")])
def test_a_verdict_without_all_rows_is_one_so_far(names, words, state):
    results = noisy({"id": 0.2, "svd": 0.3}, 3000)
    coming = [cell(("beauty", "minilm", "sasrec", name)) | {"state": state} for name in names]
    cells = pl.concat([results.cells, pl.DataFrame(coming, schema=results.cells.schema)])
    text = build(replace(results, cells=cells)).sections[0].verdict
    assert text.startswith(f"So far, {words} unfinished: text helps: svd +")
    cut = replace(results, cells=cells, header=results.header | {"at_trials": 1})
    assert build(cut).sections[0].verdict.startswith("So far") == (state != "partial"), "no more of a cut search comes"


@pytest.mark.parametrize("encoder", ["noise", "shuffled:minilm"])
def test_a_control_is_no_text(encoder):
    assert "ext" not in verdict({"id": 0.2, "svd": 0.3}, 3000, encoder).partition(";")[0].replace("none", "")


def test_one_trained_row_has_no_verdict():
    assert verdict({"id": 0.2}, 400) == ""


def test_a_test_that_separates_few_rows_says_what_it_finds_and_what_is_needed():
    users = 900
    text = verdict(EQUAL, users, runs=5)
    assert "4 of the 5 other trained rows do not differ significantly from the best" in text
    assert "`--datasets amazon2014-beauty`: 22,363" in text
    percent = float(re.search(r"900 users the test detects differences of about ([\d.]+) %", text)[1])
    variance = 2 * 0.3 * 0.7 / 5  # of a user's difference of two means over five independent seeds
    assert percent / 100 == pytest.approx(Z * np.sqrt(variance / users) / 0.3, rel=0.4)
    needed = int(re.search(r"3 % needs about ([\d,]+) users", text)[1].replace(",", ""))
    assert needed == pytest.approx(variance * (Z / (0.03 * 0.3)) ** 2, rel=0.5)


def test_that_number_of_users_does_find_it():
    """At the number of users that a small test asks for, a difference of 3 % is about the detectable one."""
    needed = int(re.search(r"3 % needs about ([\d,]+) users", verdict(EQUAL, 900, runs=5))[1].replace(",", ""))
    text = verdict(EQUAL, needed, runs=5)
    found = re.search(r"users the test detects differences of about ([\d.]+) %", text)
    assert found is None or float(found[1]) == pytest.approx(3, rel=0.35)


@pytest.mark.parametrize("rows", [4, 20, 40])
def test_the_verdict_counts_the_rows_that_are_marked_as_tied_with_the_best(rows):
    """Also with more groups than letters, whose names have several characters."""
    section = build(noisy({f"a{k:02d}": 0.5 - 0.007 * k for k in range(rows)}, 1500)).sections[0]
    tied = sum("tied" in row.marks for row in section.rows[1:])
    assert f"{tied} of the {rows - 1} other trained rows do not differ" in section.verdict
    assert tied > 0


def test_a_test_that_separates_its_rows_says_so():
    apart = {"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.3, "e": 0.2}
    assert verdict(apart, 2000) == "The best trained row, a, is better than each of the 4 other trained rows."


def test_seeds_that_vary_more_than_the_difference_ask_for_seeds():
    """Rows whose seeds differ by a lot: no number of users separates 3 %."""
    rng = np.random.default_rng(7)
    rows = {
        ("beauty", "minilm", "sasrec", name): [np.where(rng.random(2000) < mean, 1.0, 99.0) for mean in (0.2, 0.4)]
        for name in "abc"
    }
    text = build(results(rows, [cell(key) | {"seeds_planned": 2, "seeds_done": 2} for key in rows])).sections[0].verdict
    assert "a difference of 3 % needs more seeds first" in text
    assert "--datasets" not in text, "more users would not help"
    assert _needed(float("inf")) == "a difference of 3 % needs more seeds first"
    assert _needed(41_234) == "a difference of 3 % needs about 42,000 users"
    assert _p(0.00099) == "p < .001"


def test_every_format_for_people_and_json_have_it():
    table = build(hostile())
    sentence = next(section.verdict for section in table.sections if section.backbone == "sasrec")
    assert sentence.startswith("So far, with 1 trained row unfinished: text helps: svd · minilm +54.8 % over id [+46.5")
    for name in set(formats()) - {"csv", "parquet"}:
        assert "text helps" in " ".join(render(table, name).lower().split()), name


@pytest.mark.parametrize("ranks", [[3.0], [3.0, 1.0], [3.0, 1.0, 2.0]])
def test_few_users_are_no_reason_for_numbers_that_are_none(ranks):
    """One user has no interval, and rows that do not vary between users no power."""
    rows = {
        ("beauty", encoder, "sasrec", name): [np.array(ranks)] * 2 for encoder, name in (("none", "id"), ("e", "a"))
    }
    table = build(results(rows, [cell(key) | {"seeds_planned": 2, "seeds_done": 2} for key in rows]))
    assert "The other trained row does not differ" in table.sections[0].verdict
    assert "detects differences" not in table.sections[0].verdict
    for name in set(formats()) - {"parquet"}:
        assert not re.search(r"(?<![a-z])nan(?![a-z])", render(table, name).lower()), name
    assert not any(table.wide()[name].is_nan().any() for name, kind in table.wide().schema.items() if kind.is_float())


@pytest.mark.parametrize(("rows", "can"), [(3, True), (6, False)])
def test_users_too_few_for_the_tests_of_all_pairs_have_no_detectable_difference(rows, can):
    """Of 7 users, no p-value is below 1 / 64: that decides 3 pairs, but neither 15 nor 5 tests against `id`."""
    section = build(noisy({"id": 0.4} | {f"a{k}": 0.4 for k in range(1, rows)}, 7)).sections[0]
    assert any("cannot resolve" in caution for caution in section.cautions) != can
    assert ("detects differences" in section.verdict) == can
    assert "needs" not in section.verdict or can
    gains = [row.vs_id for row in section.rows if row.vs_id is not None]
    assert gains
    assert all((gain.detectable is not None) == can for gain in gains)


def test_the_best_of_equal_rows_is_rarely_called_better():
    """Tests against the best row alone do so in a fifth of such tables: the data choose it."""
    wrong = 0
    for seed in range(16):
        section = build(noisy({f"a{k:02d}": 0.4 for k in range(20)}, 300, seed=seed)).sections[0]
        wrong += any("tied" not in row.marks for row in section.rows[1:])
    assert wrong <= 1


@pytest.mark.parametrize("best", ["id", "a00"])
def test_no_row_is_marked_as_tied_with_the_best_and_as_different_from_it(best):
    """The reference is chosen beforehand: its tests have a family of their own, whichever of the two is best."""
    means = {f"a{k:02d}": 0.4 for k in range(20)} | {"id": 0.4}
    section = build(noisy(means | {best: 0.46}, 1500, seed=11)).sections[0]
    assert section.rows[0].cell.adapter == best
    marks = {row.cell.adapter: row.marks for row in section.rows[1:]}
    if best == "id":
        assert any("differs" in found for found in marks.values())
        assert not any({"tied", "differs"} <= set(found) for found in marks.values())
    else:
        assert ("tied" in marks["id"]) != ("differs" in section.rows[0].marks)


def test_a_baseline_above_every_trained_row_is_named_first():
    made = noisy({"id": 0.2, "mlp": 0.3}, 3000)
    knn = ("beauty", "none", "none", "transition_knn")

    def with_baseline(share: float) -> str:
        hits = np.where(np.random.default_rng(1).random(3000) < share, 1.0, 99.0)
        more = results({knn: [hits]}, [cell(knn) | {"seeds_planned": 1, "seeds_done": 1}])
        frames = {name: pl.concat([getattr(made, name), getattr(more, name)]) for name in ("runs", "ranks", "cells")}
        return build(replace(made, **frames)).sections[0].verdict

    assert with_baseline(0.45).startswith("No trained row is above transition_knn (baseline); text helps: mlp +")
    assert with_baseline(0.305).startswith(
        "No trained row is above transition_knn (baseline), but the difference from the best is not significant; text"
    )
    assert with_baseline(0.1).startswith("Text helps: mlp +")


@pytest.mark.parametrize(("noise", "words"), [(0.3, "does not differ significantly"), (0.36, "is better")])
def test_a_gain_that_noise_also_gives_is_not_called_one_of_the_text(noise, words):
    made = noisy({"id": 0.2, "mlp": 0.3}, 3000)
    key = ("beauty", "noise", "sasrec", "mlp")
    rng = np.random.default_rng(7)
    runs = [np.where(rng.random(3000) < noise, 1.0, 99.0) for _ in range(2)]
    more = results({key: runs}, [cell(key) | {"seeds_planned": 2, "seeds_done": 2}])
    frames = {name: pl.concat([getattr(made, name), getattr(more, name)]) for name in ("runs", "ranks", "cells")}
    text = build(replace(made, **frames)).sections[0].verdict
    assert text.startswith("No gain is shown to come from the text: mlp · minilm +")
    assert f", but its control mlp · noise {words};" in text
    other = noisy({"id": 0.2, "mlp": 0.3, "svd": 0.29}, 3000)
    frames = {name: pl.concat([getattr(other, name), getattr(more, name)]) for name in ("runs", "ranks", "cells")}
    assert build(replace(other, **frames)).sections[0].verdict.startswith("Text helps: svd"), "it has no such control"


def test_text_helps_if_a_row_other_than_the_best_shows_it():
    users, rng = 2000, np.random.default_rng(5)
    base = rng.random(users) < 0.2
    steady, erratic = base.copy(), rng.permutation(base)
    steady[np.flatnonzero(~base)[:14]] = True  # the same users and 14 more
    erratic[np.flatnonzero(~erratic)[: 18 + int(base.sum() - erratic.sum())]] = True  # 4 more, but other users
    hits = {("none", "id"): base, ("minilm", "svd"): steady, ("minilm", "mlp"): erratic}
    rows = {
        ("beauty", encoder, "sasrec", name): [np.where(hit, 1.0, 99.0)] * 2 for (encoder, name), hit in hits.items()
    }
    table = build(results(rows, [cell(key) | {"seeds_planned": 2, "seeds_done": 2} for key in rows]))
    assert table.sections[0].rows[0].cell.adapter == "mlp"
    assert table.sections[0].verdict.startswith("Text helps: svd +")


def test_a_cut_budget_says_which_rows_have_no_test():
    made = noisy({"id": 0.2, "svd": 0.3}, 3000)
    lost = [cell(("beauty", "minilm", "sasrec", name)) | {"state": "partial"} for name in "ab"]
    cells = pl.concat([made.cells, pl.DataFrame(lost, schema=made.cells.schema)])
    section = build(replace(made, cells=cells, header=made.header | {"at_trials": 2})).sections[0]
    assert section.verdict.startswith("Of 4 trained rows, only 2 have a test at this budget: text helps: svd +")
    assert any("2 trained rows have no test at 2 trials" in caution for caution in section.cautions)


def test_ensembles_are_not_counted_as_trained_rows():
    text = verdict({"id": 0.2, "svd": 0.25, "id+svd": 0.4}, 3000)
    assert (
        "the best trained row or ensemble, id+svd (ensemble), is better than each of the 2 other trained rows" in text
    )


def test_letters_stars_and_signs_of_equality_agree_on_id():
    """With many rows, the tests against `id` find what those of all pairs cannot."""
    section = build(noisy({"id": 0.2, "svd": 0.228} | {f"a{k}": 0.205 for k in range(12)}, 3000, seed=7)).sections[0]
    rows = {row.cell.adapter: row for row in section.rows}
    place = {cell.adapter: k for k, cell in enumerate(section.pairs.cells)}
    p = resampling.holm_pairs(section.pairs.p)
    starred = [name for name, row in rows.items() if "differs" in row.marks]
    assert any(p[place[name], place["id"]] >= 0.05 for name in starred), "only the tests against id find it"
    for name, row in rows.items():
        assert name == "id" or bool(set(row.group) & set(rows["id"].group)) == (name not in starred)
    assert ("tied" in rows["id"].marks) == (section.rows[0].cell.adapter not in starred)

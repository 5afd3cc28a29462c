"""Data for the page's script: the table's rows, comparisons and trials as one compact JSON value."""

from __future__ import annotations

import json
import math
from typing import Any

import polars as pl

from harness import registry
from harness.report.tables import _captions as captions
from harness.report.tables import _format
from harness.report.tables._across import Across
from harness.report.tables._frames import KEY, Record, json_object
from harness.report.tables._page import _columns
from harness.report.tables._page._importance import importance
from harness.report.tables._scores import REFERENCE
from harness.report.tables._slices import Slice
from harness.report.tables._table import Row, Section, Table
from harness.stats.crossed_effects import ALPHA
from harness.stats.resampling import Interval
from harness.types import Cell, HarnessError, Json

DRAWN = 100  # trials of a search that are embedded in full; more are neither legible nor quick to open
POINTS = 48  # maximum per curve: more are not visible at this chart size
SCALE = 100_000  # scores of curves and trials are embedded as integers, in units of 1e-5
STATUS = {"done": "d", "pruned": "p", "failed": "f", "running": "r"}
SCORED = ("d", "p")
KEPT = ("short", "less", "rising")  # marks that do not depend on the shown rows


def board(table: Table) -> Json:
    """Return the data of the page.

    ``cells``: every row once, with its values by column (`_columns.columns`) and its search. ``sections``: indices of
    their cells, and comparisons of every two. Scores of curves and trials are in units of 1 / `SCALE`. Of a search with
    more than `DRAWN` trials, only the best of them have curves and parameters; ``all`` has the scores of every trial.
    """
    columns, trials, spectra = (
        _columns.columns(table),
        _trials(table.trials.drop("info", strict=False).collect()),
        _spectra(table.spectra),
    )
    groups = {column.group for column, _ in columns}
    cells: dict[Cell, int] = {}
    values: list[Record] = []
    for section in table.sections:
        for row in section.rows:
            if row.cell not in cells:
                cells[row.cell] = len(values)
                values.append(_cell(row, columns) | _searched(row, trials.get(row.cell), spectra))
    return {
        "headline": table.headline,
        "metrics": list(table.metrics),
        "alpha": ALPHA,
        "scale": SCALE,
        "reference": REFERENCE,
        "groups": {name: title for name, title in _columns.GROUPS.items() if name in groups},
        "shown": list(_columns.SHOWN),
        "columns": _columns.described(table),
        "cells": values,
        "sections": [_section(section, cells) for section in table.sections],
        "across": [_across(one) for one in table.across],
        "tracking": page
        if (page := str(table.header.get("tracking") or "")).startswith(("http://", "https://"))
        else None,
        "symbols": _format.SYMBOLS,
        "meanings": _format.MEANINGS,
    }


def embedded(value: Any) -> str:
    r"""Return JSON for a script element, escaped so that it cannot close the element or be read as markup.

    >>> embedded({"a": "</script>&"})
    '{"a":"\\u003c/script\\u003e\\u0026"}'
    """
    text = json.dumps(_short(value), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _short(value: Any) -> Any:
    """Round floats to eight significant digits; non-finite ones become None."""
    if type(value) is int:  # first: most values of a page
        return value
    if isinstance(value, dict):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return (float(f"{value:.8g}") if value % 1 else int(value)) if math.isfinite(value) else None
    return value


def _section(section: Section, cells: dict[Cell, int]) -> Json:
    value = {
        "title": _format.safe(captions.title(section)),
        "dataset": section.dataset,
        "backbone": section.backbone,
        "users": section.test_users,
        "rows": [cells[row.cell] for row in section.rows],
    }
    value |= {"pairs": _pairs(section, cells)} if section.pairs else {}
    tests = {str(cells[row.cell]): [row.vs_id.effect, row.vs_id.detectable] for row in section.rows if row.vs_id}
    value |= {"first": {str(cells[row.cell]): row.first for row in section.rows if row.first is not None}}
    return value | {"tests": tests, "slices": [_slice(part, cells) for part in section.slices]}


def _slice(part: Slice, cells: dict[Cell, int]) -> Json:
    """Return a slice with ``scores``: per row [cell, mean, low, high, and mean, low, high of the gain over `id`]."""
    scores = [[cells[value.cell], *_interval(value.score), *_interval(value.vs_id)] for value in part.scores]
    facts = {"dimension": part.dimension, "name": part.name, "users": part.users, "queries": part.queries}
    return facts | {"scores": scores}


def _interval(value: Interval | None) -> list[float | None]:
    return [value.mean, value.low, value.high] if value else [None] * 3


def _across(across: Across) -> Json:
    """Return the comparison over data sets of the unfiltered table; intervals as [mean, low, high]."""
    methods = [
        {
            "way": [standing.adapter, standing.encoder],
            "rank": _interval(standing.rank),
            "wins": _interval(standing.wins),
            "gain": _interval(standing.gain),
            **({"elo": _interval(standing.elo), "group": standing.group} if standing.elo else {}),
        }
        for standing in across.standings
    ]
    value = {"backbone": across.backbone, "methods": methods, "left_out": list(across.left_out)}
    return value | {"too_few": across.too_few, "critical_difference": across.critical_difference}


def _pairs(section: Section, cells: dict[Cell, int]) -> Json:
    pairs = section.pairs
    assert pairs is not None
    numbers = {name: getattr(pairs, name).tolist() for name in ("low", "high", "p")}
    return {"cells": [cells[cell] for cell in pairs.cells], **numbers}


def _cell(row: Row, columns: list[tuple[_columns.PageColumn, _columns.Value]]) -> Json:
    cell = row.cell
    value: Json = {
        "cell": [getattr(cell, key) for key in KEY],
        "label": _format.safe(_format.label(cell)),
        "kinds": kinds(cell),
        "state": row.state,
        "v": _columns.values(row, columns),
    }
    value |= {"reason": _format.safe(row.reason)} if row.reason else {}
    marks = [mark for mark in row.marks if mark in KEPT]
    value |= {"marks": marks} if marks else {}
    if row.fit is None:
        return value
    searched = {} if row.spent.searched is None else {"searched": list(row.spent.searched)}
    return value | {"params": row.fit.params} | searched


def _searched(row: Row, trials: pl.DataFrame | None, spectra: dict[str, Json]) -> Json:
    """Return the search and runs of a row, with the spectrum of the first run that has one."""
    if trials is None:
        return {}
    runs = _runs(trials.filter(pl.col("role") == "confirm"))
    searched = trials.filter(pl.col("role") == "search")
    params = _params(searched)
    search = _search(searched, params)
    varying = [{name: trial[name] for name in search["axes"] if name in trial} for trial in params]
    value = {"search": search, "runs": runs, "importance": _importance(searched, varying)}
    value["budgets"] = [[one.k, one.observed, one.expected, one.low, one.high] for one in row.best_of]
    spectrum = next((spectra[trial] for trial in runs["id"] if trial in spectra), None)
    return value | ({"spectrum": spectrum} if spectrum else {})


def _params(searched: pl.DataFrame) -> list[Json]:
    """Return the parameters of each trial, with None for numbers that are not finite.

    Raises HarnessError, naming the trial, if they are not a JSON object.
    """
    text = f"[{','.join(text or '{}' for text in searched['params'].to_list())}]"
    try:
        params = json.loads(text)
        simple = "NaN" not in text and "Infinity" not in text and len(params) == searched.height
        if simple and all(isinstance(one, dict) for one in params):
            return params
    except ValueError:
        pass
    texts = zip(searched["trial"], searched["params"], strict=True)
    return [json_object(text, f"trial {trial}: params") for trial, text in texts]


def _spectra(frame: pl.DataFrame) -> dict[str, Json]:
    """Return the singular values of each recorded run before and after training, to four digits."""
    records = frame.iter_rows(named=True)
    return {run["trial"]: {"before": _digits(run["start"]), "after": _digits(run["end"])} for run in records}


def _digits(values: list[float] | None) -> list[float]:
    return [float(f"{value:.4g}") for value in values or []]


def kinds(cell: Cell) -> list[str]:
    """Return the kinds that a reader can hide: ``baseline``, ``ensemble``, ``control`` (a meaningless encoder),
    ``ablation``.

    >>> kinds(Cell("beauty", "shuffled:minilm", "sasrec", "svd")), kinds(Cell("beauty", "none", "none", "popularity"))
    (['control'], ['baseline'])
    """
    names = ["baseline"] if cell.is_baseline else ["ensemble"] if cell.is_ensemble else []
    if cell.is_control:
        names.append("control")
    if not cell.is_baseline and _by_name_only(registry.ADAPTERS, cell.adapter):
        names.append("ablation")
    return names


def _by_name_only(package: str, word: str) -> bool:
    name = word.partition("[")[0]
    try:
        return bool(registry.schema(package, name).attributes.get("by_name_only"))
    except HarnessError:  # removed since, or never a component here
        return False


def _trials(frame: pl.DataFrame) -> dict[Cell, pl.DataFrame]:
    return {Cell(*key): trials for key, trials in frame.partition_by(KEY, as_dict=True, maintain_order=True).items()}


def _search(searched: pl.DataFrame, params: list[Json]) -> Json:
    """Return a search by column; constant parameters are listed separately."""
    columns = {name: [trial.get(name) for trial in params] for name in sorted(set().union(*params))}
    fixed = {name: values[0] for name, values in columns.items() if values.count(values[0]) == len(values)}
    axes = [name for name in columns if name not in fixed]
    drawn = _drawn(searched)
    value = _ran(searched[drawn])
    value |= {"number": searched["number"][drawn].to_list(), "fixed": fixed, "axes": axes}
    value |= {"points": [[params[at].get(name) for name in axes] for at in drawn]}
    reasons = {k: _format.safe(reason) for k, reason in enumerate(searched["reason"][drawn]) if reason}
    value |= {"reasons": reasons} if reasons else {}
    if len(drawn) < searched.height:
        value["all"] = {"number": searched["number"].to_list(), "status": _statuses(searched), "best": _bests(searched)}
    return value


def _drawn(searched: pl.DataFrame) -> list[int]:
    """Return the positions of the trials of a search that are embedded in full: the best, in order."""
    best = searched.with_row_index("at").sort("best", descending=True, nulls_last=True, maintain_order=True)
    return sorted(best["at"][:DRAWN])


def _runs(confirmed: pl.DataFrame) -> Json:
    return _ran(confirmed) | {"seed": confirmed["seed"].to_list()}


def _ran(trials: pl.DataFrame) -> Json:
    curves = zip(trials["curve"].to_list(), trials["best_epoch"], strict=True)
    return {
        "id": trials["trial"].to_list(),
        "status": _statuses(trials),
        "best": _bests(trials),
        "at": trials["best_epoch"].to_list(),
        "epochs": trials["epochs"].to_list(),
        "seconds": [_tenth(seconds) for seconds in trials["seconds"]],
        "curves": [_curve(curve or [], best) for curve, best in curves],
    }


def _statuses(trials: pl.DataFrame) -> str:
    return "".join(map(STATUS.__getitem__, trials["status"]))


def _bests(trials: pl.DataFrame) -> list[int | None]:
    return [_unit(best) for best in trials["best"]]


def _curve(curve: list[float | None], best: int | None) -> list[Any]:
    """Return [scores] of every epoch, or [scores, epochs] of up to `POINTS` epochs, including the best."""
    if len(curve) <= POINTS:
        return [[_unit(value) for value in curve]]
    step = (len(curve) - 1) / (POINTS - 2)
    kept = {round(k * step) for k in range(POINTS - 1)} | ({best} if best is not None and best >= 0 else set())
    epochs = sorted(k for k in kept if k < len(curve))
    return [[_unit(curve[k]) for k in epochs], epochs]


def _unit(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value * SCALE)


def _tenth(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _importance(searched: pl.DataFrame, params: list[Json]) -> list[list[Any]]:
    """Return [name, share, chance, direction] per parameter, from the trials with a score."""
    trials = zip(searched["status"], searched["best"], params, strict=True)
    scored = [(of, best) for status, best, of in trials if STATUS[status] in SCORED and best is not None]
    items = importance([of for of, _ in scored], [best for _, best in scored])
    return [[item.name, item.share, item.chance, item.direction] for item in items]

"""Made tables with searches, for the tests of the HTML report, by arithmetic alone."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import synthetic_results

from harness.report.tables import Results, Table, build
from harness.report.tables._frames import KEY, QUERIES, SPECTRA, TRIALS

Key = tuple[str, ...]
AXES = ("adapter.hidden", "train.lr", "text.fusion")


def searched(made: Results, trials: int = 8, epochs: int = 6) -> Table:
    """The table of made results whose rows were searched and confirmed, with curves, spectra and test targets."""
    rows = [row for cell in made.cells.iter_rows(named=True) for row in _of(cell, trials, epochs)]
    found = pl.DataFrame(rows, schema=TRIALS)
    confirmed = found.filter(pl.col("role") == "confirm")["trial"]
    decay = np.arange(16)
    spectra = [(trial, np.exp(-decay / 9).tolist(), np.exp(-decay / 3).tolist()) for trial in confirmed]
    queries = pl.concat(_queries(made, dataset) for dataset in made.runs["dataset"].unique(maintain_order=True))
    lines = pl.DataFrame(spectra, schema=SPECTRA, orient="row")
    return build(Results(made.runs, made.ranks, made.cells, made.header, found.lazy(), queries, lines))


def _queries(made: Results, dataset: str) -> pl.DataFrame:
    """A test target a user: every fifth is cold, histories are of 3 to 40 events."""
    first = made.runs.filter(pl.col("dataset") == dataset)["trial"][0]
    user = made.ranks.filter(pl.col("trial") == first)["user"]
    cold = [u % 5 == 0 for u in user]
    known = {"dataset": [dataset] * len(user), "user": user, "cold": cold, "popularity": [0 if c else 7 for c in cold]}
    known |= {"band": ["tail" if c else "head" for c in cold], "history": [3 + u % 38 for u in user]}
    return pl.DataFrame(known | {"tied": [u % 3 == 0 for u in user], "words": [u % 12 for u in user]}, schema=QUERIES)


def wide(datasets: int, adapters: int, users: int = 60) -> Results:
    """Every adapter on every data set under one backbone, three seeds; `id` is the first adapter."""
    rows: dict[Key, list[np.ndarray]] = {}
    for d in range(datasets):
        for a in range(adapters):
            key = (f"data{d}", "minilm" if a else "none", "sasrec", f"adapter{a:02d}" if a else "id")
            shift = ((a * 37 + d * 11) % 23) / 23
            rows[key] = [synthetic_results.targets(shift, users, seed=s + 3 * d) for s in range(3)]
        rows[f"data{d}", "none", "none", "popularity"] = [synthetic_results.targets(3.0, users)]
    cells = [synthetic_results.cell(key, seeds_done=len(own), seeds_planned=len(own)) for key, own in rows.items()]
    return synthetic_results.results(rows, cells)


def _of(cell: dict, trials: int, epochs: int) -> list[dict]:
    """Trials of a cell: every fifth is pruned, every seventh fails; a large `train.lr` is good, the rest is noise."""
    if cell["state"] in ("skipped", "pending") or cell["backbone"] == "none":
        return []
    rng = np.random.default_rng(abs(hash_of(cell)))
    found = []
    for number in range(trials):
        status = "failed" if number % 7 == 6 else "pruned" if number % 5 == 4 else "done"
        lr = float(10 ** rng.uniform(-4, -2))
        params = {"adapter.hidden": int(rng.choice([64, 128, 256])), "train.lr": lr, "train.d": 64}
        params["text.fusion"] = str(rng.choice(["none", "add", synthetic_results.SCRIPT]))
        found.append(_trial(cell, "search", number, status, params, 0.05 + 0.01 * np.log10(lr), epochs))
    seeds = [_trial(cell, "confirm", s, "done", {"train.lr": 0.01}, 0.04, epochs) for s in range(cell["seeds_done"])]
    return found + seeds


def hash_of(cell: dict) -> int:
    return sum(ord(char) * (k + 1) for k, char in enumerate("|".join(cell[key] for key in KEY)))


def _trial(cell: dict, role: str, number: int, status: str, params: dict, best: float, epochs: int) -> dict:
    length = 1 if status == "failed" else epochs // 2 if status == "pruned" else epochs
    curve = [round(best * (1 - 0.5 ** (k + 1)), 6) for k in range(length)]
    known = {"trial": f"{hash_of(cell):x}-{role}-{number}", "study": f"{hash_of(cell):x}", "role": role}
    known |= {key: cell[key] for key in KEY}
    known |= {"number": number, "seed": number if role == "confirm" else 0, "status": status}
    known |= {"reason": "loss is <not> finite" if status == "failed" else "", "epochs": length, "curve": curve}
    scored = {} if status == "failed" else {"best": curve[-1], "best_epoch": length - 1}
    known |= {"seconds": 2.0 + number, "params": json.dumps(params), "info": "{}", "run": "made"}
    return known | scored

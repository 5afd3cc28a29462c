"""Made results of a bench for the tests of the leaderboard, by arithmetic alone."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from harness.report.tables import Results, Row, Table

SCRIPT, FORMULA, PIPE, ESCAPE = (
    "<script>alert(1)</script>",
    "=1+cmd|'/C calc'!A0",
    "a|b`c`\n[d](e)",
    "\x1b[31mred\u202e",
)
KEY = ("dataset", "encoder", "backbone", "adapter")
HEADER = {
    "protocol": {"split": "loo", "filter_seen": True, "quantile": 0.9},
    "prep": {"kcore": 5, "tie_policy": "source"},
    "budget": {"name": "quick", "trials": 3, "epochs": 8, "patience": 3, "seeds": 3},
    "data": {
        "beauty": {
            **{"users": 22363, "items": 12101, "events": 198502, "density": 0.000733, "mean_length": 8.88},
            **{"test_tie_share": 0.42, "licence": None, "warnings": ["42% of users have a <tie> at the end."]},
        }
    },
    "provenance": {"git": "0123abc", "date": "2026-11-01", "versions": {"torch": "2.13", "note": SCRIPT}},
    "components": {"backbones/gru4rec": {"note": "two epochs for <one>", "pace": 2}},
    "test_opened": 21,
}


def targets(shift: float, users: int = 400, seed: int = 0) -> np.ndarray:
    """Test ranks of some users, by arithmetic alone; a larger shift ranks worse."""
    x = (np.arange(users) * 7919 + seed * 104729) % 1009
    return 1 + np.floor(x / 1009 * 60 * (1 + shift))


def cell(key: tuple[str, ...], state: str = "done", reason: str = "", **numbers: int) -> dict:
    counts = {"trials_done": 2, "trials_pruned": 1, "trials_failed": 0, "trials_planned": 3}
    counts |= {"search_seconds": 100.0, "seeds_done": 3, "seeds_planned": 3}
    counts |= {
        "search_epochs": 24,
        "searched": ["train.lr"],
        "shared": "{}",
        "tuned": "searched",
        "setting": "",
        "warm_start": "",
        "source_trials": 0,
        "cell_seconds": None,
    }
    return dict(zip(KEY, key, strict=True)) | counts | numbers | {"state": state, "reason": reason}


def run(key: tuple[str, ...], seed: int, params: dict | None = None, info: dict | None = None) -> dict:
    facts = {"best_valid": 0.05 + 0.001 * seed, "seconds": 10.0 + seed, "parameters": 46123, "effective_rank": 31.5}
    texts = {"params": json.dumps(params or {"train.lr": 0.001}), "info": json.dumps(info or {"isotropy": 0.5 + seed})}
    return {"trial": "|".join((*key, str(seed))), **dict(zip(KEY, key, strict=True)), "seed": seed, **facts, **texts}


def results(rows: dict[tuple[str, ...], list[np.ndarray]], cells: list[dict] | None = None, header=HEADER) -> Results:
    """A bench in which each row has one array of test ranks a seed."""
    runs = [run(key, seed) for key, seeds in rows.items() for seed in range(len(seeds))]
    ranks = [
        pl.DataFrame(
            {"trial": "|".join((*key, str(seed))), "user": np.arange(len(values)), "low": values, "high": values}
        )
        for key, seeds in rows.items()
        for seed, values in enumerate(seeds)
    ]
    return Results(pl.DataFrame(runs), pl.concat(ranks), pl.DataFrame(cells or [cell(key) for key in rows]), header)


def seeds(shift: float, n: int = 3) -> list[np.ndarray]:
    return [targets(shift, seed=seed) for seed in range(n)]


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


def row_of(table: Table, adapter: str, backbone: str = "sasrec", encoder: str = "minilm") -> Row:
    section = next(s for s in table.sections if s.backbone == backbone)
    return next(r for r in section.rows if (r.cell.adapter, r.cell.encoder) == (adapter, encoder))

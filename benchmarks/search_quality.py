"""Do model-based samplers find better configurations than random search in the same number of trials?

Every sampler searches a real cell (MovieLens-100K, SASRec, `linear`) with ten seeds, and every trial is trained: no
surrogate and no lookup table. Short training of a narrow model takes a few seconds per trial; the space is the default
one.

    python benchmarks/search_quality.py run --home FOLDER --samplers tpe,random    (resumes if interrupted)
    python benchmarks/search_quality.py report --home FOLDER
"""

from __future__ import annotations

import _measure  # isort: skip  (sets the threads before torch is imported)

import argparse
import os
import time
from pathlib import Path

import cases
import numpy as np
import torch

from harness.data import preparation, reader, splits
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import spaces
from harness.search.plan import Study
from harness.search.studies import TrialQueue
from harness.training import trial
from harness.types import Budget, Cell, Engine, Inputs, PrepSpec, Protocol, Trial, TrialResult, digest

TRIALS, SEEDS, EPOCHS = 16, 10, 5
PINS = {"train.d": 16, "train.max_len": 20}
HISTORY = 20  # last events of a user that are kept, so that a trial takes a second or two
COLOURS: dict[str, str] = {"random": "#777777", "tpe": "#1f77b4", "gp": "#d62728", "cmaes": "#2ca02c"}
SAMPLERS = list(COLOURS)
MARKS = (6, 10, 13, 16)  # trials after which the best value so far is reported


def study(sampler: str, seed: int, ledger: Ledger) -> Study:
    """The cell's search by one sampler; the seed changes only which points are drawn, not how trials train."""
    cell = Cell("ml-100k", "file", "sasrec", "linear")
    space = spaces.of_cell(cell, spaces.SpaceSource(fixed=PINS))
    budget = Budget("search", TRIALS, EPOCHS, 0, 0)
    study = Study(cell, space, budget, Protocol(), Engine(sampler, "none"), Inputs(data="ml-100k"), ledger)
    vars(study)["id"] = digest([study.id, seed])
    return study


def run(home: Path, folder: Path, samplers: list[str]) -> None:
    """Search with every sampler and seed, skipping trials that the ledger already has."""
    torch.set_num_threads(1)
    word = str(folder / "ml-100k") if (folder / "ml-100k").is_dir() else "ml-100k"
    whole = preparation.prepare(reader.open_dataset(word, home), PrepSpec(max_history=HISTORY), home)
    split, spectrum = splits.split(whole, Protocol()).sealed(), cases.text(whole, folder, home)

    def train(work: Trial) -> TrialResult:
        training = trial.Training(work, split, trial.spectrum(spectrum, split.n_items))
        while not training.over:
            training.epoch()
        return TrialResult("done", "", max(training.curve), training.best_epoch, training.curve)

    segment = Segment(home)
    for seed in range(SEEDS):
        for sampler in samplers:
            grid = TrialQueue([study(sampler, seed, Ledger.open(home))], segment, lambda event: None)
            start = time.monotonic()
            while (task := grid.next()) is not None:
                grid.ended(task.trial.id, train(task.trial))
            print(f"{sampler} seed {seed}: {time.monotonic() - start:.0f} s", flush=True)


def curves(home: Path) -> dict[str, np.ndarray]:
    """Best validation NDCG@10 so far, (seeds, trials) per sampler, from complete searches only."""
    ledger, best = Ledger.open(home), {}
    for sampler in SAMPLERS:
        rows = []
        for seed in range(SEEDS):
            values = [result.best for result in study(sampler, seed, ledger).ended()]
            if len(values) == TRIALS:
                rows.append(np.maximum.accumulate(values))
        if rows:
            best[sampler] = np.array(rows)
    return best


def versus(curves: np.ndarray, random: np.ndarray) -> dict[str, object]:
    """Compare a sampler's final values with random search's, unpaired, since every search draws independently."""
    mine, other = curves[:, -1], random[:, -1]
    error = (mine.var(ddof=1) / len(mine) + other.var(ddof=1) / len(other)) ** 0.5
    return {
        "mean gain": f"{mine.mean() - other.mean():+.4f} ± {error:.4f}",
        "above random's mean": f"{(mine > other.mean()).sum()} of {len(mine)} searches",
        "trials to random's final mean": reached(curves, other.mean()),
    }


def reached(curves: np.ndarray, level: float) -> str:
    """The first trial at which the mean curve reaches the level."""
    at = np.flatnonzero(curves.mean(0) >= level)
    return str(at[0] + 1) if len(at) else f"not in {TRIALS}"


def report(home: Path) -> None:
    samplers = curves(home)
    rows = [
        {"sampler": name, "seeds": len(best)} | {f"after {m}": f"{best[:, m - 1].mean():.4f}" for m in MARKS}
        | {"spread at the end": f"{best[:, -1].std(ddof=1):.4f}"}
        for name, best in samplers.items()
    ]  # fmt: skip
    against = [{"sampler": n, **versus(best, samplers["random"])} for n, best in samplers.items() if n != "random"]
    picture = _measure.HERE / "results" / "search-quality.svg"
    picture.write_text(svg({name: best.mean(0) for name, best in samplers.items()}), encoding="utf-8")
    how = (
        f"MovieLens-100K, the last {HISTORY} events of a user, SASRec with `linear`, the default space with "
        f"{', '.join(f'{k}={v}' for k, v in PINS.items())},"
        f" {EPOCHS} epochs per trial, training seed 0, no pruning. Nine parameters are searched, one of them "
        f"conditional. "
        f"{TRIALS} trials per search, the first at the defaults. Best validation NDCG@10 so far, mean over seeds; a "
        "seed changes which points a sampler draws, not the result of a point. Every trial was trained."
    )
    _measure.write(
        "search-quality",
        "Search quality at equal trials",
        how,
        "![best so far by trial](search-quality.svg)",
        _measure.table(rows),
        f"Against random search after {TRIALS} trials (± standard error of the difference):",
        _measure.table(against),
    )


def svg(means: dict[str, np.ndarray], width: int = 640, height: int = 320) -> str:
    """Draw the mean best-so-far curves from the second trial on, with axes and names, as SVG."""
    low = min(curve[1] for curve in means.values())
    high = max(curve[-1] for curve in means.values())

    def at(number: int, value: float) -> str:
        x = 60 + (number - 1) / (TRIALS - 2) * (width - 140)
        return f"{x:.1f},{height - 40 - (value - low) / (high - low) * (height - 70):.1f}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">']
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    for value in np.linspace(low, high, 5):
        x, y = at(1, value).split(",")
        parts.append(f'<line x1="{x}" x2="{width - 80}" y1="{y}" y2="{y}" stroke="#dddddd"/>')
        parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 4}" font-size="11" text-anchor="end">{value:.4f}</text>')
    for number in range(2, TRIALS + 1, 3):
        x, y = at(number - 1, low).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18}" font-size="11" text-anchor="middle">{number}</text>')
    parts.append(f'<text x="{width / 2}" y="{height - 6}" font-size="12" text-anchor="middle">trials</text>')
    for place, (name, curve) in enumerate(means.items()):
        points = " ".join(at(n, curve[n]) for n in range(1, TRIALS))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts.append(f'<text x="70" y="{24 + 15 * place}" font-size="12" fill="{COLOURS[name]}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare samplers with random search on a real cell")
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=cases.FOLDER)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    options = parser.parse_args()
    if options.action == "report":
        return report(options.home)
    os.makedirs(options.home, exist_ok=True)
    return run(options.home, options.data, options.samplers.split(","))


if __name__ == "__main__":
    main()

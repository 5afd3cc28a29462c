"""Training options against the default: schedules, label smoothing and weight averaging, over rows, sets and seeds.

Validation NDCG@10 at the best epoch, never the test. An option and the default share seeds, so initial weights and
batches are equal and differences are paired. A decaying rate may need a higher peak: `--rates` adds learning rates, and
each option is then compared at its best one in each cell. Results are lines of `<home>/training_menu.jsonl`; a rerun
computes only what is missing. `--report` only writes the report, from the finished runs.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cases
import numpy as np
import torch

from harness.data import splits
from harness.data.splits import Split
from harness.search import spaces
from harness.training import trial
from harness.types import Cell, Inputs, Protocol, Trial

SETS = ("ml-100k", "amazon2014-office")
ROWS = ("id", "linear", "spectran")
SEEDS = (1, 2, 3, 4, 5)
DEFAULT_RATE = 3e-3
BASE = "constant"
OPTIONS = {
    BASE: {},
    "warmup_cosine": {"train.schedule": "warmup_cosine"},
    "one_cycle": {"train.schedule": "one_cycle"},
    "label_smoothing 0.1": {"loss.label_smoothing": 0.1},
    "ema 0.99": {"train.ema": 0.99},
}
EPOCHS, PATIENCE = 12, 3  # one rate takes about 90 minutes of one core
T_95 = 2.776  # two-sided 95 % point of Student's t with len(SEEDS) - 1 degrees of freedom


class Run(NamedTuple):
    dataset: str
    row: str
    option: str
    lr: float
    seed: int


Values = dict[Run, float]
Arrays = dict[str, np.ndarray]


def runs(rates: list[float]) -> Iterator[Run]:
    """All runs at these learning rates, one seed after the other."""
    for lr, seed, dataset, row, option in itertools.product(rates, SEEDS, SETS, ROWS, OPTIONS):
        yield Run(dataset, row, option, lr, seed)


def once(run: Run, split: Split, arrays: Arrays, epochs: int) -> dict[str, object]:
    """Train one run; return its line of results."""
    cell = Cell(run.dataset, "file", "sasrec", run.row)
    space = spaces.of_cell(cell, spaces.SpaceSource(fixed={"train.lr": run.lr, **OPTIONS[run.option]}))
    spec = Trial(cell, "search", run.seed, epochs, PATIENCE, space.default, Protocol(), Inputs())
    start = time.process_time()
    result, _ = trial.run(spec, split, trial.spectrum(arrays if run.row != "id" else {}, split.n_items))
    seconds = time.process_time() - start
    line = {"epochs": epochs, "value": result.best, "best_epoch": result.best_epoch, "trained": len(result.curve)}
    return {**run._asdict(), **line, "seconds": round(seconds, 2)}


def read(file: Path, epochs: int) -> list[dict]:
    """Results of earlier starts with the same number of epochs; a line cut by a kill is skipped."""
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if line["epochs"] == epochs]


def run_of(line: dict) -> Run:
    return Run(**{name: line[name] for name in Run._fields})


def train(file: Path, data: Path, wanted: list[Run], epochs: int) -> None:
    """Run what is missing of these runs, and append a line each."""
    home, done = file.parent, {run_of(line) for line in read(file, epochs)}
    missing = [run for run in wanted if run not in done]
    inputs: dict[str, tuple[Split, Arrays]] = {}
    for name in {run.dataset for run in missing}:
        whole = cases.prepared(name, data, home)
        if whole is None:
            raise SystemExit(f"{name} is missing in {data}; name the folder of data sets with --data.")
        inputs[name] = splits.split(whole, Protocol()).sealed(), cases.text(whole, data, home)
    for number, run in enumerate(missing, 1):
        line = once(run, *inputs[run.dataset], epochs)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        print(
            f"{number}/{len(missing)} {' '.join(map(str, run))}: {line['value']:.4f}, {line['seconds']} s", flush=True
        )


def at_best_rate(values: Values, dataset: str, row: str, option: str) -> tuple[float, list[float]] | None:
    """Learning rate with the highest mean over seeds, and the values per seed; rates that lack a seed do not count."""
    found = []
    for lr in sorted({run.lr for run in values}):
        cell = [Run(dataset, row, option, lr, seed) for seed in SEEDS]
        scores = [values[run] for run in cell if run in values]
        if len(scores) == len(SEEDS):
            found.append((statistics.mean(scores), lr, scores))
    return max(found)[1:] if found else None


def gains(base: list[float], other: list[float]) -> list[float]:
    """Paired relative differences in percent, one a seed."""
    return [100 * (b / a - 1) for a, b in zip(base, other, strict=True)]


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean and ends of its 95 % interval."""
    mean, half = statistics.mean(differences), T_95 * statistics.stdev(differences) / len(differences) ** 0.5
    return mean, mean - half, mean + half


def shown(differences: list[float]) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*interval(differences))


Pick = Callable[[str, str, str], tuple[float, list[float]] | None]


def by_cell(pick: Pick) -> list[dict[str, object]]:
    """One line a cell and option: values, best rate and paired gain."""
    lines = []
    for dataset, row, option in itertools.product(SETS, ROWS, OPTIONS):
        base, other = pick(dataset, row, BASE), pick(dataset, row, option)
        if base is None or other is None:
            continue
        gain = "" if option == BASE else shown(gains(base[1], other[1]))
        spread = statistics.stdev(other[1])
        lines.append({"data set": dataset, "row": row, "option": option, "learning rate": f"{other[0]:g}"})
        lines[-1] |= {"NDCG@10": f"{statistics.mean(other[1]):.4f}", "sd over seeds": f"{spread:.4f}", "gain, %": gain}
    return lines


def by_option(pick: Pick) -> list[dict[str, object]]:
    """One line an option: gain of `id` and of the text rows (mean over rows, per seed) on each set, and a verdict."""
    lines = []
    for option in [name for name in OPTIONS if name != BASE]:
        groups: dict[str, list[float]] = {}
        for dataset, (group, rows) in itertools.product(SETS, {"id": ROWS[:1], "text": ROWS[1:]}.items()):
            pairs = [(pick(dataset, row, BASE), pick(dataset, row, option)) for row in rows]
            whole = [gains(base[1], other[1]) for base, other in pairs if base and other]
            if len(whole) == len(rows):
                groups[f"{dataset}, {group}"] = [statistics.mean(seed) for seed in zip(*whole, strict=True)]
        if len(groups) == 2 * len(SETS):
            lines.append({"option": option} | {name: shown(found) for name, found in groups.items()})
            lines[-1] |= {"verdict": verdict([interval(found) for found in groups.values()])}
    return lines


def verdict(intervals: list[tuple[float, float, float]]) -> str:
    """`better`: above 0 in every group; `worse`: below 0 in some group and above in none; otherwise mixed or open."""
    above, below = sum(low > 0 for _, low, _ in intervals), sum(high < 0 for *_, high in intervals)
    if above == len(intervals):
        return "better everywhere"
    if above and below:
        return "mixed"
    if below:
        return f"worse in {below} of {len(intervals)}"
    return f"better in {above} of {len(intervals)}, worse in none" if above else "no difference shown"


def report(file: Path, epochs: int) -> None:
    lines = read(file, epochs)
    values = {run_of(line): line["value"] for line in lines}

    def default(dataset: str, row: str, option: str) -> tuple[float, list[float]] | None:
        at = {run: value for run, value in values.items() if run.lr == DEFAULT_RATE}
        return at_best_rate(at, dataset, row, option)

    def tuned(dataset: str, row: str, option: str) -> tuple[float, list[float]] | None:
        return at_best_rate(values, dataset, row, option)

    parts = []
    views = [("At the default learning rate", default), ("Each at its best learning rate", tuned)]
    for title, pick in views[: len({run.lr for run in values})]:
        summary, cells = by_option(pick), by_cell(pick)
        parts += [f"## {title}", _measure.table(summary) if summary else "Not all seeds are done.", ""]
        parts += [_measure.table(cells)] if cells else []
    winners = [line["option"] for line in by_option(tuned) if line["verdict"] == "better everywhere"]
    ends = f"Better for `id` and text rows on both sets: {', '.join(map(str, winners)) or 'none'}."
    rates = sorted({run.lr for run in values})
    total = sum(1 for _ in runs(rates))
    how = (
        f"SASRec at the default point of each cell, max {epochs} epochs, patience {PATIENCE}, {len(SEEDS)} seeds, "
        f"learning rates {', '.join(f'{lr:g}' for lr in rates)}; {len(values)} of {total} runs. Text: MiniLM. "
        "Gains are paired over seeds, relative to the constant rate, with 95 % intervals of Student's t; those of text "
        f"rows are means over {' and '.join(ROWS[1:])}. Intervals are not corrected for the number of comparisons. The "
        "best rate is chosen on the values shown, for the default as for the options."
    )
    _measure.write("training-menu", "Training menu", how, f"**{ends}**", *parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=cases.FOLDER, help="folder of data set folders")
    parser.add_argument("--home", type=Path, required=True, help="folder of caches and of results so far")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="max epochs of a run")
    parser.add_argument("--rates", default=str(DEFAULT_RATE), help="comma list of learning rates")
    parser.add_argument("--report", action="store_true", help="only write the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.home.mkdir(parents=True, exist_ok=True)
    file = options.home / "training_menu.jsonl"
    if not options.report:
        wanted = list(runs([float(rate) for rate in options.rates.split(",")]))
        train(file, options.data, wanted, options.epochs)
    report(file, options.epochs)


if __name__ == "__main__":
    main()

"""The trials of an ensemble, derived from the confirmed trials of its parts.

An ensemble is a row made of rows: it trains nothing, and adds the scores of models that other rows keep. Its round r
combines one confirmed trial of each part; a part that is listed m times gives m trials to each round. No trial is in
two rounds, so that the rounds are as independent as training seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.types import Cell, Inputs, Trial

VERSION = 1  # raise it when the combination of the scores changes


def rounds(parts: Sequence[str], seeds: Mapping[str, int]) -> int:
    """Return the number of rounds of an ensemble; seeds: confirmations of each part.

    >>> rounds(("id", "text"), {"id": 5, "text": 5}), rounds(("id", "id"), {"id": 5})
    (5, 2)
    """
    return min(seeds[part] // count for part, count in Counter(parts).items())


def trials(cell: Cell, confirmed: Mapping[str, Sequence[Trial]], version: int = VERSION) -> list[Trial]:
    """Return the ensemble's trials by round and fold; confirmed: the confirmed trials of each part by seed and fold."""
    folds = sorted({run.protocol.fold for runs in confirmed.values() for run in runs})
    made = [trial for fold in folds for trial in _of_fold(cell, confirmed, fold, version)]
    return sorted(made, key=lambda trial: (trial.seed, trial.protocol.fold))


def _of_fold(cell: Cell, confirmed: Mapping[str, Sequence[Trial]], fold: int, version: int) -> list[Trial]:
    """Return the trials of one fold, one a round."""
    counts = Counter(cell.parts)
    runs = {part: [run for run in several if run.protocol.fold == fold] for part, several in confirmed.items()}
    number = rounds(cell.parts, {part: len(of_part) for part, of_part in runs.items()})
    chosen = [
        [run for part, count in counts.items() for run in runs[part][round * count : (round + 1) * count]]
        for round in range(number)
    ]
    return [_trial(cell, 1 + round, parts, version) for round, parts in enumerate(chosen)]


def _trial(cell: Cell, seed: int, parts: Sequence[Trial], version: int) -> Trial:
    reads = next((part.inputs for part in parts if part.inputs.embedding), parts[0].inputs)
    core = {name: number for name, number in parts[0].inputs.versions.items() if name == "core"}
    inputs = Inputs(
        reads.data, reads.embedding, reads.basis, core | {"ensemble": version}, tuple(part.id for part in parts)
    )
    return Trial(cell, "confirm", seed, 0, 0, {}, parts[0].protocol, inputs)

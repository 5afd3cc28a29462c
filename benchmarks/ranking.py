"""Ranking all items: harness against the product of states and table only, the textbook way, and RecTools.

Histories and queries are those of Beauty's validation, with items hashed to a catalogue of the given size. One thread;
CPU seconds; sides alternate.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cases
import numpy as np
import peers
import torch
from torch import Tensor

from harness.data import splits
from harness.data.splits import Prepared, Queries, Split
from harness.training.ranking import ranks
from harness.types import Protocol

NAME = "amazon2014-beauty"
D = 64
SIZES = {1_349: 30_000, 12_101: 30_000, 100_000: 4_096, 1_000_000: 1_024}  # items: maximum number of queries
TOP, ROUNDS, GOAL = 10, 3, 10
BLOCK, TILE = 1024, 512  # queries and items per product, the fastest combination tried
TEXTBOOK = 256  # queries whose scores the textbook way has in memory


def catalogue(split: Split, n_items: int, most: int) -> tuple[Split, Queries, Tensor, Tensor]:
    """Beauty with another catalogue size and at most `most` queries; random states (q, d) and table (n_items, d)."""
    items = (split.items.astype(np.int64) * 2_654_435_761 % n_items + 1).astype(np.int32)
    every = -(-len(split.valid.users) // most)
    queries = Queries(split.valid.users[::every], split.valid.ends[::every])
    generator = torch.Generator().manual_seed(0)
    states, table = (torch.randn(n, D, generator=generator) for n in (len(split.train_ends), n_items))
    return dataclasses.replace(split, n_items=n_items, items=items), queries, states, table


def product(states: Tensor, table: Tensor) -> Callable[[], None]:
    """Compute all scores and discard each tile: a lower bound for exact ranking on this machine."""
    out = torch.empty(BLOCK, TILE)

    def run() -> None:
        for block in states.split(BLOCK):
            for tile in table.split(TILE):
                torch.mm(block, tile.T, out=out[: len(block), : len(tile)])

    return run


def textbook(split: Split, queries: Queries, states: Tensor, table: Tensor) -> Callable[[], None]:
    """Per block of queries: all scores, seen items set to -inf, top ten. Finding the seen items is not timed."""
    seen = [split.history(int(u), int(end)) - 1 for u, end in zip(queries.users, queries.ends, strict=True)]
    blocks = [seen[start : start + TEXTBOOK] for start in range(0, len(seen), TEXTBOOK)]
    rows = [torch.arange(len(b)).repeat_interleave(torch.tensor([len(h) for h in b])) for b in blocks]
    items = [torch.from_numpy(np.concatenate(b).astype(np.int64)) for b in blocks]

    def run() -> None:
        for block, row, item in zip(states.split(TEXTBOOK), rows, items, strict=True):
            scores = block @ table.T
            scores[row, item] = -torch.inf
            torch.topk(scores, min(TOP, len(table)))

    return run


def size(beauty: Split, n_items: int, most: int) -> dict[str, object]:
    """A row of the table: nanoseconds per score of each side."""
    split, queries, states, table = catalogue(beauty, n_items, most)
    of_users = torch.from_numpy(queries.users.astype(np.int64))
    seconds = _measure.cpu_seconds(
        lambda: ranks(lambda q: states[q.users], split, queries, filter_seen=True, table=table),
        product(states[of_users], table),
        textbook(split, queries, states[of_users], table),
        repeats=ROUNDS,
    )
    ours, bound, book = (s / (len(queries.users) * n_items) * 1e9 for s in seconds)
    return {
        "items": n_items,
        "queries": len(queries.users),
        "harness, µs per query": seconds[0] / len(queries.users) * 1e6,
        "harness, ns per score": ours,
        "product only": bound,
        "textbook top 10": book,
        "harness / product": ours / bound,
        "textbook / harness": book / ours,
    }


def memory(beauty: Split) -> tuple[int, int]:
    """Bytes of a table of a million items and of the extra memory to rank 1,000 queries; for a separate process."""
    torch.set_num_threads(1)
    split, queries, states, table = catalogue(beauty, 64, 1_000)
    ranks(lambda q: states[q.users], split, queries, filter_seen=True, table=table)
    split, queries, states, table = catalogue(beauty, 1_000_000, 1_000)
    before = _measure.present_memory()
    ranks(lambda q: states[q.users], split, queries, filter_seen=True, table=table)
    return table.nbytes, _measure.peak_memory() - before


def in_separate_process(split: Split) -> tuple[int, int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, split).result()


def against_rectools(whole: Prepared, split: Split, home: Path) -> dict[str, float]:
    """Median CPU microseconds per user of each side, including the encoding of histories."""
    params = {"backbone.n_blocks": cases.MODEL["n_blocks"]}
    training = cases.training(cases.make_trial(whole.name, "id", "sasrec", params), split, {})
    request = {"interactions": cases.export(split, home / "events.npz"), "model": cases.MODEL, "k": TOP, "repeats": 1}
    title, times = peers.title("rectools"), {"harness": [], peers.title("rectools"): []}
    training.ranks(split.valid)
    for _ in range(ROUNDS):
        answer = peers.run("rectools", "peers_rectools_rank.py", request)
        times[title] += [seconds / answer["users"] * 1e6 for seconds in answer["cpu_seconds"]]
        start = time.process_time()
        training.ranks(split.valid)
        times["harness"].append((time.process_time() - start) / len(split.valid.users) * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def peer_part(whole: Prepared, split: Split, home: Path) -> str:
    medians = against_rectools(whole, split, home)
    ours, (title, theirs) = medians["harness"], list(medians.items())[1]
    verdict = "met" if theirs / ours >= GOAL else "missed"
    about = (
        f"## {title} on {whole.name}\n\n{len(split.valid.users):,} users, {split.n_items:,} items, SASRec "
        f"{cases.MODEL}, untrained, median of {ROUNDS} alternating rounds. RecTools' `recommend` returns each user's "
        f"{TOP} best unseen items as a data frame; harness returns the exact rank of each user's target. Both encode "
        "all histories and exclude seen items; building RecTools' data set is not timed."
    )
    rows = [
        {"": title, "µs per user": theirs, "ratio": 1.0},
        {"": "harness", "µs per user": ours, "ratio": theirs / ours},
    ]
    return f"{about}\n\n{_measure.table(rows)}\n\nGoal: {GOAL} times as fast; {verdict}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=cases.FOLDER, help="folder of data set folders")
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        whole = cases.prepared(NAME, folder, Path(home))
        if whole is None:
            raise SystemExit(f"{folder / NAME} does not exist; pass the folder of data set folders with --data")
        split = splits.split(whole, Protocol()).sealed()
        rows = [size(split, n_items, most) for n_items, most in SIZES.items()]
        table, beside = in_separate_process(split)
        peer = peer_part(whole, split, Path(home))
    about = (
        f"Nanoseconds per score: exact ranks with ties and seen items, d = {D}; CPU, one thread, median of {ROUNDS}."
    )
    kept = "met" if beside < 2 * 2**30 else "missed"
    size_of = f"A million items, d = {D}, 1,000 queries: the table takes {table / 2**20:.0f} MB, ranking against it "
    _measure.write(
        "ranking",
        "Ranking all items",
        about,
        _measure.table(rows),
        f"## Memory\n\n{size_of}{beside / 2**20:.0f} MB more at its peak. Goal: under 2 GB; {kept}.",
        peer,
    )


if __name__ == "__main__":
    main()

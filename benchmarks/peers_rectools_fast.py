"""Train and time the SASRec of RecTools' fast module. Runs in RecTools' environment (see peers.py).

The module has a network (FlatSASRecNet), sequences (build_sequences) and a batch data set, but no training loop for
them. The loop here is the usual one: shuffled batches, Adam, cross-entropy over the catalogue with padding ignored, as
in the module's own UniSRecLightning.

Request: `interactions` (an .npz of cases.export), `model` and `train` (cases.MODEL, cases.TRAIN), `head` (`all`: the
network's forward, logits at every position; `real`: logits at positions with a target only, which its API does not
offer; `blocks`: the same with harness's loss and without most of the padding; loss and gradients are equal), `batch`
(sequences), `seed`, and either `epochs` and `patience` (epochs without a better NDCG@10 before the end; 0: none) or
`box` (CPU seconds to measure after `warm_up` steps).
Answer: `targets`, `cpu_seconds`, `steps` (measured steps), `peak` (bytes); with `epochs`, by epoch: `seconds` (CPU
seconds of training so far, without validation) and `ndcg` (validation NDCG@10, items of the history excluded).
A target is a real (not padding) next-item position that enters the loss.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

sys.path.append(str(Path(__file__).resolve().parents[1]))  # at the end: nothing of RecTools is shadowed

from harness.training.losses._fused import softmax_loss

# In evaluation mode, torch's fast path of attention gives NaN for rows of padding, which FlatSASRecNet passes on.
torch.backends.mha.set_fastpath_enabled(False)

TOP, ROWS = 10, 256  # length of a list; users ranked at once
WIDTHS = (4, 8, 16, 32)  # sequences up to a width are cropped to it


class Clock:
    """Targets and CPU seconds of whole steps with data loading after `warm_up` steps."""

    def __init__(self, warm_up: int = 0) -> None:
        self.warm_up = warm_up
        self.seen = self.steps = self.targets = 0
        self.start = time.process_time()
        self.seconds = 0.0

    def step(self, y: Tensor) -> None:
        self.seen += 1
        now = time.process_time()
        if self.seen <= self.warm_up:
            self.start = now
            return
        self.steps += 1
        self.targets += int((y != 0).sum())
        self.seconds = now - self.start

    def skip(self, seconds: float) -> None:
        self.start += seconds


def loss(net: FlatSASRecNet, batch: dict[str, Tensor], head: str) -> Tensor:
    """Cross-entropy at the real positions; targets are 0 at padding and 1..n_items elsewhere."""
    y = batch["y"]
    if head == "all":
        return F.cross_entropy(net(batch).flatten(0, 1), y.flatten() - 1, ignore_index=-1)
    if head == "blocks":
        h, wanted = zip(*real_positions(net, batch["x"], y), strict=True)
        return softmax_loss(torch.cat(h), net.all_item_embeddings(), torch.cat(wanted) - 1)
    real = y != 0
    return F.cross_entropy(net.encode(batch["x"])[real] @ net.all_item_embeddings().T, y[real] - 1)


def real_positions(net: FlatSASRecNet, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Hidden states (P, d) and targets (P,) of the real positions, by groups of rows."""
    for rows, width in by_length(x):
        cropped = y[rows, -width:]
        yield encode(net, x[rows, -width:])[cropped != 0], cropped[cropped != 0]


def by_length(x: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Rows of left-padded sequences x (B, L) by length, with a width that holds them."""
    length = (x != 0).sum(1)
    for low, high in itertools.pairwise((0, *WIDTHS, x.shape[1])):
        rows = ((length > low) & (length <= high)).nonzero()[:, 0]
        if len(rows):
            yield rows, high


def encode(net: FlatSASRecNet, x: Tensor) -> Tensor:
    """net.encode of sequences (B, width) that lack their first columns, all padding: the last positions remain."""
    width, real = x.shape[1], x != 0
    h = net.emb_dropout(net.item_emb(x) + net.pos_emb.weight[net.session_max_len - width :])
    causal = net._causal_mask(width, x.device)
    for block in net.blocks:
        h = block(h * real.unsqueeze(-1), attn_mask=causal, key_padding_mask=~real)
    return net.final_ln(h * real.unsqueeze(-1))


def train(net: FlatSASRecNet, data: SequenceBatchDataset, request: dict, clock: Clock) -> Iterator[None]:
    """Train without end; yields after every epoch and, with a `box`, after every step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=request["train"]["lr"])
    loader = DataLoader(data, batch_size=request["batch"], shuffle=True)
    while True:
        net.train()
        for batch in loader:
            optimizer.zero_grad()
            loss(net, batch, request["head"]).backward()
            optimizer.step()
            clock.step(batch["y"])
            if "box" in request:
                yield
        if "epochs" in request:
            yield


@torch.inference_mode()
def ndcg(net: FlatSASRecNet, histories: Tensor, seen: list[Tensor], targets: Tensor) -> float:
    """NDCG@10 of one target a user; `histories` (users, max_len) left-padded, `seen` and `targets` from 1 on.

    A target of 0 never occurs in training: the network cannot rank it.
    """
    net.eval()
    total = 0.0
    groups = [(part, width) for rows, width in by_length(histories) for part in rows.split(ROWS)]
    for rows, width in groups:
        scores = encode(net, histories[rows, -width:])[:, -1] @ net.all_item_embeddings().T
        for row, user in enumerate(rows.tolist()):
            scores[row, seen[user] - 1] = -torch.inf
        wanted = targets[rows]
        if torch.isnan(scores).any():
            raise SystemExit("scores are not a number")
        rank = 1 + (scores > scores.gather(1, (wanted - 1).clamp(min=0)[:, None])).sum(1)
        total += float((1 / torch.log2(1.0 + rank))[(rank <= TOP) & (wanted > 0)].sum())
    return total / len(histories)


def curve(net: FlatSASRecNet, data: SequenceBatchDataset, request: dict, clock: Clock, queries: tuple) -> dict:
    values: list[float] = []
    seconds: list[float] = []
    training, patience = train(net, data, request, clock), request["patience"]
    for _ in range(request["epochs"]):
        next(training)
        seconds.append(clock.seconds)
        before = time.process_time()
        values.append(ndcg(net, *queries))
        clock.skip(time.process_time() - before)
        if patience and len(values) - 1 - int(np.argmax(values)) >= patience:
            break
    return {"seconds": seconds, "ndcg": values}


def queries_of(
    events: np.ndarray, valid: np.ndarray, items: Tensor, max_len: int
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Histories, seen items and targets of the validation users."""
    number = torch.zeros(int(max(events[:, 1].max(), valid[:, 1].max())) + 1, dtype=torch.long)
    number[items] = torch.arange(1, len(items) + 1)
    by_user = {user: number[torch.from_numpy(rows[:, 1])] for user, rows in _groups(events)}
    histories = torch.zeros(len(valid), max_len, dtype=torch.long)
    seen = [by_user[user] for user in valid[:, 0].tolist()]
    for row, own in enumerate(seen):
        last = own[-max_len:]
        histories[row, max_len - len(last) :] = last
    return histories, seen, number[torch.from_numpy(valid[:, 1])]


def _groups(events: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    starts = np.flatnonzero(np.r_[True, events[1:, 0] != events[:-1, 0]])
    for rows in np.split(events, starts[1:]):
        yield int(rows[0, 0]), rows


def peak() -> int:
    """Peak resident size of this process in bytes; getrusage may report the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(question: str, answer: str) -> None:
    request = json.loads(Path(question).read_text())
    with np.load(request["interactions"], allow_pickle=False) as arrays:
        events, valid = arrays["train"], arrays["valid"]  # (events, 2), (users, 2): user, item
    torch.manual_seed(request["seed"])
    model = request["model"]
    users, bought = torch.from_numpy(events).unbind(1)
    x, y, items, _ = build_sequences(users, bought, torch.arange(len(users)), model["max_len"])
    net = FlatSASRecNet(len(items), model["d"], model["n_blocks"], model["n_heads"], model["max_len"], model["dropout"])
    data, clock = SequenceBatchDataset(x, y), Clock(request.get("warm_up", 0))
    curves: dict = {}
    if "epochs" in request:
        curves = curve(net, data, request, clock, queries_of(events, valid, items, model["max_len"]))
    else:
        training = train(net, data, request, clock)
        while clock.seconds < request["box"]:
            next(training)
    measured = {"targets": clock.targets, "cpu_seconds": clock.seconds, "steps": clock.steps, "peak": peak()}
    Path(answer).write_text(json.dumps(measured | curves))


if __name__ == "__main__":
    main(*sys.argv[1:])

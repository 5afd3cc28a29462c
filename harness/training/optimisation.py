"""The optimiser of a trial, its learning rate, and the moving average of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.training import schedules
from harness.types import Json


def make(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW; parameters of fewer than two dimensions are not decayed: most biases, norms, thresholds, gains.

    Tables, matrices and all else of two dimensions are decayed, among them position embeddings, the experts' biases of
    `unisrec_moe` and `pca_moe` (experts, width), and TedRec's shifts (length, d).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, train: Json, progress: float) -> None:
    """Set the learning rate of all groups to its value at `progress`, the share of the max epochs that is done."""
    rate = train["lr"] * schedules.factor(train["schedule"], progress, train["warmup"])
    for group in optimizer.param_groups:
        group["lr"] = rate


def step(model: nn.Module, optimizer: torch.optim.Optimizer, losses: Iterable[Tensor], clip_norm: float) -> Tensor:
    """Take one step on the sum of `losses`; return it, shape (), detached.

    Each loss is differentiated before the next is drawn from the iterable, so only one graph is in memory.
    """
    optimizer.zero_grad(set_to_none=True)
    total = None
    for loss in losses:
        loss.backward()
        total = loss.detach() if total is None else total + loss.detach()
    if total is None:
        raise ValueError("a step needs at least one loss")
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return total


def load_state(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    """Load tensors named `<index of parameter>.<key>`; the groups, with their rates and decays, stay as built."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = _in_layout_of(parameters[int(index)], tensor)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _in_layout_of(parameter: Tensor, saved: Tensor) -> Tensor:
    """`saved` in the memory order of `parameter`: the fused optimiser walks both in memory order."""
    return torch.empty_like(parameter).copy_(saved) if saved.shape == parameter.shape else saved


class Average:
    """Exponential moving average of a model's trainable weights (EMA).

    After t updates with decay b: w = (1 - b) sum_s b^(t - s) w_s / (1 - b^t), s = 1..t. The division, as in Adam
    (Kingma & Ba 2015, arXiv 1412.6980, section 3), removes the weights from before training, so the average is usable
    from the first epoch. Buffers are not averaged: running statistics are averages already, the rest is constant.
    Decay 0 switches it off: no memory, no effect.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._parameters = trained if decay else {}
        self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights."""
        if not self.decay:
            return
        self.updates += 1
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        for name, parameter in self._parameters.items():
            self.weights[name].lerp_(parameter, share)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Give the model the averaged weights inside the block, and its own back after it."""
        if not self.updates:
            yield
            return
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._give(self.weights)
        try:
            yield
        finally:
            self._give(own)

    def restore(self, weights: dict[str, Tensor], updates: int) -> None:
        """Resume with saved `weights` after so many updates."""
        self.updates = updates
        for name, saved in weights.items():
            self.weights[name].copy_(saved)

    @torch.no_grad()
    def _give(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])

"""Mamba4Rec: a selective state space model over the item sequence, a recurrence whose gates depend on the item.

Source: Liu et al. 2024 (arXiv 2403.03900): dropout and layer norm of the item vectors, then per block a Mamba layer
(Gu & Dao 2023, arXiv 2312.00752) and a feed-forward layer of width 4 d: h <- LN(Dropout(Mamba(h))), with h added inside
the norm if there are several blocks, and h <- LN(h + Dropout(FFN(h))). The Mamba layer, letters as in its paper:

    [x, z] = h W_in;  x = SiLU(conv(x));  [delta, B, C] = x W_x;  Delta = softplus(delta W_dt + b_dt)
    S_t = exp(Delta_t A) S_{t-1} + Delta_t B_t x_t;  y_t = C_t S_t + D x_t;  output (y * SiLU(z)) W_out

with A < 0 diagonal and conv causal, one filter per channel. No positions: the recurrence preserves the order. Weights
N(0, 0.02^2) as in the authors' code, whose initialisation also overwrites that of Delta; here Delta starts between
0.001 and 0.1, as in Mamba. The authors' code needs a GPU kernel; here the recurrence is a loop over time with a
hand-written gradient. Weight decay reaches log(-A), which Mamba's code exempts. On a CPU a step of the default model
takes three times as long as one of `sasrec`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ._base import Backbone, Count, Depth, Dropout, Multiple, Rate

EPS = 1e-12  # of layer norms; small because item vectors are
INIT_STD = 0.02
STEPS = (1e-3, 1e-1)  # initial range of Delta, log-uniform
STATE_ELEMENTS = {"cpu": 2**17}  # states of the rows scanned together; this many fit in cache
LOG2_E = math.log2(math.e)  # converts e^x to 2^x, which is faster


class Mamba4Rec(Backbone):
    """``n_blocks`` blocks of a Mamba layer with ``expand`` d channels of ``d_state`` states each and a filter over the
    last ``d_conv`` items.

    Raises ValueError if one of these is below 1.
    """

    unrolls = True

    def __init__(
        self,
        d: int,
        max_len: int,
        *,
        n_blocks: Depth = 1,
        d_state: Count = 32,
        d_conv: Count = 4,
        expand: Multiple = 2,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__(d, max_len)
        for name, value in (("n_blocks", n_blocks), ("d_state", d_state), ("d_conv", d_conv), ("expand", expand)):
            if value < 1:
                raise ValueError(f"{name} is {value}; Mamba4Rec takes 1 or more")
        self.norm, self.dropout = nn.LayerNorm(d, eps=EPS), Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(d, n_blocks > 1, d_state, d_conv, expand, dropout) for _ in range(n_blocks))

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.norm(self.dropout(x))
        for block in self.blocks:
            h = block(h)
        return h

    def last(self, x: Tensor, real: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.norm(self.dropout(x))
        for block in self.blocks[:-1]:
            h = block(h)
        return self.blocks[-1](h, at)


class _Block(nn.Module):
    def __init__(self, d: int, residual: bool, d_state: int, d_conv: int, expand: int, dropout: float) -> None:
        super().__init__()
        self.residual = residual
        self.mamba = _Mamba(d, d_state, d_conv, expand)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), Dropout(dropout), nn.Linear(4 * d, d))
        self.norm_mamba, self.norm_ffn = nn.LayerNorm(d, eps=EPS), nn.LayerNorm(d, eps=EPS)
        self.dropout = Dropout(dropout)
        for layer in (self.ffn[0], self.ffn[3]):
            _normal(layer)

    def forward(self, h: Tensor, at: Tensor | None = None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, d): only the output at position ``at`` (B,) of each row."""
        mixed = self.mamba(h)
        if at is not None:
            mixed, h = (x[torch.arange(len(x), device=x.device), at] for x in (mixed, h))
        mixed = self.dropout(mixed)
        h = self.norm_mamba(mixed + h if self.residual else mixed)
        return self.norm_ffn(h + self.dropout(self.ffn(h)))


class _Mamba(nn.Module):
    def __init__(self, d: int, d_state: int, d_conv: int, expand: int) -> None:
        super().__init__()
        width, rank = expand * d, math.ceil(d / 16)
        self.parts = [rank, d_state, d_state]
        self.into, self.out = nn.Linear(d, 2 * width, bias=False), nn.Linear(width, d, bias=False)
        self.conv = nn.Conv1d(width, width, d_conv, groups=width)
        self.select = nn.Linear(width, sum(self.parts), bias=False)
        self.step = nn.Linear(rank, width)
        self.log_A = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        for layer in (self.into, self.out, self.select):
            _normal(layer)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        start = torch.empty(width).uniform_(*map(math.log, STEPS)).exp()
        self.step.bias.data = start + (-torch.expm1(-start)).log()  # the inverse softplus of start

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, L, d) to (B, L, d)."""
        x, z = self.into(h).chunk(2, 2)
        reach = self.conv.kernel_size[0] - 1
        x = F.silu(self.conv(F.pad(x.transpose(1, 2), (reach, 0)))).transpose(1, 2)
        delta, B, C = self.select(x).split(self.parts, 2)
        y = selective_scan(x, F.softplus(self.step(delta)), -self.log_A.exp(), B, C)
        return self.out((y + self.D * x) * F.silu(z))


def selective_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Return y_t = S_t C_t for S_t = exp(delta_t A) * S_{t-1} + (delta_t x_t) B_t^T and S_0 = 0.

    x, delta: (b, L, w); A: (w, n); B, C: (b, L, n); S: (b, w, n); y: (b, L, w) in the dtype of A. Differentiable once.
    """
    if torch.compiler.is_exporting():
        return _unrolled(x, delta, A, B, C)
    rows = max(1, STATE_ELEMENTS.get(x.device.type, 2**28) // A.numel())
    parts = zip(*(tensor.to(A.dtype).split(rows) for tensor in (x, delta, B, C)), strict=True)
    scanned = [_Scan.apply(x, delta, A, B, C) for x, delta, B, C in parts]
    return torch.cat(scanned)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _unrolled(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`selective_scan` without in-place operations or parts of the batch, which graphs cannot hold."""
    drive, y = (delta * x).unsqueeze(3), []
    state = torch.zeros_like(drive[:, 0] * A)
    for t in range(x.shape[1]):
        state = (delta[:, t].unsqueeze(2) * A).exp() * state + drive[:, t] * B[:, t].unsqueeze(1)
        y.append((state * C[:, t].unsqueeze(1)).sum(2))
    return torch.stack(y, 1)


class _Scan(torch.autograd.Function):
    """A loop over time with few passes over the state; autograd would keep several copies of it per step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        x, delta, B, C = (tensor.transpose(0, 1).contiguous() for tensor in (x, delta, B, C))  # time first
        A2, drive = A * LOG2_E, delta * x
        states = x.new_empty(len(x) + 1, *x.shape[1:], A.shape[1])
        states[0] = 0
        scratch, y = torch.empty_like(states[0]), torch.empty_like(x)
        for t in range(len(x)):
            state = states[t + 1]
            torch.mul(delta[t].unsqueeze(2), A2, out=scratch).exp2_()
            torch.mul(scratch, states[t], out=state).addcmul_(drive[t].unsqueeze(2), B[t].unsqueeze(1))
            torch.sum(torch.mul(state, C[t].unsqueeze(1), out=scratch), 2, out=y[t])
        ctx.save_for_backward(x, delta, A, B, C, states)
        return y.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, delta, A, B, C, states = ctx.saved_tensors
        A2, drive = A * LOG2_E, delta * x
        grad_y = grads[0].transpose(0, 1).contiguous()
        grad_drive, grad_delta = torch.empty_like(x), torch.empty_like(x)
        grad_A, grad_B, grad_C = torch.zeros_like(A), torch.empty_like(B), torch.empty_like(C)
        grad_state, scratch = torch.zeros_like(states[0]), torch.empty_like(states[0])
        for t in reversed(range(len(x))):
            torch.sum(torch.mul(grad_y[t].unsqueeze(2), states[t + 1], out=scratch), 1, out=grad_C[t])
            grad_state.addcmul_(grad_y[t].unsqueeze(2), C[t].unsqueeze(1))
            torch.sum(torch.mul(grad_state, B[t].unsqueeze(1), out=scratch), 2, out=grad_drive[t])
            torch.sum(torch.mul(grad_state, drive[t].unsqueeze(2), out=scratch), 1, out=grad_B[t])
            grad_state *= torch.mul(delta[t].unsqueeze(2), A2, out=scratch).exp2_()  # of the previous state
            torch.mul(grad_state, states[t], out=scratch)  # gradient of the exponent
            grad_A += (scratch * delta[t].unsqueeze(2)).sum(0)
            torch.sum(scratch.mul_(A), 2, out=grad_delta[t])
        grad_delta += grad_drive * x
        grad_x, grad_delta, grad_B, grad_C = (
            tensor.transpose(0, 1) for tensor in (grad_drive * delta, grad_delta, grad_B, grad_C)
        )
        return grad_x, grad_delta, grad_A, grad_B, grad_C


def _normal(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=INIT_STD) if parameter.ndim > 1 else nn.init.zeros_(parameter)

"""HSTU with time bias: attention also depends on the time between events, including the event to be predicted.

Source: Zhai et al. 2024 (arXiv 2402.17152): rab_ij = p_{i-j} + w_b, b = floor(ln(max(1, |t_{i+1} - t_j|)) / 0.301),
128 buckets. This is the published model; t_{i+1} is the time of the event to be predicted, which a recommender does not
know when it has to predict that event.
"""

from __future__ import annotations

from torch import Tensor

from .hstu import HSTU, _vectors

N_BUCKETS, BUCKET_WIDTH = 128, 0.301


class HSTUTime(HSTU):
    """`HSTU` plus one bias per time bucket and layer. ``times``: (B, L + 1) seconds."""

    uses_time = True
    by_name_only = True
    note = "reads the time of the event to be predicted, which other rows do not see"

    def add_biases(self, n_blocks: int) -> None:
        super().add_biases(n_blocks)
        self.time_bias = _vectors(n_blocks, N_BUCKETS)

    def biases(self, query: Tensor, length: int, times: Tensor | None) -> list[Tensor]:
        assert times is not None
        following = times.gather(1, query.expand(times.shape[0], -1) + 1)
        elapsed = (following[..., None] - times[:, None, :length]).abs().clamp_min(1)
        bucket = (elapsed.float().log() / BUCKET_WIDTH).long().clamp_max(N_BUCKETS - 1)
        positions = super().biases(query, length, times)
        return [p + w[bucket] for p, w in zip(positions, self.time_bias, strict=True)]

"""TedRec: the sequence of text vectors filters the sequence of ID vectors, a product in the frequency domain.

Source: Xu et al. 2024 (CIKM, arXiv 2402.18166). Text is mapped by a mixture of experts whose shifts depend on the
position. With F the Fourier transform along a row of n positions, v the ID vectors, t the text vectors and W a filter,

    a = F^-1(W F(v)),  b = F^-1(F(t) F(v)),  x = 2 (sigmoid(a w_a + c_a) a + sigmoid(b w_b + c_b) b)

is what the sequence encoder reads; items are scored by their ID vectors only. From the authors' code: all transforms
are orthonormal, so b_j = n^-1/2 sum_s v_s t_{(j - s) mod n}, and weights are N(0, 0.02^2).

Causality. A product of transforms is a circular convolution, in which position j of a row reads later items too: the
targets of earlier positions if every position is trained. The authors train prefixes, padded on the right to n, at
their last item, where only padding wraps around (its ID vector is not zero in their code). Here both sums run over s <=
j at every position, by transforms of twice the row's length: equal to the authors' layer at the last item of a row of
up to n items but for that padding, and without the future at the others. The sums are the same for encoders that are
not causal. Rows may be longer than n; the filter then reads the last n items.

Ours. The mixture is `unisrec_moe`, with one draw of noise and dropout per item and step instead of one per event. The
shift b_k of an expert is constant, and one vector per position is added to the text of all items; the authors learn b_k
for each position. Biases of the two gates start at zero. Both views start at standard deviation 0.05 (of items with
text), and the text is divided by 0.05 before the product: b of a full row is then as large as an ID vector at
``text.out_std`` 0.05, and grows with it against them, because the seam's gain multiplies both views. ``residual`` adds
the ID vectors to the fused ones. Without them, as published, the encoder sees an item only within sums over the history
and is slow to learn: on Amazon Office with SASRec at d 64, validation NDCG@10 was .039 after 4 epochs and .052 after 9,
with ``residual`` .062 after 4. The authors use d = 300. The score is that of the bench; the authors use cosine / 0.07.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import has_text
from ._base import Adapter, Count, Preprocess, Rate, Spectrum
from .svd import COPY_STD
from .unisrec_moe import INIT_STD, UniSRecMoE


class TedRec(Adapter):
    """[V, c T], (N, 2 d): V (N, d), trainable, entries N(0, 0.05^2), the vectors by which items are scored; T, the
    table of `unisrec_moe`; the constant c gives it about the size of V. The backbone reads one vector per event.

    ``residual``: see above. ``length``: n, number of positions of the filter and of the shifts; later positions share
    the last shift. ``experts``, ``noisy``, ``dropout``, ``preprocess``: of the mixture.
    Raises ValueError if ``preprocess`` is unknown, ``experts`` is below 1 or ``dropout`` outside [0, 1).
    """

    version = 2
    views = 2
    folds = True
    fuses = True
    draws = True

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        length: Count = 50,
        residual: bool = True,
        experts: Count = 8,
        noisy: bool = True,
        dropout: Rate = 0.2,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        self.moe = UniSRecMoE(spectrum, d, experts=experts, noisy=noisy, dropout=dropout, preprocess=preprocess)
        with_text = has_text(spectrum.E)
        squares = self.moe.features[with_text].square().sum() / with_text.sum().clamp_min(1)
        size = squares.clamp_min(1e-12).item() ** 0.5
        self.scale = COPY_STD / (INIT_STD * size / experts**0.5)  # the gates start uniform: a mean of the experts
        self.table = nn.Parameter(torch.randn(self.n, d) * COPY_STD)
        self.mixer = self.mixer_of(d, {"length": length, "residual": residual})

    @classmethod
    def mixer_of(cls, d: int, params: dict[str, Any]) -> nn.Module:
        return _Filters(d, params["length"], residual=params["residual"])

    def forward(self) -> Tensor:
        return torch.cat([self.table, self.scale * self.moe()], 1)

    def rows(self, ids: Tensor) -> Tensor:
        return torch.cat([F.embedding(ids, self.table), self.scale * self.moe.rows(ids)], 1)

    def draw(self) -> None:
        self.moe.draw()

    def diagnostics(self) -> dict[str, float]:
        return self.moe.diagnostics()


class _Filters(nn.Module):
    """Map ID and text vectors side by side, (B, L, 2 d), to fused vectors (B, L, d)."""

    def __init__(self, d: int, length: int, *, residual: bool) -> None:
        super().__init__()
        self.length, self.residual = length, residual
        self.shift = nn.Parameter(torch.zeros(length, d))
        self.filter = nn.Parameter(torch.randn(length // 2 + 1, d, 2) * INIT_STD)  # real and imaginary parts
        self.gate_filter, self.gate_text = nn.Linear(d, 1), nn.Linear(d, 1)
        for gate in (self.gate_filter, self.gate_text):
            nn.init.normal_(gate.weight, std=INIT_STD)
            nn.init.zeros_(gate.bias)

    def forward(self, x: Tensor, real: Tensor, causal: bool) -> Tensor:
        v, t = x.chunk(2, -1)
        L = x.shape[1]
        t = t / COPY_STD + F.embedding(torch.arange(L, device=x.device).clamp_max(self.length - 1), self.shift)
        kernel = torch.fft.irfft(torch.view_as_complex(self.filter), n=self.length, dim=0)[:L]
        # Twice the length: no term of the circular convolutions wraps around into the first L positions
        of_v, of_t, of_kernel = (torch.fft.rfft(h, n=2 * L, dim=-2) for h in (v, t, kernel))
        a, b = (torch.fft.irfft(of_v * other, n=2 * L, dim=1)[:, :L] for other in (of_kernel, of_t))
        b = b / self.length**0.5
        fused = 2 * (torch.sigmoid(self.gate_filter(a)) * a + torch.sigmoid(self.gate_text(b)) * b)
        return v + fused if self.residual else fused

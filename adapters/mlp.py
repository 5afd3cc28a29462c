"""MLP: a feed-forward network on the frozen text, the most common adapter in the literature.

Source: the projection of RLMRec (Ren et al. 2024, arXiv 2310.15950): one hidden layer, Xavier-uniform weights. Ours:
GELU or ReLU instead of LeakyReLU, a searched hidden width instead of (D + d) / 2, and dropout. `rlmrec_con` and
`rlmrec_gen` keep RLMRec's map, with biases that start at zero.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ._base import Adapter, Count, Depth, Preprocess, Rate, Spectrum

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class MLP(Adapter):
    """T = g(... g(X W_1 + b_1) ...) W_out + b_out, (N, d), with ``layers`` hidden layers of width ``hidden``, each
    followed by ``dropout``.

    Raises ValueError if ``activation`` or ``preprocess`` is unknown or ``layers`` is below 1.
    """

    draws = True

    features: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        hidden: Count = 256,
        layers: Depth = 1,
        activation: Literal["gelu", "relu"] = "gelu",
        dropout: Rate = 0.1,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is '{activation}'; it must be one of: {', '.join(ACTIVATIONS)}")
        if layers < 1:
            raise ValueError(f"MLP needs at least 1 hidden layer, layers is {layers}")
        self.frozen_text("features", preprocess)
        steps: list[nn.Module] = []
        width = self.features.shape[1]
        for _ in range(layers):
            steps += [nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = hidden
        self.net = nn.Sequential(*steps, nn.Linear(width, d))
        self.net.apply(_xavier)

    def forward(self) -> Tensor:
        return self.net(self.read("features"))

    def rows(self, ids: Tensor) -> Tensor:
        return self.net(self.read("features", ids))


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)

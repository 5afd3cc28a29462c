"""What every adapter is given (`Spectrum`), what it owes (`Adapter`), and how its table meets an ID embedding.

Letters: N items, D text dimension, d model dimension, r rank kept; X = E - mean is the centred text matrix and
X = U diag(S) V^T its thin singular value decomposition. k views of an item are k vectors of width d side by side.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Ranges of hyper-parameters, read from the source by `harness.domains`: a wrong value is refused before any training.
Count = Annotated[int, ">= 1", "<= 65536"]
Kept = Annotated[int, ">= 1", "<= 65536", ">= d"]  # components of the text, of which d columns are made
Depth = Annotated[int, ">= 1", "<= 64"]
Rate = Annotated[float, ">= 0", "< 1"]  # of dropout
Share = Annotated[float, "> 0", "< 1"]
Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
Preprocess = Literal["raw", "center", "whiten"]
Phi = Literal["softshrink", "softmax", "identity", "none"]  # these four are of SpecTran and its ablations
Pos = Literal["taylor", "free_diag", "none"]
Start = Literal["whiten", "plain"]
Degree = Annotated[int, ">= 0", "<= 64"]


@dataclass(frozen=True)
class Interactions:
    """The training part of the sequences, for methods that start from behaviour: nothing of validation or test.

    items: (events,) int64 item indices in [0, N), one user after the other, each in order. offsets: (users + 1,) int64.
    """

    items: Tensor
    offsets: Tensor

    @classmethod
    def none(cls) -> Interactions:
        return cls(torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))

    def counts(self, n: int) -> Tensor:
        """Training events of each of n items, (n,) int64."""
        return torch.bincount(self.items, minlength=n)


@dataclass(frozen=True)
class Spectrum:
    """The frozen text of a catalogue and its spectral basis. All float32, never trained.

    U: (N, r), orthonormal columns; rows of items without text are zero. S: (r,), descending, all above the
    rank cut. V: (D, r), columns of canonical sign (largest entry positive). mean: (D,), what was taken from
    E before the decomposition (zeros if centring was off). E: (N, D), the raw embeddings.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    mean: Tensor
    E: Tensor
    interactions: Interactions = field(default_factory=Interactions.none)  # given where `Adapter.uses_interactions`

    @classmethod
    def blank(cls, n: int) -> Spectrum:
        """The spectrum of a catalogue of n items whose text nobody reads."""
        U, S, V, mean, E = (torch.zeros(shape) for shape in ((n, 0), (0,), (0, 0), (0,), (n, 0)))
        return cls(U, S, V, mean, E)

    @property
    def n(self) -> int:
        return len(self.U)

    @property
    def unit(self) -> float:
        """sqrt(N_text - 1), N_text items with text: what brings the columns of U to unit variance over them."""
        return max(int((self.E != 0).any(1).sum()) - 1, 1) ** 0.5

    @property
    def rank(self) -> int:
        return len(self.S)

    def features(self, preprocess: str) -> Tensor:
        """The text as an adapter's input: ``raw`` E (N, D), ``center`` E - mean (N, D), ``whiten`` (N, r), the
        PCA-whitened scores sqrt(N_text - 1) U, of unit variance in every column over the items with text.

        Items without text are zero rows. Raises ValueError for another word.
        """
        if preprocess == "raw":
            return self.E
        if preprocess == "center":
            return (self.E - self.mean) * (self.E != 0).any(1, keepdim=True)
        if preprocess == "whiten":
            return self.U * self.unit
        raise ValueError(f"preprocess is '{preprocess}'; it takes: raw, center, whiten")

    def affine(self, preprocess: str, B: Tensor) -> tuple[Tensor, Tensor]:
        """(W, b) with features(preprocess) @ B = E @ W + b on rows with text: B (features, d), W (D, d), b (d,).

        Computed in float64 on the CPU, returned in float32.
        """
        W = B.detach().cpu().double()
        if preprocess == "whiten":
            W = self.V.double() @ (W * (self.unit / self.S.double()).unsqueeze(1))
        b = W.new_zeros(W.shape[1]) if preprocess == "raw" else -self.mean.double() @ W
        return W.float(), b.float()


@dataclass(frozen=True)
class Step:
    """What an auxiliary loss is given of a training step of B sequences and P trained positions.

    sequences: (B, L) int64 item numbers, 0 = padding on the right, item index + 1 otherwise. users: (B,) int64, whose
    they are. states: (P, k d), what the backbone made of the trained positions. targets: (P,) int64 item indices.
    encode: item numbers (B', L') to the states (B', k d) that would rank what follows each of these sequences.
    """

    sequences: Tensor
    users: Tensor
    states: Tensor
    targets: Tensor
    encode: Callable[[Tensor], Tensor]

    def items(self) -> Tensor:
        """The different items of the step as indices, (m,) int64, ascending."""
        numbers = self.sequences.unique()
        return numbers[numbers > 0] - 1


class Adapter(nn.Module):
    """An item table computed from frozen text.

    A subclass takes ``(spectrum, d, *, <its hyper-parameters>)``; the keyword-only parameters and their defaults are
    its schema. Its constructor raises a one-sentence ValueError if it cannot build a table of width d.

    Class attributes: ``version``, raised when behaviour changes; ``uses_text``, False for controls that read no text;
    ``uses_interactions``: needs `Spectrum.interactions`; ``fuses``: combines text and ID itself, so the seam must not;
    ``encodes``: its auxiliary loss calls `Step.encode`, which backbones that read event times do not support;
    ``views``: k, the number of vectors an item has; ``by_name_only``: not part of the selection ``all`` (ablations);
    ``note``: a caution printed under tables with a row of this adapter.

    A variant that inherits its constructor can narrow it: ``fixed`` sets inherited hyper-parameters, which then leave
    constructor and schema; ``choices`` lists the values that an inherited hyper-parameter may still take.
    """

    version = 1
    uses_text = True
    uses_interactions = False
    fuses = False
    encodes = False
    views = 1
    by_name_only = False
    note = ""
    fixed: ClassVar[dict[str, Any]] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "fixed" in vars(cls):
            cls.__init__ = _with_fixed(cls.__init__, cls.fixed)

    def __init__(self, spectrum: Spectrum, d: int) -> None:
        super().__init__()
        self.spectrum = spectrum
        self.n = spectrum.n
        self.d = d
        self.mixer: nn.Module | None = None

    @classmethod
    def mixer_of(cls, d: int, params: dict[str, Any]) -> nn.Module | None:
        """What `mix` is made of where it is trained, built from the width and hyper-parameters alone: an exported model
        has no text to build the adapter with. Its ``forward`` takes what `mix` takes."""
        return None

    def forward(self) -> Tensor:
        """The table, (N, d), one row an item; (N, k d) where an item has k views."""
        raise NotImplementedError

    def rows(self, ids: Tensor) -> Tensor:
        """Rows ``ids`` (m,) int64 of the table, (m, k d). Overridden where a row costs less than the table."""
        return self()[ids]

    def mix(self, x: Tensor, real: Tensor, causal: bool) -> Tensor:
        """Item vectors of sequences, (B, L, k d), on their way into the backbone, which then reads every view alone.

        real: (B, L) bool, False on padding, which stands on the right. ``causal``: position t may read nothing after
        t. The default asks the ``mixer``; without one it changes nothing.
        """
        return x if self.mixer is None else self.mixer(x, real, causal)

    def aux(self, step: Step) -> Tensor | None:
        """An auxiliary loss, shape (), added to that of the targets, its weight included; None where there is none."""
        return None

    def linear_map(self) -> tuple[Tensor, Tensor] | None:
        """(W, b) with table = E @ W + b for items with text, where the method is such a map: W (D, d), b (d,)."""
        return None

    def diagnostics(self) -> dict[str, float]:
        """What the method can say of its own state beyond the collapse measures of its table."""
        return {}

    def frozen(self, name: str, value: Tensor) -> None:
        """Hold a fixed matrix: moves with the module, is not trained, and is not in the state_dict."""
        self.register_buffer(name, value, persistent=False)


def _with_fixed(constructor: Callable[..., None], fixed: dict[str, Any]) -> Callable[..., None]:
    """The constructor with the keyword-only parameters ``fixed`` set; they leave its signature, and passing one is a
    TypeError."""

    @functools.wraps(constructor)
    def init(self: Adapter, *args: Any, **params: Any) -> None:
        constructor(self, *args, **fixed, **params)

    signature = inspect.signature(constructor)
    free = [parameter for name, parameter in signature.parameters.items() if name not in fixed]
    vars(init)["__signature__"] = signature.replace(parameters=free)
    return init


class ItemTable(nn.Module):
    """The seam between text and backbone: scale, fuse with an ID embedding, put the padding row on top.

    ``fusion``: ``none``, ``add`` (text + id), ``gate`` (g*text + (1-g)*id, g = sigmoid([text, id] W + b)),
    ``concat`` ([text, id], each d/2 wide; the adapter is then built at d - d//2). The text part is multiplied by
    a trainable gain that starts its entries at standard deviation ``out_std``, so that no adapter is favoured
    by its initial scale. The gain is trained as its logarithm: it stays positive, and a step of the optimiser
    changes it by the same share whatever it started from. ID entries start as N(0, ``id_std``^2).
    """

    def __init__(self, adapter: Adapter, d: int, *, fusion: str, out_std: float, id_std: float) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion is '{fusion}'; it takes: {', '.join(FUSIONS)}")
        if fusion != "none" and adapter.fuses:
            raise ValueError(
                f"{type(adapter).__name__} joins text and ID itself; fusion is 'none' there, not '{fusion}'"
            )
        self.adapter, self.fusion, self.d = adapter, fusion, d
        with torch.no_grad():  # in eval mode: an adapter's dropout is no part of its scale
            std = adapter.eval()().std().clamp_min(1e-12)
            adapter.train()
        self.log_gain = nn.Parameter((out_std / std).log()) if adapter.uses_text else None
        if fusion != "none":
            self.id = nn.Parameter(torch.randn(adapter.n, widths(d, fusion)[1]) * id_std)
        if fusion == "gate":
            self.gate = nn.Linear(2 * d, d)

    @property
    def gain(self) -> Tensor | None:
        """What the text part is multiplied by, > 0, shape (); None for a control that reads no text."""
        return None if self.log_gain is None else self.log_gain.exp()

    def text(self) -> Tensor:
        """The adapter's own part at its current scale: (N, d), under ``concat`` (N, d - d//2), in k views (N, k d)."""
        return self._scaled(self.adapter())

    def forward(self) -> Tensor:
        """The table the backbone reads and is scored against, (N + 1, k d); row 0 is padding and always zero."""
        table = self.text()
        return F.pad(table if self.fusion == "none" else self._fused(table, self.id), (0, 0, 1, 0))

    def rows(self, items: Tensor) -> Tensor:
        """The rows of item numbers (m,) int64, 0 = padding, of the table that `forward` gives, (m, k d)."""
        ids = (items - 1).clamp_min(0)
        rows = self._scaled(self.adapter.rows(ids))
        if self.fusion != "none":
            rows = self._fused(rows, F.embedding(ids, self.id))
        return rows.masked_fill(items[:, None] == 0, 0.0)

    def linear_map(self) -> tuple[Tensor, Tensor] | None:
        """(W, b), W (D, k d), b (k d,): the vector e W + b of an item that is not in the catalogue, from its text e.

        It is what the row of such an item would be if its ID embedding were zero: under ``none`` the row itself, under
        ``add`` and ``concat`` its text part. None where the adapter is no linear map, and under ``gate``, whose mixture
        is none.
        """
        found = None if self.fusion == "gate" or self.gain is None else self.adapter.linear_map()
        if found is None or self.gain is None:
            return None
        id_width = self.d * self.adapter.views - found[0].shape[1]
        W, b = (F.pad(part * self.gain.detach().cpu(), (0, id_width)) for part in found)
        return W, b

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows if self.gain is None else rows * self.gain

    def _fused(self, text: Tensor, id: Tensor) -> Tensor:
        """Rows of text and of the ID embedding become rows of the table, (m, d)."""
        if self.fusion == "add":
            return text + id
        both = torch.cat([text, id], 1)
        if self.fusion == "concat":
            return both
        g = torch.sigmoid(self.gate(both))
        return g * text + (1 - g) * id


FUSIONS = ("none", "add", "gate", "concat")


def widths(d: int, fusion: str) -> tuple[int, int]:
    """Columns of the adapter's table and of the ID embedding under a fusion.

    >>> widths(64, "add"), widths(64, "concat")
    ((64, 64), (32, 32))
    """
    return (d - d // 2, d // 2) if fusion == "concat" else (d, d)

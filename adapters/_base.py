"""The input of an adapter (`Spectrum`), its base class (`Adapter`), and the fusion with an ID embedding (`ItemTable`).

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

# Ranges of hyper-parameters. `harness.domains` reads them from the source and rejects bad values before any training.
Count = Annotated[int, ">= 1", "<= 65536"]
Kept = Annotated[int, ">= 1", "<= 65536", ">= d"]  # text components, from which d columns are computed
Depth = Annotated[int, ">= 1", "<= 64"]
Rate = Annotated[float, ">= 0", "< 1"]  # dropout
Share = Annotated[float, "> 0", "< 1"]
Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
Preprocess = Literal["raw", "center", "whiten"]
Phi = Literal["softshrink", "softmax", "identity", "none"]  # these five belong to SpecTran and its ablations
Pos = Literal["taylor", "free_diag", "none"]
Start = Literal["whiten", "plain"]
Threshold = Annotated[float, ">= 0", "<= 3"]
Degree = Annotated[int, ">= 0", "<= 64"]

LEAST_STD = 1e-12  # of a table; below it is constant but for rounding
ROWS = 4096  # mapped at a time in float64, which bounds memory


@dataclass(frozen=True)
class Interactions:
    """The training part of the sequences, without validation and test events, for methods that use behaviour.

    items: (events,) int64 item indices in [0, N), user by user, each user's in order. offsets: (users + 1,) int64.
    """

    items: Tensor
    offsets: Tensor

    @classmethod
    def none(cls) -> Interactions:
        return cls(torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))

    def counts(self, n: int) -> Tensor:
        """Number of training events of each of n items, (n,) int64."""
        return torch.bincount(self.items, minlength=n)


@dataclass(frozen=True)
class Spectrum:
    """The frozen text of a catalogue and its spectral basis. All float32, never trained.

    U: (N, r), orthonormal columns; rows of items without text are zero. S: (r,), descending, all above the
    rank cut. V: (D, r), columns of canonical sign (largest entry positive). mean: (D,), subtracted from E before the
    decomposition (zeros if centring was off). E: (N, D), the raw embeddings. variants: (M, N, D), the embeddings of up
    to M texts an item, zero rows for those that an item lacks; E is then the mean of those that it has.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    mean: Tensor
    E: Tensor
    interactions: Interactions = field(default_factory=Interactions.none)  # only filled if `Adapter.uses_interactions`
    variants: Tensor | None = None

    @classmethod
    def blank(cls, n: int) -> Spectrum:
        """A spectrum of rank 0 for n items, for models that read no text."""
        U, S, V, mean, E = (torch.zeros(shape) for shape in ((n, 0), (0,), (0, 0), (0,), (n, 0)))
        return cls(U, S, V, mean, E)

    @property
    def n(self) -> int:
        return len(self.U)

    @property
    def unit(self) -> float:
        """sqrt(N_text - 1), N_text items with text: the factor that gives the columns of U unit variance over them."""
        return max(int((self.E != 0).any(1).sum()) - 1, 1) ** 0.5

    @property
    def rank(self) -> int:
        return len(self.S)

    def features(self, preprocess: str) -> Tensor:
        """The text as an adapter's input: ``raw`` E (N, D), ``center`` E - mean (N, D), ``whiten`` (N, r), the
        PCA-whitened scores sqrt(N_text - 1) U, every column of unit variance over the items with text.

        Rows of items without text are zero. Raises ValueError for any other ``preprocess``.
        """
        if preprocess == "raw":
            return self.E
        if preprocess == "center":
            return (self.E - self.mean) * (self.E != 0).any(1, keepdim=True)
        if preprocess == "whiten":
            return self.U * self.unit
        raise ValueError(f"preprocess is '{preprocess}'; it must be one of: raw, center, whiten")

    def variant_features(self, preprocess: str) -> Tensor | None:
        """The affine map from E to `features`, applied to every text of ``variants``: (M, N, width), float32.

        Its mean over the texts of an item is the item's row of `features`. Rows of texts that an item lacks are zero.
        None without variants. Computed in float64.
        """
        if self.variants is None or preprocess == "raw":
            return self.variants
        B = self.V.double() * (self.unit / self.S.double()) if preprocess == "whiten" else None
        return torch.stack([torch.cat([self._mapped(E, B) for E in text.split(ROWS)]) for text in self.variants])

    def _mapped(self, E: Tensor, B: Tensor | None) -> Tensor:
        """(E - mean) B in float32, (E - mean) without B; zero for zero rows of E (n, D)."""
        X = (E.double() - self.mean.double()) * (E != 0).any(1, keepdim=True)
        return (X if B is None else X @ B).float()

    def affine(self, preprocess: str, B: Tensor) -> tuple[Tensor, Tensor]:
        """Return (W, b) with features(preprocess) @ B = E @ W + b on rows with text: B (features, d), W (D, d), b (d,).

        Computed in float64 on the CPU, returned in float32.
        """
        W = B.detach().cpu().double()
        if preprocess == "whiten":
            W = self.V.double() @ (W * (self.unit / self.S.double()).unsqueeze(1))
        b = W.new_zeros(W.shape[1]) if preprocess == "raw" else -self.mean.double() @ W
        return W.float(), b.float()


@dataclass(frozen=True)
class Step:
    """The input of an auxiliary loss: a training step of B sequences and P trained positions.

    sequences: (B, L) int64 item numbers, 0 = padding on the right, item index + 1 otherwise. users: (B,) int64, the
    user of each sequence. states: (P, k d), the backbone's states at the trained positions. targets: (P,) int64 item
    indices. encode: maps item numbers (B', L') to the states (B', k d) from which the next items would be ranked.
    longest: the greatest L' that the backbone takes; the sequences of a step can all be shorter. epoch: number of the
    epoch, from 0, for weights that follow a schedule. ends: (B,) int64, the place in ``states`` of the state before the
    last item of each sequence, -1 for a sequence of one item; None unless the backbone trains every position of a
    sequence. candidates: (C,) int64, the items that the losses may compare with; None for all.
    """

    sequences: Tensor
    users: Tensor
    states: Tensor
    targets: Tensor
    encode: Callable[[Tensor], Tensor]
    longest: int
    epoch: int = 0
    ends: Tensor | None = None
    candidates: Tensor | None = None

    def draw(self, n: int, size: torch.Size) -> Tensor:
        """Indices of items drawn uniformly from the catalogue of n, without those that are held out of training."""
        device = self.sequences.device
        if self.candidates is None:
            return torch.randint(n, size, device=device)
        return self.candidates[torch.randint(len(self.candidates), size, device=device)]

    def items(self) -> Tensor:
        """Indices of the distinct items in the step's sequences, (m,) int64, ascending."""
        numbers = self.sequences.unique()
        return numbers[numbers > 0] - 1


class Adapter(nn.Module):
    """An item table computed from frozen text.

    A subclass takes ``(spectrum, d, *, <its hyper-parameters>)``; the keyword-only parameters and their defaults are
    its schema. Its constructor raises a one-sentence ValueError if it cannot build a table of width d.

    Class attributes: ``version``, raised when behaviour changes; ``uses_text``, False for controls that read no text;
    ``uses_interactions``: needs `Spectrum.interactions`; ``fuses``: combines text and ID itself, so the seam must not;
    ``encodes``: its auxiliary loss calls `Step.encode`, which backbones that read event times do not support;
    ``draws``: in training it reads one text of each item where items have several, see `read`; else their mean;
    ``views``: k, the number of vectors an item has; ``folds``: `mix` joins the k vectors of an event into one, the only
    one that the backbone reads, and items are scored by their first vector; ``by_name_only``: not part of the selection
    ``all`` (ablations); ``note``: a caution printed under tables with a row of this adapter.

    A variant that inherits its constructor can narrow it: ``fixed`` sets inherited hyper-parameters, which then leave
    constructor and schema; ``choices`` lists the values that an inherited hyper-parameter may still take.
    """

    version = 1
    uses_text = True
    uses_interactions = False
    fuses = False
    encodes = False
    draws = False
    views = 1
    folds = False
    by_name_only = False
    note = ""
    fixed: ClassVar[dict[str, Any]] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    text_rows: Tensor
    text_counts: Tensor

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
        self.drawn: Tensor | None = None  # of each item, the row of its text in features by variant, (N,) int64

    @classmethod
    def mixer_of(cls, d: int, params: dict[str, Any]) -> nn.Module | None:
        """The trained module behind `mix`, or None; its ``forward`` has the parameters of `mix`.

        Built from width and hyper-parameters only: an exported model has no text to build the adapter from.
        """
        return None

    def forward(self) -> Tensor:
        """The table, (N, d), one row per item; (N, k d) with k views."""
        raise NotImplementedError

    def rows(self, ids: Tensor) -> Tensor:
        """Rows ``ids`` (m,) int64 of the table, (m, k d). Override if some rows cost less than the whole table."""
        return self()[ids]

    def mix(self, x: Tensor, real: Tensor, causal: bool) -> Tensor:
        """Transform the item vectors of sequences, (B, L, k d), before the backbone encodes each view separately.

        real: (B, L) bool, False on padding, which is on the right. ``causal``: position t must not read positions
        after t. Returns (B, L, k d), or (B, L, d) if the adapter ``folds``. Calls the ``mixer``; without one the
        vectors are unchanged.
        """
        return x if self.mixer is None else self.mixer(x, real, causal)

    def aux(self, step: Step) -> Tensor | None:
        """An auxiliary loss, shape (), already weighted, added to the loss of the targets; None if there is none."""
        return None

    def linear_map(self) -> tuple[Tensor, Tensor] | None:
        """(W, b) with table = E @ W + b for items with text, W (D, d), b (d,); None if the method is no such map."""
        return None

    def diagnostics(self) -> dict[str, float]:
        """Measures of the method's state, by name, in addition to the collapse measures of its table."""
        return {}

    def frozen(self, name: str, value: Tensor) -> None:
        """Register a constant matrix: it moves with the module, is not trained, and is not in the state_dict."""
        self.register_buffer(name, value, persistent=False)

    def frozen_text(self, name: str, preprocess: str, then: Callable[[Tensor], Tensor] = lambda X: X) -> None:
        """Register ``then(features(preprocess))`` as the constant matrix `name` (N, width), to be read by `read`.

        `then` maps rows (m, features) to rows (m, width) by an affine map. Raises ValueError as `Spectrum.features`.
        """
        self.frozen(name, then(self.spectrum.features(preprocess)))
        features, texts = self.spectrum.variant_features(preprocess), self.spectrum.variants
        if features is None or texts is None:
            return
        self.frozen(f"{name}_by_variant", then(features.flatten(0, 1)))
        exists = (texts != 0).any(2)
        order = torch.sort(exists.byte(), dim=0, descending=True, stable=True).indices
        self.frozen("text_rows", order * self.n + torch.arange(self.n))  # (M, N), texts that exist before the others
        self.frozen("text_counts", exists.sum(0).clamp_min(1))

    def draw(self) -> None:
        """Draw a text for each item, which `read` uses until the next draw. Called at the start of a training step.

        Each text that an item has is equally likely. Draws from torch's global generator, and only if the adapter reads
        several texts, so other adapters train as without variants.
        """
        if "text_rows" in self._buffers:
            k = (torch.rand(self.n, device=self.text_rows.device) * self.text_counts).long()
            self.drawn = self.text_rows.gather(0, k[None])[0]

    def read(self, name: str, ids: Tensor | None = None) -> Tensor:
        """Rows ``ids`` (m,), by default all, of a matrix registered by `frozen_text`.

        In training, rows of the texts drawn last, if items have several; otherwise rows of their mean.
        """
        if self.training and self.drawn is not None:
            return getattr(self, f"{name}_by_variant")[self.drawn if ids is None else self.drawn[ids]]
        features = getattr(self, name)
        return features if ids is None else features[ids]


def _with_fixed(constructor: Callable[..., None], fixed: dict[str, Any]) -> Callable[..., None]:
    """Return the constructor with the keyword-only parameters ``fixed`` set and removed; passing one is a TypeError."""

    @functools.wraps(constructor)
    def init(self: Adapter, *args: Any, **params: Any) -> None:
        constructor(self, *args, **fixed, **params)

    signature = inspect.signature(constructor)
    free = [parameter for name, parameter in signature.parameters.items() if name not in fixed]
    vars(init)["__signature__"] = signature.replace(parameters=free)
    return init


class ItemTable(nn.Module):
    """The seam between text and backbone: scale the adapter's table, fuse it with an ID embedding, add a padding row.

    ``fusion``: ``none``, ``add`` (text + id), ``gate`` (g*text + (1-g)*id, g = sigmoid([text, id] W + b)), ``concat``
    ([text, id], each d/2 wide; the adapter is then built at d - d//2). The text part is multiplied by a trainable gain,
    initialised so that its entries have standard deviation ``out_std``: no adapter is favoured by its initial scale.
    The gain is trained as its logarithm: it stays positive, and a step of the optimiser changes it by the same ratio
    whatever its initial value. ``out_std`` holds in eval mode: of several texts per item, for the table of their mean.
    A drawn text varies more than the mean, so training begins at a larger scale. ID entries start as N(0,
    ``id_std``^2).
    Raises ValueError if ``fusion`` is unknown or not the adapter's, or its table is constant, which no gain can scale.
    """

    def __init__(self, adapter: Adapter, d: int, *, fusion: str, out_std: float, id_std: float) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion is '{fusion}'; it must be one of: {', '.join(FUSIONS)}")
        if fusion != "none" and adapter.fuses:
            raise ValueError(
                f"{type(adapter).__name__} decides how text and ID are joined; fusion must be 'none', not '{fusion}'"
            )
        self.adapter, self.fusion, self.d = adapter, fusion, d
        with torch.no_grad():  # in eval mode: dropout must not affect the measured scale
            std = adapter.eval()().std()
            adapter.train()
        if adapter.uses_text and std <= LEAST_STD:
            raise ValueError(f"{type(adapter).__name__} gives all entries of its table the same value, from this text")
        self.log_gain = nn.Parameter((out_std / std).log()) if adapter.uses_text else None
        if fusion != "none":
            self.id = nn.Parameter(torch.randn(adapter.n, widths(d, fusion)[1]) * id_std)
        if fusion == "gate":
            self.gate = nn.Linear(2 * d, d)

    @property
    def gain(self) -> Tensor | None:
        """The positive factor on the text part, shape (); None for a control that reads no text."""
        return None if self.log_gain is None else self.log_gain.exp()

    def text(self) -> Tensor:
        """The adapter's table times the gain: (N, d); (N, d - d//2) under ``concat``; (N, k d) with k views."""
        return self._scaled(self.adapter())

    def forward(self) -> Tensor:
        """The table that the backbone reads and scores against, (N + 1, k d); row 0 is padding and always zero."""
        table = self.text()
        return F.pad(table if self.fusion == "none" else self._fused(table, self.id), (0, 0, 1, 0))

    def rows(self, items: Tensor) -> Tensor:
        """Rows (m, k d) of the table of `forward` for item numbers (m,) int64, 0 = padding."""
        ids = (items - 1).clamp_min(0)
        rows = self._scaled(self.adapter.rows(ids))
        if self.fusion != "none":
            rows = self._fused(rows, F.embedding(ids, self.id))
        return rows.masked_fill(items[:, None] == 0, 0.0)

    def linear_map(self) -> tuple[Tensor, Tensor] | None:
        """(W, b), W (D, k d), b (k d,): e W + b is the vector of an item outside the catalogue with text e.

        It equals the row that the item would have with a zero ID embedding: the whole row under ``none``, its text part
        under ``add`` and ``concat``. None if the adapter is not a linear map, and under ``gate``, which is not linear.
        """
        text_map = None if self.fusion == "gate" or self.gain is None else self.adapter.linear_map()
        if text_map is None or self.gain is None:
            return None
        id_width = self.d * self.adapter.views - text_map[0].shape[1]
        W, b = (F.pad(part * self.gain.detach().cpu(), (0, id_width)) for part in text_map)
        return W, b

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows if self.gain is None else rows * self.gain

    def _fused(self, text: Tensor, id: Tensor) -> Tensor:
        """Fuse rows of the text part with rows of the ID embedding into rows of the table, (m, d)."""
        if self.fusion == "add":
            return text + id
        both = torch.cat([text, id], 1)
        if self.fusion == "concat":
            return both
        g = torch.sigmoid(self.gate(both))
        return g * text + (1 - g) * id


FUSIONS = ("none", "add", "gate", "concat")


def widths(d: int, fusion: str) -> tuple[int, int]:
    """Numbers of columns of the adapter's table and of the ID embedding under a fusion.

    >>> widths(64, "add"), widths(64, "concat")
    ((64, 64), (32, 32))
    """
    return (d - d // 2, d // 2) if fusion == "concat" else (d, d)

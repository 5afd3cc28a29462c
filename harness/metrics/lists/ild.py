"""Mean cosine distance between the text embeddings of the items of a list (0 to 2).

Mean over the pairs of a list, then over lists. Ziegler et al., "Improving recommendation lists through topic
diversification", WWW 2005; Vargas and Castells, RecSys 2011. Items without text are left out, and so are lists with
fewer than two items with text. The distance depends on the encoder: compare only rows with the same one. Rows that read
no text have no value.
"""

import numpy as np

from harness.metrics.lists._base import NOTHING, Catalogue

BLOCK = 2**22  # numbers of the embeddings in memory at a time


def ild(items: np.ndarray, catalogue: Catalogue) -> float:
    """Mean over lists (q, K) of the mean distance of their pairs; NaN without text or without a pair."""
    if catalogue.text is None:
        return float("nan")
    distances = []
    rows = max(BLOCK // max(items.shape[1] * catalogue.text.shape[1], 1), 1)
    for start in range(0, len(items), rows):
        part = items[start : start + rows]
        vectors = catalogue.text[part].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=2, keepdims=True)
        used = (norms > 0) & (part != NOTHING)[:, :, None]
        n = used.sum((1, 2))
        sums = np.divide(vectors, norms, out=np.zeros_like(vectors), where=used).sum(1)
        some = n > 1  # mean cosine of n unit vectors over their pairs: (|sum|^2 - n) / (n (n - 1))
        distances.append(1 - ((sums**2).sum(1)[some] - n[some]) / (n[some] * (n[some] - 1)))
    values = np.concatenate(distances) if distances else np.zeros(0)
    return float(values.mean()) if len(values) else float("nan")

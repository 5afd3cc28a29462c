"""SpecTran from text alone: no ID embedding is added, so that the row shows what the adapter makes of the text.

Source: ours, for SpecTran (arXiv 2601.21986, 2026), which fuses its table with an ID embedding.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranText(SpecTran):
    """`SpecTran` that takes no other ``fusion`` than none."""

    by_name_only = True
    fuses = True  # the seam shall add no ID embedding

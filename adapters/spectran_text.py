"""SpecTran from text only, without an ID embedding: shows how much the adapter extracts from the text.

Source: ours, for SpecTran (arXiv 2601.21986, 2026), which fuses its table with an ID embedding.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranText(SpecTran):
    """`SpecTran` with ``fusion`` fixed to none."""

    by_name_only = True
    fuses = True  # so the seam adds no ID embedding

"""Text: an affine map of the frozen text without an ID embedding; the text-only control and half of late fusion.

Source: the text-only models of EnsRec (2025, arXiv 2512.17820), which are trained apart from ID-only ones and averaged
with them; the map is that of `linear`.
"""

from __future__ import annotations

from .linear import Linear


class Text(Linear):
    """`Linear` that the seam never fuses with an ID embedding."""

    fuses = True
    note = "text-only control: no ID embedding, the text half of `id+text`."

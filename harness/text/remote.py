"""Encode texts on a machine that lends its GPU to the driver of a bench."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from harness.text.encoders._base import TextEncoder, Texts, encoder
from harness.types import HarnessError, Json


def encode(word: str, identity: Json, texts: Texts) -> tuple[np.ndarray, dict[str, int]]:
    """Return E, (N, D) float32, and the counts of `TextEncoder.encode_in`.

    identity: of the encoder on the driver's machine. Raises HarnessError if that of this machine differs, or as the
    encoder does: a model given as a folder must be in the same place on both.
    """
    with tempfile.TemporaryDirectory() as home:
        here = encoder(word, Path(home))
        if not isinstance(here, TextEncoder) or here.identity() != identity:
            raise HarnessError(f"'{word}' is another model on the machine with the GPU")
        return here.encode_in(Path(home), texts, lambda done, total: None)

"""Check integer matrices: reject the bits of floats and packed bits, warn about quantised numbers.

Multi-hot matrices and counts are accepted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from harness.types import HarnessError

ROWS = 1024  # sampled for the check
BITS_OF_FLOATS = 1024  # 16-bit counts and quantised numbers stay below, the bits of 1e-4 are above
EXACT = 2**24  # beyond it, float32 cannot represent every whole number
FAIR = (0.2, 0.8)  # share of ones in a bit that could be a sign
# Correlation of the two highest bits: 0 in packed bits, near -1 in numbers around the middle of their range.
APART = -0.3


def check(path: Path, matrix: np.ndarray) -> None:
    """Check the matrix (n, D) of `path`; floats pass.

    Raises HarnessError if its integers look like the bits of floats, packed bits or hashes.
    """
    if matrix.dtype.kind not in "iu" or not matrix.size:
        return
    rows = np.asarray(matrix[:: max(1, len(matrix) // ROWS)])
    size = np.abs(rows[rows != 0].astype(np.float64))
    if not len(size) or size.max() <= 1:
        return
    if matrix.dtype.itemsize == 1:
        _bytes(path, rows)
    elif matrix.dtype.itemsize == 2 and (size > BITS_OF_FLOATS).mean() > 1 / 2:
        raise HarnessError(
            f"{path} contains {matrix.dtype} that look like the bits of bfloat16 or float16, not numbers. Save them "
            "as float32, for example with E.float().numpy() in torch."
        )
    elif size.max() > EXACT:
        raise HarnessError(
            f"{path} contains {matrix.dtype} beyond {EXACT:,}: bits of floats or hashes, not an embedding. Save the "
            "numbers as float32."
        )


def _bytes(path: Path, rows: np.ndarray) -> None:
    dtype = rows.dtype
    raised = rows.view(np.uint8) ^ (0x80 if dtype.kind == "i" else 0)  # -128 stands for 0, as in bit-packing libraries
    high = np.stack([raised >> 7, raised >> 6 & 1, raised >> 5 & 1, raised >> 4 & 1]).reshape(4, -1).astype(np.float64)
    ones = high.mean(1)
    if (ones > FAIR[0]).all() and (ones < FAIR[1]).all() and np.corrcoef(high[0], high[1])[0, 1] > APART:
        offset = " (E + 128 as uint8 first)" if dtype.kind == "i" else ""
        raise HarnessError(
            f"{path} contains {dtype} that look like packed bits, 8 dimensions per number: unpack them with "
            f"np.unpackbits(E, axis=1){offset}. If they are quantised numbers, save them as float32."
        )
    message = f"{path.name} contains {dtype}, read as magnitudes. If quantised, the scale of each dimension is lost."
    print(message, file=sys.stderr, flush=True)

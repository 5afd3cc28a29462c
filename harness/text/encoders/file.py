"""A precomputed matrix: ``file:<matrix>``, as .npy, .safetensors or .parquet.

A .parquet has ids in a column ``item_id`` and one column of lists. The rows of the other two formats belong to the ids
in ``<stem>.ids.txt`` beside the matrix, one per line, or, without that file, to the rows of the raw items file.
A zero row (in .parquet also a null) means that the item has no text.
"""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import numpy as np

from harness.paths import expanded
from harness.registry import suggest
from harness.system import decoding, files
from harness.text.encoders import _integers
from harness.text.encoders._base import Encoder, Progress, Texts, file_sha256
from harness.types import HarnessError, Json


class File(Encoder):
    takes = "the path of a .npy, .safetensors or .parquet file"

    def __init__(self, argument: str, home: Path) -> None:
        """Raises HarnessError for a missing file or an unknown suffix."""
        super().__init__(argument, home)
        self.path = expanded(argument)
        if self.path.suffix not in READERS:
            hint = files.cut_at_comma(self.path) or suggest(self.path.suffix, sorted(READERS))
            raise HarnessError(f"{self.path}: '{self.path.suffix}' is not the suffix of a matrix file. {hint}")
        if self.path.is_dir():
            raise HarnessError(f"{self.path} is a folder; a matrix must be one file. Merge its parts.")
        if not self.path.is_file():
            raise HarnessError(f"{self.path}: no such file. {files.cut_at_comma(self.path)}".rstrip())
        self.sidecar = self.path.with_suffix(".ids.txt")

    def identity(self) -> Json:
        has_ids = self.path.suffix != ".parquet" and self.sidecar.is_file()  # a .parquet has its own
        ids = file_sha256(self.sidecar) if has_ids else None
        return super().identity() | {"kind": self.path.suffix, "matrix": file_sha256(self.path), "ids": ids}

    def inputs(self, texts: Texts) -> list[Any]:
        return [texts.item_ids, texts.source_rows]

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        """Raises HarnessError if the file cannot be read or its rows do not match the catalogue."""
        matrix, rows = self._rows(texts)
        E = np.zeros((len(texts), matrix.shape[1]), np.float32)
        has_row = rows >= 0
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and are reported by item later
            E[has_row] = matrix[rows[has_row]]
        if matrix.dtype.itemsize > E.itemsize:
            self._check_small(E, matrix, rows, texts)
        return E

    def match(self, texts: Texts) -> None:
        self._rows(texts)

    def _rows(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """The matrix, and its row of each item, (N,) int64, -1 for none."""
        matrix, ids = READERS[self.path.suffix](self.path)
        if matrix.ndim != 2 or not matrix.shape[1] or matrix.dtype.kind not in "fiu":
            shape = "x".join(map(str, matrix.shape))
            hint = " Is it bfloat16? Save it as float32." if matrix.dtype == np.dtype("V2") else ""
            raise HarnessError(
                f"{self.path} contains {shape or 'one'} {matrix.dtype}; it must be a 2-D array of numbers.{hint}"
            )
        _integers.check(self.path, matrix)
        if ids is None and self.sidecar.is_file():
            ids = _lines(self.sidecar)
        return matrix, self._by_row(len(matrix), texts) if ids is None else self._by_id(len(matrix), ids, texts)

    def _check_small(self, E: np.ndarray, matrix: np.ndarray, rows: np.ndarray, texts: Texts) -> None:
        """Raises HarnessError if a row (N,) of the matrix was rounded to zero, which marks an item without text."""
        for i in np.flatnonzero((rows >= 0) & ~E.any(1)):
            if matrix[rows[i]].any():
                raise HarnessError(
                    f"{self.path}: the row of item '{texts.item_ids[i]}' is too small for float32 and would be zero. "
                    "Scale the matrix."
                )

    def _by_row(self, count: int, texts: Texts) -> np.ndarray:
        """The matrix row of each item, (N,) int64, -1 for none, if rows match those of the items file."""
        if count != texts.n_source_rows:
            raise HarnessError(
                f"{self.path} has {count:,} rows, but the items file has {texts.n_source_rows:,}. Use one row per item "
                f"of that file, or put the ids of its rows in {self.sidecar.name} beside it, one per line."
            )
        return np.array([-1 if row is None else row for row in texts.source_rows])

    def _by_id(self, count: int, ids: list[str], texts: Texts) -> np.ndarray:
        """The matrix row of each item, (N,) int64, -1 for none, if each matrix row has an id."""
        if len(ids) != count:
            raise HarnessError(f"{self.path} has {count:,} rows, but {self.sidecar.name} has {len(ids):,} ids.")
        row = {item: i for i, item in enumerate(ids)}
        if len(row) != count:
            repeated = next(item for i, item in enumerate(ids) if row[item] != i)
            raise HarnessError(f"{self.path} repeats {count - len(row):,} ids, for example '{repeated}'.")
        pairs = zip(texts.item_ids, texts.texts, strict=True)
        missing = [item for item, text in pairs if text is not None and item not in row]
        if missing:
            raise HarnessError(
                f"{self.path} has no row for {len(missing):,} of {len(texts):,} items, for example '{missing[0]}'; "
                f"its {count:,} ids look like '{ids[0]}'."
            )
        return np.array([row.get(item, -1) for item in texts.item_ids])


UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, OverflowError)  # of a file with any content
Matrix = tuple[np.ndarray, list[str] | None]  # the numbers, and the ids of their rows if the file has any


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in decoding.text(path).split("\n") if line.strip()]


def _npy(path: Path) -> Matrix:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(matrix, np.ndarray):
            raise ValueError("an archive of arrays")
        return matrix, None
    except (*UNREADABLE, EOFError, MemoryError, tokenize.TokenError) as error:
        raise HarnessError(f"{path} is damaged or not a plain .npy array of numbers.") from error


def _safetensors(path: Path) -> Matrix:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # torch, because numpy has no bfloat16
            matrices = [name for name in file.keys() if len(file.get_slice(name).get_shape()) == 2]  # noqa: SIM118
            if len(matrices) != 1:
                names = f": {', '.join(matrices)}" if matrices else ""
                raise HarnessError(f"{path} has {len(matrices)} 2-D tensors{names}. It must have exactly one.")
            tensor = file.get_tensor(matrices[0])
            known = not tensor.is_floating_point() or str(tensor.dtype) in ("torch.float32", "torch.float64")
            return (tensor if known else tensor.float()).numpy(), None
    except (*UNREADABLE, SafetensorError) as error:  # torch cannot convert every type, such as floats of 4 bits
        raise HarnessError(f"{path} is damaged or not a .safetensors file of plain numbers.") from error


def _parquet(path: Path) -> Matrix:
    import polars as pl

    from harness.system import parquet

    try:
        schema = parquet.schema(path)
        lists = [name for name, dtype in schema.items() if isinstance(dtype, pl.List | pl.Array)]
        if "item_id" not in schema or len(lists) != 1:
            columns = ", ".join(schema)
            raise HarnessError(f"{path} must have a column item_id and one column of lists; it has: {columns}.")
        frame = parquet.read(path, ["item_id", lists[0]])
        inner = schema[lists[0]].inner  # type: ignore[attr-defined]
        kind = inner if inner.is_integer() or inner == pl.Float32 else pl.Float64
        return _stack(path, frame[lists[0]].cast(pl.List(kind))), frame["item_id"].cast(pl.String).to_list()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise HarnessError(f"{path} is damaged or not a .parquet file of lists of numbers.") from error


def _stack(path: Path, lists: Any) -> np.ndarray:
    """Stack a polars series of lists to a matrix, (rows, D) of their type; a null list becomes a zero row."""
    widths = lists.list.len().drop_nulls().unique().sort().to_list()
    if len(widths) != 1 or widths[0] == 0:
        raise HarnessError(f"{path}: the lists of column {lists.name} must have one length, not {widths}.")
    numbers = lists.drop_nulls().explode().to_numpy()  # float, with NaN, if a number is null
    matrix = np.zeros((len(lists), widths[0]), numbers.dtype)
    matrix[lists.is_not_null().to_numpy()] = numbers.reshape(-1, widths[0])
    return matrix


READERS = {".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}

"""A matrix that somebody else made: ``file:<matrix>``, as .npy, .safetensors or .parquet.

A .parquet carries ids in a column ``item_id`` beside one column of lists. The rows of the other two belong to the
ids of ``<stem>.ids.txt`` beside the matrix, one a line, or, without that file, to the rows of the raw items file.
A zero row (in .parquet also a null) says that the item has no text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.registry import suggest
from harness.system import decoding, files
from harness.text.encoders import _integers
from harness.text.encoders._base import Encoder, Progress, Texts, file_sha256
from harness.types import HarnessError


class File(Encoder):
    takes = "the path of a .npy, .safetensors or .parquet file"

    def __init__(self, argument: str, home: Path) -> None:
        """Raises HarnessError for a missing file or an unknown suffix."""
        super().__init__(argument, home)
        self.path = Path(argument).expanduser()
        if self.path.suffix not in READERS:
            known = files.cut_at_comma(self.path) or suggest(self.path.suffix, sorted(READERS))
            raise HarnessError(f"{self.path}: a matrix file does not end in '{self.path.suffix}'. {known}")
        if self.path.is_dir():
            raise HarnessError(f"{self.path} is a folder; a matrix is one file. Write its parts as one.")
        if not self.path.is_file():
            raise HarnessError(f"{self.path}: there is no such file. {files.cut_at_comma(self.path)}".rstrip())
        self.sidecar = self.path.with_suffix(".ids.txt")

    def identity(self) -> dict[str, Any]:
        ids = file_sha256(self.sidecar) if self.sidecar.is_file() else None
        return super().identity() | {"kind": self.path.suffix, "matrix": file_sha256(self.path), "ids": ids}

    def inputs(self, texts: Texts) -> list[Any]:
        return [texts.item_ids, texts.source_rows]

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        """Raises HarnessError if the file cannot be read or its rows are not those of the catalogue."""
        matrix, ids = READERS[self.path.suffix](self.path)
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            shape = "x".join(map(str, matrix.shape))
            hint = " Is it bfloat16? Save it as float32." if matrix.dtype == np.dtype("V2") else ""
            raise HarnessError(
                f"{self.path} holds {shape or 'one'} {matrix.dtype}; it must be a 2-D array of numbers.{hint}"
            )
        _integers.check(self.path, matrix)
        if ids is None and self.sidecar.is_file():
            ids = _lines(self.sidecar)
        rows = self._by_row(len(matrix), texts) if ids is None else self._by_id(len(matrix), ids, texts)
        E = np.zeros((len(texts), matrix.shape[1]), np.float32)
        has_row = rows >= 0
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused by name later
            E[has_row] = matrix[rows[has_row]]
        if matrix.dtype.itemsize > E.itemsize:
            self._check_small(E, matrix, rows, texts)
        return E

    def _check_small(self, E: np.ndarray, matrix: np.ndarray, rows: np.ndarray, texts: Texts) -> None:
        """Raises HarnessError if a row (N,) of the matrix became zero, which stands for an item without text."""
        for i in np.flatnonzero((rows >= 0) & ~E.any(1)):
            if matrix[rows[i]].any():
                raise HarnessError(
                    f"{self.path}: the row of item '{texts.item_ids[i]}' is too small for float32 and would be zero. "
                    "Scale the matrix."
                )

    def _by_row(self, count: int, texts: Texts) -> np.ndarray:
        """The matrix row of each item, (N,) int64, -1 for none, where rows are those of the items file."""
        if count != texts.n_source_rows:
            raise HarnessError(
                f"{self.path} has {count:,} rows, but the items file has {texts.n_source_rows:,}. Give it one row an "
                f"item of that file, or the ids of its rows in {self.sidecar.name} beside it, one a line."
            )
        return np.array([-1 if row is None else row for row in texts.source_rows])

    def _by_id(self, count: int, ids: list[str], texts: Texts) -> np.ndarray:
        """The matrix row of each item, (N,) int64, -1 for none, where each matrix row has an id."""
        if len(ids) != count:
            raise HarnessError(f"{self.path} has {count:,} rows, but {self.sidecar.name} has {len(ids):,} ids.")
        row = {item: i for i, item in enumerate(ids)}
        if len(row) != count:
            twice = next(item for i, item in enumerate(ids) if row[item] != i)
            raise HarnessError(f"{self.path} has {count - len(row):,} ids more than once, for example '{twice}'.")
        pairs = zip(texts.item_ids, texts.texts, strict=True)
        missing = [item for item, text in pairs if text is not None and item not in row]
        if missing:
            raise HarnessError(
                f"{self.path} has no row for {len(missing):,} of {len(texts):,} items, for example '{missing[0]}'; "
                f"its {count:,} ids are like '{ids[0]}'."
            )
        return np.array([row.get(item, -1) for item in texts.item_ids])


Matrix = tuple[np.ndarray, list[str] | None]  # the numbers, and the ids of their rows if the file has them


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in decoding.text(path).split("\n") if line.strip()]


def _npy(path: Path) -> Matrix:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(matrix, np.ndarray):
            raise ValueError("an archive of arrays")
        return matrix, None
    except (ValueError, EOFError, OSError) as error:
        raise HarnessError(f"{path} is no plain .npy array of numbers, or it is damaged.") from error


def _safetensors(path: Path) -> Matrix:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # torch, because numpy has no bfloat16
            matrices = [name for name in file.keys() if len(file.get_slice(name).get_shape()) == 2]  # noqa: SIM118
            if len(matrices) != 1:
                named = f": {', '.join(matrices)}" if matrices else ""
                raise HarnessError(f"{path} has {len(matrices)} 2-D tensors{named}. It must have one.")
            tensor = file.get_tensor(matrices[0])
            return (tensor.float() if tensor.is_floating_point() else tensor).numpy(), None
    except (SafetensorError, OSError) as error:
        raise HarnessError(f"{path} is no .safetensors file, or it is damaged.") from error


def _parquet(path: Path) -> Matrix:
    import polars as pl

    try:
        schema = pl.read_parquet_schema(path)
        lists = [name for name, dtype in schema.items() if isinstance(dtype, pl.List | pl.Array)]
        if "item_id" not in schema or len(lists) != 1:
            columns = ", ".join(schema)
            raise HarnessError(f"{path} must have a column item_id and one column of lists; it has: {columns}.")
        frame = pl.read_parquet(path, columns=["item_id", lists[0]])
        inner = schema[lists[0]].inner  # type: ignore[attr-defined]
        kind = inner if inner.is_integer() else pl.Float32
        return _stack(path, frame[lists[0]].cast(pl.List(kind))), frame["item_id"].cast(pl.String).to_list()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise HarnessError(f"{path} is no .parquet file of lists of numbers, or it is damaged.") from error


def _stack(path: Path, lists: Any) -> np.ndarray:
    """The matrix of a polars series of lists, (rows, D) in their type; a null list is a zero row."""
    widths = lists.list.len().drop_nulls().unique().sort().to_list()
    if len(widths) != 1 or widths[0] == 0:
        raise HarnessError(f"{path}: the lists of column {lists.name} must be of one length; they have: {widths}.")
    numbers = lists.drop_nulls().explode().to_numpy()  # float, with NaN, where one of them is null
    matrix = np.zeros((len(lists), widths[0]), numbers.dtype)
    matrix[lists.is_not_null().to_numpy()] = numbers.reshape(-1, widths[0])
    return matrix


READERS = {".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}

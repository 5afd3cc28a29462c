"""Keep finished rows of an embedding on disk, so that a killed run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.system import files


class Parts:
    """The first rows of a matrix with one row per text of `order`, in a folder, one float32 .npy file per part.

    A part is named by its first row and a seal over the folder's name (the key of the embedding), its texts and its
    numbers. A file with a wrong seal is damaged or foreign: it and all later parts are ignored. ``done``: number of
    rows present; ``width``: their D, 0 while there are none.
    """

    def __init__(self, folder: Path, order: list[str]) -> None:
        self.folder, self.order = folder, order
        self.done, self.width = 0, 0
        self.paths: list[Path] = []
        for path in self._files():
            rows = self._read(path)
            if rows is not None:
                self._count(path, rows)

    def prune(self) -> None:
        """Delete ignored files."""
        for path in set(self._files()) - set(self.paths):
            path.unlink()

    def add(self, rows: np.ndarray) -> None:
        """Append the next rows, (n, D) float32."""
        path = self.folder / f"{self.done:09d}-{self._seal(self.done, rows)}.npy"
        with files.atomic(path) as temporary:
            np.save(temporary, rows, allow_pickle=False)
        self._count(path, rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The parts in order, memory-mapped."""
        for path in self.paths:
            yield np.load(path, mmap_mode="r", allow_pickle=False)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.npy"))

    def _count(self, path: Path, rows: np.ndarray) -> None:
        self.done += len(rows)
        self.width = rows.shape[1]
        self.paths.append(path)

    def _read(self, path: Path) -> np.ndarray | None:
        named = re.fullmatch(r"(\d{9})-([0-9a-f]{24})\.npy", path.name)
        if named is None or int(named[1]) != self.done:
            return None
        try:
            rows = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = rows.ndim == 2 and rows.dtype == np.float32 and 0 < len(rows) <= len(self.order) - self.done
        fits = fits and (not self.done or rows.shape[1] == self.width)
        return rows if fits and self._seal(self.done, rows) == named[2] else None

    def _seal(self, start: int, rows: np.ndarray) -> str:
        about = [self.folder.name, list(rows.shape), self.order[start : start + len(rows)]]
        seal = hashlib.sha256(json.dumps(about).encode())
        seal.update(np.ascontiguousarray(rows).data)
        return seal.hexdigest()[:24]

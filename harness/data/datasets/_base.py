"""Base class of the built-in data sets: download and check the sources, build the folder once, trust on first use.

Each data set's module defines where its files are (`sources`) and how they are read (`build`).
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.data import fetch
from harness.system import decoding, files
from harness.types import HarnessError

LOCK_HEADER = (
    "# sha256 of files whose hosts publish none, recorded at first use.\n"
    "# If a host has published a new version of a file: delete its line here and the file.\n"
)


@dataclass(frozen=True)
class Source:
    """A file to download. `file`: its path under <home>/downloads. `urls`: mirrors, in the order they are tried.
    `sha256` (hex), None if nobody publishes it: then it is recorded at first use."""

    file: str
    urls: tuple[str, ...]
    sha256: str | None = None


class DataSet:
    """A data set built from downloaded files. Subclasses set the attributes and override `sources` and `build`.

    A class for several data sets has a literal `variants = ("beauty", "toys")` and takes one of them as its argument;
    they are named `<file name>-<variant>`.
    """

    name: str
    text = "{title}"
    licence = ""
    citation = ""
    page = ""
    sparse_ratings = False  # whether events without a rating are meant so; --min-rating drops them

    def folder(self, home: Path) -> Path:
        return home / "data" / self.name

    def ready(self, home: Path) -> bool:
        return all((self.folder(home) / f"{part}.parquet").is_file() for part in ("interactions", "items"))

    def sources(self) -> dict[str, Source]:
        """Return the files by the keys that `build` uses."""
        raise NotImplementedError

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """Write interactions.parquet and items.parquet into `folder`.

        Raises HarnessError if the files have an unexpected form.
        """
        raise NotImplementedError

    def fetch(self, home: Path) -> Path:
        """Return the folder with interactions.parquet (user_id, item_id str, timestamp seconds, ...) and
        items.parquet (item_id, title str, ...), built if missing, by one process at a time.

        Raises HarnessError if no source can be reached, the disk is full, or a downloaded file has an unexpected form.
        """
        folder = self.folder(home)
        with fetch.lock(folder):
            if self.ready(home):
                return folder
            if folder.exists():
                raise HarnessError(
                    f"{folder} lacks interactions.parquet or items.parquet; delete the folder and rerun."
                )
            for left in folder.parent.glob(f".{self.name}.*"):
                if left.is_dir():  # left by a killed process, since this one has the lock
                    shutil.rmtree(left, ignore_errors=True)
            print(f"{self.name}: {self.licence}. Cite: {self.citation}", file=sys.stderr)
            hashes = self._recorded(home)
            paths = {part: self._get(part, hashes, home) for part in self.sources()}
            try:
                files.build_folder(folder, lambda new: self.build(paths, new))
            except OSError as error:
                raise HarnessError(f"{folder} cannot be written: {error.strerror or error}.") from error
            self._record(paths, hashes, home)  # only after reading, so that no truncated file's hash is recorded
        return folder

    def _get(self, part: str, hashes: dict[str, str], home: Path) -> Path:
        source = self.sources()[part]
        target = home / "downloads" / source.file
        try:
            return fetch.download(list(source.urls), source.sha256 or hashes.get(source.file), target)
        except fetch.FetchError as error:
            note = self._also_needed(part, home) + (f"See {self.page}." if self.page else "")
            if source.file in hashes and any("sha256" in reason for reason in error.tried):
                note += f" Its sha256 was recorded in {self._lock_file(home)} at first use."
            raise fetch.FetchError(target, error.tried, note.strip()) from error

    def _also_needed(self, part: str, home: Path) -> str:
        """Return a sentence for each other missing file, so that a user can get all of them by hand at once."""
        others = [(source, home / "downloads" / source.file) for key, source in self.sources().items() if key != part]
        return "".join(
            f"{self.name} also needs {source.urls[0] if source.urls else target.name}, at {target}. "
            for source, target in others
            if not target.exists()
        )

    def _lock_file(self, home: Path) -> Path:
        return home / "data" / "locks" / f"{self.name}.toml"

    def _recorded(self, home: Path) -> dict[str, str]:
        """Return file -> sha256 as recorded at first use."""
        path = self._lock_file(home)
        try:
            hashes = decoding.toml(decoding.text(path)) if path.is_file() else {}
        except ValueError as error:
            raise HarnessError(f"{path}: not TOML: {error}.") from None
        for file, sha256 in hashes.items():
            if not isinstance(sha256, str) or len(sha256) != 64:
                raise HarnessError(f"{path}: '{file}' must be a sha256 of 64 hex digits.")
        return hashes

    def _record(self, paths: dict[str, Path], hashes: dict[str, str], home: Path) -> None:
        sources = self.sources()
        new = {
            sources[part].file: files.sha256(path)
            for part, path in paths.items()
            if sources[part].sha256 is None and sources[part].file not in hashes
        }
        if new:
            lines = [f'"{file}" = "{sha256}"\n' for file, sha256 in sorted((hashes | new).items())]
            files.write_text(self._lock_file(home), LOCK_HEADER + "".join(lines))

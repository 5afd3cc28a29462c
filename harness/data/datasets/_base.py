"""What the data sets share: sources with their hashes, the folder that is built once, trust on first use.

A data set's own file says where its files are (`sources`) and how they are read (`build`).
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from harness.data import fetch
from harness.system import decoding, files
from harness.types import HarnessError

LOCK_HEADER = (
    "# sha256 of files whose hosts publish none, as they were at the first use.\n"
    "# Where a host has published a file anew: delete its line here and the file.\n"
)


@dataclass(frozen=True)
class Source:
    """A file to fetch. `file`: its place under <home>/downloads. `urls`: mirrors, in the order they are asked.
    `sha256` (hex), None where no one publishes it: then the first use is trusted and noted."""

    file: str
    urls: tuple[str, ...]
    sha256: str | None = None


class DataSet:
    """A data set that is made of downloaded files. Subclasses set the attributes and override `sources`, `build`.

    One class for several data sets has a literal `variants = ("beauty", "toys")` and takes one of them; their names
    are `<file name>-<variant>`.
    """

    name: str
    text = "{title}"
    licence = ""
    citation = ""
    page = ""

    def folder(self, home: Path) -> Path:
        return home / "data" / self.name

    def ready(self, home: Path) -> bool:
        return all((self.folder(home) / f"{part}.parquet").is_file() for part in ("interactions", "items"))

    def sources(self) -> dict[str, Source]:
        """The files by the names that `build` knows them by."""
        raise NotImplementedError

    def build(self, found: dict[str, Path], folder: Path) -> None:
        """Write interactions.parquet and items.parquet into `folder`. Raises HarnessError if the files are not the
        data set."""
        raise NotImplementedError

    def fetch(self, home: Path) -> Path:
        """The folder that holds interactions.parquet (user_id, item_id str, timestamp i64 seconds, ...) and
        items.parquet (item_id, title str, ...), made if need be; by one process where several want it.

        Raises HarnessError if no source can be reached, the disk is full, or what came is not the data set.
        """
        folder = self.folder(home)
        with fetch.lock(folder):
            if self.ready(home):
                return folder
            if folder.exists():
                raise HarnessError(
                    f"{folder} lacks interactions.parquet or items.parquet; delete the folder and run again."
                )
            for left in folder.parent.glob(f".{self.name}.*"):
                if left.is_dir():  # of a process that was killed: we hold the lock
                    shutil.rmtree(left, ignore_errors=True)
            print(f"{self.name}: {self.licence}. Cite: {self.citation}", file=sys.stderr)
            noted = self._noted(home)
            found = {part: self._get(part, noted, home) for part in self.sources()}
            try:
                files.build_folder(folder, lambda new: self.build(found, new))
            except OSError as error:
                raise HarnessError(f"{folder} cannot be written: {error.strerror or error}.") from error
            self._note(found, noted, home)  # not before it has been read: a truncated file must not be the measure
        return folder

    def _get(self, part: str, noted: dict[str, str], home: Path) -> Path:
        source = self.sources()[part]
        target = home / "downloads" / source.file
        try:
            return fetch.download(list(source.urls), source.sha256 or noted.get(source.file), target)
        except fetch.FetchError as error:
            note = self._also_needed(part, home) + (f"See {self.page}." if self.page else "")
            if source.file in noted and any("sha256" in reason for reason in error.tried):
                note += f" Its sha256 was noted in {self._lock_file(home)} at the first use."
            raise fetch.FetchError(target, error.tried, note.strip()) from error

    def _also_needed(self, part: str, home: Path) -> str:
        """A sentence for each other file that is not there yet, so that all can be got by hand at once."""
        others = [(source, home / "downloads" / source.file) for key, source in self.sources().items() if key != part]
        return "".join(
            f"{self.name} also needs {source.urls[0] if source.urls else target.name}, at {target}. "
            for source, target in others
            if not target.exists()
        )

    def _lock_file(self, home: Path) -> Path:
        return home / "data" / "locks" / f"{self.name}.toml"

    def _noted(self, home: Path) -> dict[str, str]:
        path = self._lock_file(home)
        try:
            noted = tomllib.loads(decoding.text(path)) if path.is_file() else {}
        except tomllib.TOMLDecodeError as error:
            raise HarnessError(f"{path}: not TOML: {error}.") from None
        for file, sha256 in noted.items():
            if not isinstance(sha256, str) or len(sha256) != 64:
                raise HarnessError(f"{path}: '{file}' must be a sha256 in 64 hex digits.")
        return noted

    def _note(self, found: dict[str, Path], noted: dict[str, str], home: Path) -> None:
        sources = self.sources()
        new = {
            sources[part].file: files.sha256(path)
            for part, path in found.items()
            if sources[part].sha256 is None and sources[part].file not in noted
        }
        if new:
            lines = [f'"{file}" = "{sha256}"\n' for file, sha256 in sorted((noted | new).items())]
            files.write_text(self._lock_file(home), LOCK_HEADER + "".join(lines))

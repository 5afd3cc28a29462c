"""The folder that `harness publish` writes: its layout, and how it is read, checked and opened as a ledger.

README.md, manifest.json            what it is; sha256 of every other file, versions, hashes, runs
leaderboard.{md,csv,parquet,html}   the newest table; further ones lie in tables/<key>/
trials.parquet                      every trial of that table
studies/<run>.toml                  study file of a launch, or its recorded options if it had none
ranks/<trial>.parquet               user, low, high of each test target (i32)
spectra/<trial>.json                singular values of the item table, over the largest
ledger/<run>.jsonl.gz               segments, redacted
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from harness.record import artifacts
from harness.record.artifacts import ArtifactSources
from harness.record.ledger import Ledger
from harness.system.files import sha256
from harness.types import HarnessError, Json

MANIFEST, README = "manifest.json", "README.md"
KIND, FORMAT = "harness publication", 1
SEGMENT = ".jsonl.gz"
NAME = re.compile(r"[\w-]+")  # of runs and trials: they become file names


@dataclass(frozen=True)
class Publication:
    """A published folder and its manifest."""

    folder: Path
    manifest: Json

    @property
    def files(self) -> dict[str, str]:
        """Name, with slashes, -> sha256."""
        return self.manifest["files"]

    @property
    def seal(self) -> str:
        """The sha256 of the manifest, which fixes all other files."""
        return sha256(self.folder / MANIFEST)

    def named(self, kind: str, suffix: str) -> dict[str, Path]:
        """Stem -> path of the files of a subfolder that end with `suffix`."""
        folder = self.folder / kind
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(suffix)) if folder.is_dir() else []
        found = {path.name.removesuffix(suffix): path for path in paths}
        return {name: path for name, path in found.items() if NAME.fullmatch(name)}

    def segment(self, path: Path) -> bytes:
        """Return the lines of a segment. Raises HarnessError if it is no whole gzip file."""
        try:
            return gzip.decompress(path.read_bytes())
        except (OSError, EOFError, ValueError) as error:
            raise HarnessError(f"{path} cannot be read ({error}); run: harness verify {self.folder}") from error
        except Exception as error:  # zlib.error has no common base with the others
            raise HarnessError(f"{path} is damaged ({error}); run: harness verify {self.folder}") from error

    def sources(self) -> ArtifactSources:
        """Return the readers of ranks and spectra. A publication has no facts about test targets."""
        return ArtifactSources(self.ranks, spectra=self._spectra)

    def ranks(self, trial_id: str):
        """Return user, low, high of a trial, or None if the file is missing or damaged."""
        try:
            return artifacts.parse_ranks((self.folder / "ranks" / f"{trial_id}.parquet").read_bytes())
        except Exception:  # Polars raises several kinds; a missing run is then a named difference of the table
            return None

    def _spectra(self, trial_id: str) -> dict[str, list[float]] | None:
        try:
            return artifacts.parse_spectra((self.folder / "spectra" / f"{trial_id}.json").read_bytes())
        except OSError:
            return None

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Open the segments, unpacked to a temporary folder, as a ledger. It can be read inside the block only."""
        with TemporaryDirectory(prefix="harness-publication-") as temporary:
            home = Path(temporary)
            (home / "ledger").mkdir()
            for run, path in self.named("ledger", SEGMENT).items():
                (home / "ledger" / f"{run}.jsonl").write_bytes(self.segment(path))
            yield Ledger.open(home)


def find(folder: Path) -> Publication:
    """Return the publication in a folder. Raises HarnessError if it is none, or of a newer version."""
    hint = f"A publication is a folder with {MANIFEST} that harness publish wrote."
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise HarnessError(f"{folder} is no publication: it has no {MANIFEST}. {hint}") from None
    except OSError as error:
        raise HarnessError(f"{folder / MANIFEST} cannot be read: {error.strerror}.") from error
    except ValueError:
        raise HarnessError(f"{folder} is no publication: its {MANIFEST} is no JSON. {hint}") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND or not isinstance(manifest.get("files"), dict):
        raise HarnessError(f"{folder} is no publication: its {MANIFEST} is of something else. {hint}")
    if not isinstance(manifest.get("format"), int):
        raise HarnessError(f"{folder} is no publication: its {MANIFEST} has no format. {hint}")
    if manifest["format"] > FORMAT:
        raise HarnessError(f"{folder} has format {manifest['format']}, this harness reads {FORMAT}; update harness.")
    return Publication(folder, manifest)


def faults(publication: Publication) -> list[str]:
    """Name every file that is missing, changed, or not in the manifest."""
    folder, files = publication.folder, publication.files
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    found = []
    for name, expected in sorted(files.items()):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or (folder / name).is_symlink():
            found.append(f"{name}: lies outside the folder")
        elif name not in present:
            found.append(f"{name}: missing")
        elif sha256(folder / name) != expected:
            found.append(f"{name}: changed (sha256 differs from {MANIFEST})")
    return found + [f"{name}: extra, not in {MANIFEST}" for name in sorted(present - files.keys() - {MANIFEST})]

"""Any sentence-transformers model, by hub id (``st:<id>`` or ``st:<id>@<revision>``) or by folder (``st:<folder>``).

Pooling, normalisation and prompts come from the model (Reimers & Gurevych, Sentence-BERT, EMNLP 2019). The
transformer's weights are read only from safetensors; of layers on top (Dense), which models may hold as a file of
torch, only tensors are read. Code shipped with a model is never run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.paths import expanded
from harness.text.encoders._base import Job, Progress, TextEncoder, Texts, file_sha256, hub_commit
from harness.types import HarnessError, Json

CHUNK = 512  # texts between progress reports
BATCH = 32
SPECIAL = 8  # max tokens that a model adds around a text


class SentenceTransformers(TextEncoder):
    takes = "a sentence-transformers model id or folder"
    uses_gpu = True

    def identity(self) -> Json:
        """A folder is identified by its files' sha256, a hub model by its id and commit.

        Raises HarnessError if the argument is not a folder and neither the local cache nor the hub knows its commit;
        ``st:<id>@<commit>`` needs neither.
        """
        folder = expanded(self.argument)
        if folder.is_dir():
            return super().identity() | {"files": _folder_sha256(folder)}
        commit = hub_commit(self.word, self.argument)
        return super().identity() | {"model": self.argument.partition("@")[0], "commit": commit}

    def job(self, distinct: list[str]) -> Job:
        """Raises HarnessError if the model cannot be loaded."""
        folder = expanded(self.argument)
        if folder.is_dir():
            return job(load_model(str(folder), self.word), distinct)
        commit = hub_commit(self.word, self.argument)
        return job(load_model(self.argument.partition("@")[0], self.word, commit), distinct)


def load_model(model: str, word: str, commit: str | None = None) -> Any:
    """Load a SentenceTransformer, from a folder (offline) or the hub at a commit. Raises HarnessError on failure."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return SentenceTransformer(
            model, revision=commit, local_files_only=commit is None, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise HarnessError(f"'{word}' cannot be loaded by sentence-transformers: {reason}") from error


def job(model: Any, distinct: list[str]) -> Job:
    """Prepare the encoding of texts by a loaded model, `CHUNK` at a time; the model truncates long texts itself."""

    def batches(start: int) -> Iterator[np.ndarray]:
        for first in range(start, len(distinct), CHUNK):
            chunk = distinct[first : first + CHUNK]
            yield model.encode(chunk, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)

    limit = getattr(model, "max_seq_length", None)
    if not isinstance(limit, int):  # None or infinite
        return Job(distinct, batches)
    return Job(distinct, batches, _longer(model.tokenizer, distinct, limit), f"{limit:,} tokens")


def _longer(tokenizer: Any, texts: list[str], limit: int) -> int:
    """Number of texts with more than `limit` tokens."""
    # a token is at least one byte, so most texts are known to be short without tokenizing
    doubtful = [text for text in texts if len(text.encode()) + SPECIAL > limit]
    count = 0
    for start in range(0, len(doubtful), CHUNK):
        ids = tokenizer(doubtful[start : start + CHUNK], truncation=False, padding=False, verbose=False)["input_ids"]
        count += sum(len(row) > limit for row in ids)
    return count


def encode_texts(model: Any, texts: Texts, progress: Progress) -> np.ndarray:
    """Encode texts by a loaded model: E, (N, D) float32. Raises HarnessError if no item has text."""

    class Loaded(TextEncoder):
        def job(self, distinct: list[str]) -> Job:
            return job(model, distinct)

    return Loaded("", Path()).encode(texts, progress)


def _folder_sha256(folder: Path) -> dict[str, str]:
    """Relative name -> sha256 of the files in a model folder, except hidden files and the model card."""
    names = sorted(path.relative_to(folder) for path in _files(folder) if path.suffix != ".md")
    return {name.as_posix(): file_sha256(folder / name) for name in names}


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden, also in linked folders; a link to one `above` is skipped."""
    real = folder.resolve()
    if real in above or not os.access(folder, os.R_OK | os.X_OK):
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path, above | {real})
        elif path.is_file():
            yield path

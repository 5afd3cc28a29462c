"""Any sentence-transformers model, by hub id (``st:<id>`` or ``st:<id>@<revision>``) or by folder (``st:<folder>``).

Pooling, normalisation and prompts are the model's own (Reimers & Gurevych, Sentence-BERT, EMNLP 2019). Weights are
read from safetensors alone; code that a model brings along is never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.text.encoders._base import Job, Progress, TextEncoder, Texts, file_sha256, hub_commit
from harness.types import HarnessError

CHUNK = 512  # texts between two reports of progress
BATCH = 32
SPECIAL = 8  # tokens at most that a model sets around a text


class SentenceTransformers(TextEncoder):
    takes = "a sentence-transformers model id or folder"

    def identity(self) -> dict[str, Any]:
        """A folder is known by its files' sha256, a hub model by its id and commit.

        Raises HarnessError if the argument is no folder and its commit can be learnt neither from the local cache
        nor from the hub; ``st:<id>@<commit>`` needs neither.
        """
        folder = Path(self.argument).expanduser()
        if folder.is_dir():
            return super().identity() | {"files": _folder_sha256(folder)}
        commit = hub_commit(self.word, self.argument)
        return super().identity() | {"model": self.argument.partition("@")[0], "commit": commit}

    def job(self, distinct: list[str]) -> Job:
        """Raises HarnessError if the model cannot be loaded."""
        folder = Path(self.argument).expanduser()
        if folder.is_dir():
            return job(load_model(str(folder), self.word), distinct)
        commit = hub_commit(self.word, self.argument)
        return job(load_model(self.argument.partition("@")[0], self.word, commit), distinct)


def load_model(model: str, word: str, commit: str | None = None) -> Any:
    """A SentenceTransformer of a folder, never online, or of a hub id at a commit. Raises HarnessError if it fails."""
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
    """The encoding of texts by a loaded model, `CHUNK` at a time; the model itself cuts what is too long for it."""

    def batches(start: int) -> Iterator[np.ndarray]:
        for first in range(start, len(distinct), CHUNK):
            chunk = distinct[first : first + CHUNK]
            yield model.encode(chunk, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)

    limit = getattr(model, "max_seq_length", None)
    if not isinstance(limit, int):  # none, or infinite
        return Job(distinct, batches)
    return Job(distinct, batches, _longer(model.tokenizer, distinct, limit), f"{limit:,} tokens")


def _longer(tokenizer: Any, texts: list[str], limit: int) -> int:
    """How many of the texts come to more than `limit` tokens."""
    # a token is a byte or more, so that most texts are seen to be short without being taken apart
    doubtful = [text for text in texts if len(text.encode()) + SPECIAL > limit]
    count = 0
    for start in range(0, len(doubtful), CHUNK):
        ids = tokenizer(doubtful[start : start + CHUNK], truncation=False, padding=False, verbose=False)["input_ids"]
        count += sum(len(row) > limit for row in ids)
    return count


def encode_texts(model: Any, texts: Texts, progress: Progress) -> np.ndarray:
    """E, (N, D) float32, by a loaded model. Raises HarnessError if no item has text."""

    class Loaded(TextEncoder):
        def job(self, distinct: list[str]) -> Job:
            return job(model, distinct)

    return Loaded("", Path()).encode(texts, progress)


def _folder_sha256(folder: Path) -> dict[str, str]:
    """Relative name -> sha256 of what a model folder holds, but for hidden files and its card."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    shown = sorted(name for name in names if not any(part.startswith(".") for part in name.parts))
    return {name.as_posix(): file_sha256(folder / name) for name in shown}

"""Any sentence-transformers model, by hub id (``st:<id>`` or ``st:<id>@<revision>``) or by folder (``st:<folder>``).

Pooling, normalisation and prompts are the model's own (Reimers & Gurevych, Sentence-BERT, EMNLP 2019). Weights are
read from safetensors alone; code that a model brings along is never run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from harness.encoders._base import Encoder, Progress, Texts, file_sha256
from harness.types import HarnessError

CHUNK = 512  # texts between two reports of progress
BATCH = 32


class SentenceTransformers(Encoder):
    takes = "a sentence-transformers model id or folder"

    def identity(self) -> dict[str, Any]:
        """A folder is known by its files' sha256, a hub model by its id and commit.

        Raises HarnessError if the argument is no folder and its commit can be learnt neither from the local cache
        nor from the hub; ``st:<id>@<commit>`` needs neither.
        """
        folder = Path(self.argument).expanduser()
        if folder.is_dir():
            return super().identity() | {"files": _folder_sha256(folder)}
        return super().identity() | {"model": self.argument.partition("@")[0], "commit": self._commit()}

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        """Raises HarnessError if the model cannot be loaded or no item has text."""
        folder = Path(self.argument).expanduser()
        if folder.is_dir():
            return encode_texts(load_model(str(folder), self.word), texts, progress)
        model = load_model(self.argument.partition("@")[0], self.word, self._commit())
        return encode_texts(model, texts, progress)

    def _commit(self) -> str:
        from huggingface_hub import HfApi, snapshot_download

        model, _, revision = self.argument.partition("@")
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        try:
            return Path(snapshot_download(model, revision=revision or None, local_files_only=True)).name
        except (OSError, ValueError):  # not in the cache, or no model id
            pass
        try:
            return HfApi().model_info(model, revision=revision or None, timeout=10).sha or ""
        except Exception as error:  # the hub's client passes on its transport's exceptions, which change with versions
            raise HarnessError(
                f"'{self.word}' is no folder and no model in the local Hugging Face cache, and the hub does not know "
                f"it or cannot be reached ({type(error).__name__}). Give a folder: st:<folder>."
            ) from error


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


def encode_texts(model: Any, texts: Texts, progress: Progress) -> np.ndarray:
    """E, (N, D) float32, zero rows where there is no text.

    Every distinct text is encoded once: what surrounds a text in its batch moves its last digits, and items of
    equal text must have equal rows. Longest first, so that batches are even and time left is not underestimated.
    Raises HarnessError if no item has text.
    """
    distinct = sorted({text for text in texts.texts if text is not None}, key=lambda text: (-len(text), text))
    if not distinct:
        raise HarnessError("No item has text, so there is nothing to encode. See the data set's text template.")
    parts = []
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        parts.append(model.encode(chunk, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True))
        progress(start + len(chunk), len(distinct))
    matrix, row = np.concatenate(parts), {text: i for i, text in enumerate(distinct)}
    E = np.zeros((len(texts), matrix.shape[1]), np.float32)
    for i, text in enumerate(texts.texts):
        if text is not None:
            E[i] = matrix[row[text]]
    return E


def _folder_sha256(folder: Path) -> dict[str, str]:
    """Relative name -> sha256 of what a model folder holds, but for hidden files and its card."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    shown = sorted(name for name in names if not any(part.startswith(".") for part in name.parts))
    return {name.as_posix(): file_sha256(folder / name) for name in shown}

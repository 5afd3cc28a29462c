"""Any transformers decoder, by hub id (``hf:<id>`` or ``hf:<id>@<revision>``) or by folder (``hf:<folder>``).

The row of a text is the mean of its tokens' last hidden states, the special tokens that the tokenizer sets included,
or with ``pooling=last`` the state of its last token; it is not normalised. Texts are padded on the left. Weights are
read from safetensors alone; code that a model brings along is never run. A text longer than ``max_tokens``, or than
the model can take, loses its end. LLaMA-3-8B (Grattafiori et al., The Llama 3 Herd of Models, 2024) is
``hf:meta-llama/Meta-Llama-3-8B[dtype=bfloat16]`` and wants 16 GB of memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.text.encoders._base import Job, TextEncoder, file_sha256, hub_commit, one_of, spans, whole
from harness.types import HarnessError

if TYPE_CHECKING:
    from torch import Tensor

POOLINGS = ("mean", "last")
DTYPES = ("float32", "bfloat16", "float16")
BATCH_TOKENS = 8192  # of a batch, padding included
BATCH = 512
CHUNK = 4096  # texts whose tokens are counted at a time
READ = (".safetensors", ".json", ".txt", ".model")  # suffixes of the files of a folder that a model is made of


class HuggingFace(TextEncoder):
    takes = "a transformers model id or folder"

    def __init__(
        self, argument: str, home: Path, *, pooling: str = "mean", dtype: str = "float32", max_tokens: int = 512
    ) -> None:
        """`dtype`: of the weights and the arithmetic; pooling is always in float32. Raises HarnessError."""
        super().__init__(argument, home, pooling=pooling, dtype=dtype, max_tokens=max_tokens)
        written = f"{self.name}:{argument}"
        self.pooling, self.dtype = (
            one_of(written, "pooling", pooling, POOLINGS),
            one_of(written, "dtype", dtype, DTYPES),
        )
        self.max_tokens = whole(written, "max_tokens", max_tokens, 1, 1_000_000)

    def identity(self) -> dict[str, Any]:
        """A folder is known by the sha256 of its weights, settings and tokenizer, a hub model by its id and commit.

        Raises HarnessError if the argument is no folder and its commit cannot be learnt.
        """
        return super().identity() | self.options | self._model()

    def _model(self) -> dict[str, Any]:
        folder = Path(self.argument).expanduser()
        if not folder.is_dir():
            return {"model": self.argument.partition("@")[0], "commit": hub_commit(self.word, self.argument)}
        # the top level alone: folders such as original/ hold the weights once more, in a form that is not read
        read = sorted(path for path in folder.iterdir() if path.suffix in READ and path.name[0] != ".")
        return {"files": {path.name: file_sha256(path) for path in read if path.is_file()}}

    def job(self, distinct: list[str]) -> Job:
        """Raises HarnessError if the model cannot be loaded or does not fit into memory."""
        tokenizer, model = self._load()
        limit = min(self.max_tokens, getattr(model.config, "max_position_embeddings", None) or self.max_tokens)
        counts = _token_counts(tokenizer, distinct)
        ranked = sorted(range(len(distinct)), key=lambda i: (-min(counts[i], limit), i))
        order = [distinct[i] for i in ranked]
        lengths = [min(counts[i], limit) for i in ranked]

        def batches(start: int) -> Iterator[np.ndarray]:
            for span in spans(lengths, start, BATCH_TOKENS, BATCH):
                found = tokenizer(order[span], truncation=True, max_length=limit, padding=False, verbose=False)
                yield self._encode(model, found["input_ids"])

        return Job(order, batches, sum(count > limit for count in counts), f"{limit:,} tokens")

    def _load(self) -> tuple[Any, Any]:
        """Tokenizer and model, on the GPU if there is one."""
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = Path(self.argument).expanduser()
        name, where = str(folder), {"local_files_only": True}
        if not folder.is_dir():
            name, where = self.argument.partition("@")[0], {"revision": hub_commit(self.word, self.argument)}
        where |= {"trust_remote_code": False}  # said, because transformers else asks at the terminal
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **where)
            model, told = AutoModel.from_pretrained(
                name, dtype=getattr(torch, self.dtype), use_safetensors=True, output_loading_info=True, **where
            )
            model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        except Exception as error:  # every part of the library has exceptions of its own for a bad file
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise HarnessError(f"'{self.word}' cannot be loaded by transformers: {reason}") from error
        absent = sorted(key for key in told["missing_keys"] if not key.startswith("pooler."))
        if absent or told["mismatched_keys"]:  # transformers would go on with random numbers
            what = absent[0] if absent else min(told["mismatched_keys"])[0]
            raise HarnessError(f"'{self.word}': the weights do not fit the model's config.json, for example {what}.")
        tokenizer.truncation_side = "right"
        return tokenizer, model

    def _encode(self, model: Any, ids: list[list[int]]) -> np.ndarray:
        """The rows, (n, D) float32, of texts given by their tokens; zero for a text without tokens."""
        import torch

        tokens, real = _left_padded(ids)
        tokens, real = tokens.to(model.device), real.to(model.device)
        given: dict[str, Any] = {"input_ids": tokens, "attention_mask": real.long()}
        takes = inspect.signature(model.forward).parameters
        if "position_ids" in takes:  # a text's first token is at 0 wherever its padding ends
            given["position_ids"] = (real.long().cumsum(1) - 1).clamp_min(0)
        if "use_cache" in takes:
            given["use_cache"] = False
        try:
            with torch.inference_mode():
                states = model(**given).last_hidden_state.float()
                rows = _pooled(states, real, self.pooling)
        except torch.OutOfMemoryError as error:
            remedy = "use a smaller model" if self.dtype != "float32" else "try dtype=bfloat16"
            raise HarnessError(f"'{self.word}' does not fit into the GPU's memory; {remedy} or max_tokens.") from error
        return rows.cpu().numpy()


def _token_counts(tokenizer: Any, texts: list[str]) -> list[int]:
    """How many tokens each text comes to, uncut, special tokens included."""
    counts: list[int] = []
    for start in range(0, len(texts), CHUNK):
        ids = tokenizer(texts[start : start + CHUNK], truncation=False, padding=False, verbose=False)["input_ids"]
        counts += map(len, ids)
    return counts


def _left_padded(ids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Tokens, (n, L) int64, padded on the left by 0, and where they are real, (n, L) bool; L is at least 1."""
    import torch

    width = max(1, *map(len, ids))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in ids])
    return tokens, torch.arange(width) >= width - torch.tensor([len(row) for row in ids])[:, None]


def _pooled(states: Tensor, real: Tensor, pooling: str) -> Tensor:
    """(n, D) of (n, L, D) states; what stands at padding, NaN too, does not count."""
    states = states.masked_fill(~real[..., None], 0)
    if pooling == "last":
        return states[:, -1]
    return states.sum(1) / real.sum(1, keepdim=True).clamp_min(1)

"""Any transformers decoder, by hub id (``hf:<id>`` or ``hf:<id>@<revision>``) or by folder (``hf:<folder>``).

The row of a text is the mean of its tokens' last hidden states, including special tokens added by the tokenizer, or
with ``pooling=last`` the state of its last token; it is not normalised. Texts are padded on the left. Weights are read
only from safetensors; code shipped with a model is never run. Texts longer than ``max_tokens`` or the model's limit are
truncated. LLaMA-3-8B (Grattafiori et al., The Llama 3 Herd of Models, 2024) is
``hf:meta-llama/Meta-Llama-3-8B[dtype=bfloat16]`` and needs 16 GB of memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.paths import expanded
from harness.text.encoders._base import Job, TextEncoder, file_sha256, hub_commit, one_of, spans, whole
from harness.types import HarnessError, Json

if TYPE_CHECKING:
    from torch import Tensor

POOLINGS = ("mean", "last")
DTYPES = ("float32", "bfloat16", "float16")
BATCH_TOKENS = 8192  # per batch, including padding
BATCH = 512
CHUNK = 4096  # texts tokenized at a time for counting
SAME = {"float32": 0.9999, "bfloat16": 0.99, "float16": 0.99}  # cosine from which two rows of a text are the same
READ = (".safetensors", ".json", ".txt", ".model")  # suffixes of the files in a folder that define a model


class HuggingFace(TextEncoder):
    takes = "a transformers model id or folder"
    uses_gpu = True

    def __init__(
        self, argument: str, home: Path, *, pooling: str = "mean", dtype: str = "float32", max_tokens: int = 512
    ) -> None:
        """`dtype`: of weights and arithmetic; pooling is always in float32. Raises HarnessError for invalid options."""
        super().__init__(argument, home, pooling=pooling, dtype=dtype, max_tokens=max_tokens)
        written = f"{self.name}:{argument}"
        self.pooling, self.dtype = (
            one_of(written, "pooling", pooling, POOLINGS),
            one_of(written, "dtype", dtype, DTYPES),
        )
        self.max_tokens = whole(written, "max_tokens", max_tokens, 1, 1_000_000)

    def identity(self) -> Json:
        """A folder is identified by the sha256 of its weights, settings and tokenizer, a hub model by id and commit.

        Raises HarnessError if the argument is not a folder and its commit cannot be determined.
        """
        return super().identity() | self.options | self._model()

    def _model(self) -> Json:
        folder = expanded(self.argument)
        if not folder.is_dir():
            return {"model": self.argument.partition("@")[0], "commit": hub_commit(self.word, self.argument)}
        # only the top level: folders such as original/ hold the weights in another format, which is not read
        read = sorted(path for path in folder.iterdir() if path.suffix in READ and path.name[0] != ".")
        return {"files": {path.name: file_sha256(path) for path in read if path.is_file()}}

    def job(self, distinct: list[str]) -> Job:
        """Raises HarnessError if the model cannot be loaded, is no decoder or does not fit into memory."""
        tokenizer, model = self._load()
        positions = getattr(model.config, "max_position_embeddings", None)
        limit = min(self.max_tokens, positions if positions and positions > 0 else self.max_tokens)
        self._check_padding(tokenizer, model)
        counts = _token_counts(tokenizer, distinct)
        ranked = sorted(range(len(distinct)), key=lambda i: (-min(counts[i], limit), i))
        order = [distinct[i] for i in ranked]
        lengths = [min(counts[i], limit) for i in ranked]

        def batches(start: int) -> Iterator[np.ndarray]:
            for span in spans(lengths, start, BATCH_TOKENS, BATCH):
                tokens = tokenizer(order[span], truncation=True, max_length=limit, padding=False, verbose=False)
                yield self._encode(model, tokens["input_ids"])

        return Job(order, batches, sum(count > limit for count in counts), f"{limit:,} tokens")

    def _load(self) -> tuple[Any, Any]:
        """Tokenizer and model, on the GPU if there is one."""
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = expanded(self.argument)
        name, where = str(folder), {"local_files_only": True}
        if not folder.is_dir():
            name, where = self.argument.partition("@")[0], {"revision": hub_commit(self.word, self.argument)}
        where |= {"trust_remote_code": False}  # explicit, because transformers otherwise prompts at the terminal
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **where)
            model, report = AutoModel.from_pretrained(
                name, dtype=getattr(torch, self.dtype), use_safetensors=True, output_loading_info=True, **where
            )
            model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        except Exception as error:  # each part of the library raises different exceptions for a bad file
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise HarnessError(f"'{self.word}' cannot be loaded by transformers: {reason}") from error
        if model.config.is_encoder_decoder:
            raise HarnessError(f"'{self.word}' is an encoder-decoder ({model.config.model_type}); hf: takes decoders.")
        absent = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        if absent or report["mismatched_keys"]:  # transformers would continue with random weights
            key = absent[0] if absent else min(report["mismatched_keys"])[0]
            raise HarnessError(f"'{self.word}': the weights do not match the model's config.json, for example {key}.")
        tokenizer.truncation_side = "right"
        return tokenizer, model

    def _check_padding(self, tokenizer: Any, model: Any) -> None:
        """Raise HarnessError if a text's states depend on the other texts of its batch, or differ from those of the
        model alone: some models ignore the mask (RWKV) or number positions in their own way (RoBERTa)."""
        import torch

        texts = tokenizer(["one", "one two three four five six"], truncation=True, max_length=self.max_tokens)
        short, longer = texts["input_ids"]
        if not short or len(short) == len(longer):
            return
        tokens = torch.tensor([short], device=model.device)
        with torch.inference_mode():
            states = model(input_ids=tokens).last_hidden_state.float()
        alone = _pooled(states, torch.ones_like(tokens, dtype=torch.bool), self.pooling)[0]
        beside = self._rows(model, [short, longer])[0]
        if not torch.cosine_similarity(alone, beside, dim=0) > SAME[self.dtype]:
            raise HarnessError(
                f"'{self.word}' cannot be encoded in batches: the states of its {model.config.model_type} model depend "
                f"on padding. Use a decoder such as LLaMA, or st:{self.argument} if it is a sentence encoder."
            )

    def _encode(self, model: Any, ids: list[list[int]]) -> np.ndarray:
        """Rows, (n, D) float32, of tokenized texts; zero for a text without tokens."""
        import torch

        try:
            return self._rows(model, ids).cpu().numpy()
        except torch.OutOfMemoryError as error:
            remedy = "use a smaller model" if self.dtype != "float32" else "try dtype=bfloat16"
            raise HarnessError(f"'{self.word}' does not fit in GPU memory; {remedy} or a lower max_tokens.") from error

    def _rows(self, model: Any, ids: list[list[int]]) -> Tensor:
        import torch

        tokens, real = _left_padded(ids)
        tokens, real = tokens.to(model.device), real.to(model.device)
        inputs: Json = {"input_ids": tokens, "attention_mask": real.long()}
        takes = inspect.signature(model.forward).parameters
        if "position_ids" in takes:  # positions count from the first real token
            inputs["position_ids"] = (real.long().cumsum(1) - 1).clamp_min(0)
        if "use_cache" in takes:
            inputs["use_cache"] = False
        with torch.inference_mode():
            return _pooled(model(**inputs).last_hidden_state.float(), real, self.pooling)


def _token_counts(tokenizer: Any, texts: list[str]) -> list[int]:
    """Tokens of each text without truncation, including special tokens."""
    counts: list[int] = []
    for start in range(0, len(texts), CHUNK):
        ids = tokenizer(texts[start : start + CHUNK], truncation=False, padding=False, verbose=False)["input_ids"]
        counts += map(len, ids)
    return counts


def _left_padded(ids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Tokens, (n, L) int64, padded on the left with 0, and a mask of real tokens, (n, L) bool; L >= 1."""
    import torch

    width = max(1, *map(len, ids))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in ids])
    return tokens, torch.arange(width) >= width - torch.tensor([len(row) for row in ids])[:, None]


def _pooled(states: Tensor, real: Tensor, pooling: str) -> Tensor:
    """Pool (n, L, D) states to (n, D); states at padding, even NaN, are ignored."""
    states = states.masked_fill(~real[..., None], 0)
    if pooling == "last":
        return states[:, -1]
    return states.sum(1) / real.sum(1, keepdim=True).clamp_min(1)

"""Encode texts on a GPU of the cluster where the driver's machine has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.engine import ray_head
from harness.search.plan import Plan
from harness.system.console import log
from harness.text import embeddings, remote
from harness.text.encoders._base import TextEncoder, Texts


def encode(grid: Plan, address: str | None, labels: Mapping[str, str]) -> None:
    """Cache the missing embeddings of pending cells, computed on a GPU of the cluster at `address` or RAY_ADDRESS.

    Does nothing on a private cluster, if this machine has a GPU, or if the cluster has none. An encoder that fails
    there is logged; the bench then encodes on this machine.
    """
    missing = _missing(grid)
    if not missing or ray_head.address_of(address) is None or _has_gpu():
        return
    from harness.engine import ray_cluster

    with ray_cluster.cluster(address, labels) as resources:
        if not resources["gpus"]:
            return
        for encoder, texts in missing:
            _encode(encoder, texts, grid.request.home, labels)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _missing(grid: Plan) -> list[tuple[TextEncoder, Texts]]:
    """Return the encoders with a local model whose matrix a pending cell needs and the home lacks, with their texts."""
    missing: dict[str, tuple[TextEncoder, Texts]] = {}
    for dataset, word in sorted({(s.cell.dataset, s.cell.encoder) for s in grid.pending if s.inputs.embedding}):
        encoded = grid.encoded_datasets[dataset]
        for source in embeddings.sources(encoded.encoders[word].on(encoded.texts)):
            key = embeddings.embedding_hash(source, encoded.texts)
            if isinstance(source, TextEncoder) and source.uses_gpu and not embeddings.is_cached(key, grid.request.home):
                missing[key] = source, encoded.texts
    return list(missing.values())


def _encode(encoder: TextEncoder, texts: Texts, home: Path, labels: Mapping[str, str]) -> None:
    from harness.engine import ray_cluster

    def on_gpu(encoder: TextEncoder, texts: Texts) -> tuple[np.ndarray, dict[str, int]]:
        log(f"{encoder.word}: encoding {len(texts):,} items on a GPU of the cluster.")
        words = (encoder.word, encoder.identity(), texts)
        return ray_cluster.on_gpu(remote.encode, *words, labels=labels, timeout=None)

    try:
        counts = embeddings.embedding_info(encoder, texts, home, on_gpu)
    except Exception as error:  # of the model, of Ray or of the GPU
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        log(f"{encoder.word}: not encoded on the cluster ({reason}); encoding on this machine.")
        return
    if counts.get("cut"):
        encoder.log(f"{counts['cut']:,} texts are longer than the model's limit; their ends are cut off.")

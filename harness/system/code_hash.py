"""Which code runs: one hash over the sources of the engine and of the model code."""

from __future__ import annotations

import hashlib

from harness import registry

PACKAGES = ("harness", registry.ADAPTERS, registry.BACKBONES)


def code_hash() -> str:
    """sha256 over names and bytes of all .py files of harness, adapters and backbones as installed here, 16 hex
    digits."""
    found = hashlib.sha256()
    for package in PACKAGES:
        root = registry.folder_of(package)
        for file in sorted(root.rglob("*.py")):
            data = file.read_bytes()
            found.update(f"{package}/{file.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    return found.hexdigest()[:16]

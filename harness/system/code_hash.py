"""Hash of the source code that runs: harness, adapters, backbones and components from outside."""

from __future__ import annotations

import hashlib

from harness import overlay, registry

PACKAGES = ("harness", registry.ADAPTERS, registry.BACKBONES)


def code_hash() -> str:
    """sha256 over names and bytes of all installed .py files of harness, adapters and backbones and over the sources
    of components from outside, 16 hex digits."""
    hasher = hashlib.sha256()
    for package in PACKAGES:
        root = registry.folder_of(package)
        for file in sorted(root.rglob("*.py")):
            data = file.read_bytes()
            hasher.update(f"{package}/{file.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    hasher.update(overlay.current().hash.encode())
    return hasher.hexdigest()[:16]

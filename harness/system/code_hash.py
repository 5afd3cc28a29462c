"""What must be equal on all nodes: the source code that runs and the libraries that compute."""

from __future__ import annotations

import hashlib
from importlib import metadata

from harness import overlay, registry

LIBRARIES = ("torch", "numpy")
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


def libraries() -> dict[str, str]:
    """Versions of the installed LIBRARIES, without the build (`+cu128`), in which nodes with and without GPU differ."""
    return {name: metadata.version(name).partition("+")[0] for name in LIBRARIES}

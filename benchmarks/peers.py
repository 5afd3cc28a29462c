"""Run the peer libraries in separate virtual environments, since their requirements conflict with harness's.

Environments are created on first use in the folder HARNESS_PEERS (default ~/.cache/harness-peers). Scripts run in them
read a JSON request and write a JSON answer: `script.py request.json answer.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _measure

FOLDER = Path(os.environ.get("HARNESS_PEERS", "~/.cache/harness-peers")).expanduser()
NEEDS = {  # the peer's release first, then the pins that it needs
    "rectools": ["rectools[torch]==0.19.0", "torch==2.13.0"],
    "recbole": [
        "recbole==1.2.1",
        "torch==2.13.0",
        "numpy<2",
        "pandas<2.3",
        "scipy<1.14",
        "setuptools<81",  # later ones lack pkg_resources, which a dependency imports
    ],
}


def title(name: str) -> str:
    """Name and version of a peer, e.g. `rectools 0.19.0`."""
    return f"{name} {_version(name)}"


def python(name: str) -> Path:
    """Python of a peer's environment, which is created if missing. Raises SystemExit, one line, if pip fails."""
    interpreter = FOLDER / name / "bin" / "python"
    if _installed(interpreter, name):
        return interpreter
    print(f"Creating {FOLDER / name} ({', '.join(NEEDS[name])}) ...", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", str(FOLDER / name)],
        [str(interpreter), "-m", "pip", "install", "--quiet", *NEEDS[name]],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{FOLDER / name} cannot be created: {_last_line(done.stderr)}")
    return interpreter


def run(name: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run a script of this folder with one thread in a peer's environment and an empty folder; return its answer.

    Raises SystemExit, one line, if the script fails.
    """
    interpreter = python(name)
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(request), encoding="utf-8")
        # -P keeps the scripts' folder off sys.path, where our modules could shadow a peer's
        command = [str(interpreter), "-P", str(_measure.HERE / script), str(question), str(answer)]
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode or not answer.is_file():
            raise SystemExit(f"{script} failed in {FOLDER / name}: {_last_line(done.stderr)}")
        return json.loads(answer.read_text(encoding="utf-8"))


def _version(name: str) -> str:
    return NEEDS[name][0].partition("==")[2]


def _installed(interpreter: Path, name: str) -> bool:
    if not interpreter.is_file():
        return False
    command = [str(interpreter), "-c", f"from importlib import metadata; print(metadata.version('{name}'))"]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    return installed.stdout.strip() == _version(name)


def _environment() -> dict[str, str]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return kept | one | {"CUDA_VISIBLE_DEVICES": ""}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no error output"

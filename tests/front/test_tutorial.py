"""The tutorial is run block by block, and prints what stands in it (numbers aside, which processors round apart).

UPDATE_GOLDEN=1 writes what it prints into the page.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(python|bash|toml|text)( file=(\S+))?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
DRIVER = """
import contextlib, io, json, pathlib, subprocess, sys
names, printed = {}, []
for kind, file, code in json.load(open("blocks.json")):
    out = ""
    if file:
        pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(file).write_text(code)
    elif kind == "python":
        with contextlib.redirect_stdout(io.StringIO()) as sink:
            exec(compile(code, "tutorial", "exec"), names)
        out = sink.getvalue()
    else:
        done = subprocess.run(["bash", "-ec", code], capture_output=True, text=True)
        assert done.returncode == 0, code + done.stdout + done.stderr
        out = done.stdout
    printed.append(out)
json.dump(printed, open("printed.json", "w"))
"""


def blocks_of(page):
    """(kind, file, code, printed, where its printed text begins and ends) of every block that is run."""
    found = []
    for match in FENCE.finditer(page):
        kind, file, body = match[1], match[3], match[4]
        if kind == "text":
            found[-1][3:] = [body, match.start(), match.end()]
        else:
            found.append([kind, file, body, "", match.end(), match.end()])
    return found


def shape(text):
    """The text without its numbers, and without how wide they are."""
    text = re.sub(r"\d+(\.\d+)?(e-?\d+)?", "0", text)
    return [" ".join(re.sub(r"[─═┄┬┴┼╞╡╪┌┐└┘-]+", "-", line).split()) for line in text.strip().splitlines()]


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs_and_prints_what_stands_under_it(tmp_path):
    installed = tmp_path / "installed"  # outside of a checkout, which `reproduce` would name
    for package in ("harness", "adapters", "backbones", "search_spaces"):
        shutil.copytree(ROOT / package, installed / package, ignore=shutil.ignore_patterns("__pycache__"))
    page = PAGE.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    (tmp_path / "blocks.json").write_text(json.dumps([block[:3] for block in blocks]))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(installed), "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    environment["POLARS_FMT_MAX_COLS"] = "12"
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads((tmp_path / "printed.json").read_text())
    if os.environ.get("UPDATE_GOLDEN"):
        for block, text in reversed(list(zip(blocks, printed, strict=True))):
            new = f"\n```text\n{text.rstrip()}\n```\n" if text.strip() else ""
            start = block[4] if block[3] == "" else block[4] - 1
            page = page[:start] + new + page[block[5] :]
        PAGE.write_text(page, encoding="utf-8")
    for block, text in zip(blocks, printed, strict=True):
        if not os.environ.get("UPDATE_GOLDEN"):
            assert shape(text) == shape(block[3]), block[2]


def test_the_tutorial_shows_what_its_blocks_print():
    blocks = blocks_of(PAGE.read_text(encoding="utf-8"))
    silent = [block for block in blocks if "print(" in block[2] and not block[3]]
    assert not silent
    assert len([block for block in blocks if block[3]]) >= 8

"""The examples of the guides on adding components work: they pass the conformance suite, and harness lists them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import harness_process

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "add").glob("*.md"))]
BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components")
    (folder / "search_spaces" / "adapters").mkdir(parents=True)
    (folder / "search_spaces" / "adapters" / "weighted.toml").touch()  # the README's example has an empty one
    for page in PAGES:
        blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
        assert blocks, page
        for name, text in blocks:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder


def test_the_examples_pass_the_conformance_suite(examples):
    command = [sys.executable, "-m", "pytest", "--pyargs", "harness.conformance", "--components", examples]
    done = subprocess.run(command, cwd=examples, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout


def test_harness_lists_the_examples(examples, home):
    listed = harness_process(home, "list", "--components", str(examples))
    assert listed.returncode == 0, listed.stderr
    stems = {path.stem.replace("_", "-") for path in examples.rglob("*.py")}
    assert stems <= {name.replace("_", "-") for name in re.findall(r"[\w-]+", listed.stdout)}

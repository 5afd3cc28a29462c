"""The documentation site builds strictly: every link and anchor leads somewhere, and every guide is in its menu."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docs" / "mkdocs.yml"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", CONFIG, "--site-dir", folder]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_menu_names_every_guide():
    menu = set(re.findall(r"[\w./-]+\.md", CONFIG.read_text().partition("\nnav:\n")[2]))
    guides = {
        str(page.relative_to(ROOT)) for page in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "add").glob("*.md"))
    }
    assert guides <= menu


def test_the_reference_pages_hold_every_command_and_the_python_functions(site):
    commands = (site / "docs" / "command-line" / "index.html").read_text()
    assert all(f'id="{verb}"' in commands for verb in ("bench", "plan", "leaderboard", "export"))
    assert "--drop-tied-test" in commands
    functions = (site / "docs" / "python" / "index.html").read_text()
    assert all(f'id="harness.{name}"' in functions for name in ("bench", "leaderboard", "compare", "load_export"))


def test_the_site_holds_pages_and_no_code_of_ours(site):
    assert [path.relative_to(site).parts[0] for path in site.rglob("*.py")] == ["examples"]
    assert (site / "docs" / "decisions" / "0009-statistics" / "index.html").is_file()

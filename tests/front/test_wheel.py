"""What is installed is all that is read: every file of the packages, those that are no Python among them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "adapters", "backbones", "search_spaces")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [file] = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)): path for path in files if "__pycache__" not in path.parts}
    assert {Path(name).suffix for name in wanted} >= {".py", ".toml", ".js", ".css", ".html"}
    assert wanted.keys() <= set(wheel.namelist())
    assert all(wheel.read(name) == path.read_bytes() for name, path in wanted.items())


def test_nothing_but_the_packages_is_in_the_wheel(wheel):
    others = [name for name in wheel.namelist() if name.partition("/")[0] not in PACKAGES]
    assert all(".dist-info/" in name for name in others)
    [entry] = [name for name in others if name.endswith("entry_points.txt")]
    assert "harness = harness.cli:main" in wheel.read(entry).decode()


def test_an_installed_copy_lists_renders_and_finds_settings_and_papers_from_any_folder(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    program = (
        f"import sys; sys.path[:] = [{str(tmp_path / 'site')!r}] + [p for p in sys.path if p != {str(ROOT)!r} and p]\n"
        "import harness, polars as pl\n"
        "from harness.report import published; from harness.search import spaces; from harness.report import tables\n"
        "from harness.report.tables._frames import SCHEMAS\n"
        "frames = {name: pl.DataFrame(schema=SCHEMAS[name]) for name in ('runs', 'ranks', 'cells')}\n"
        "page = tables.render(tables.build(tables.Results(**frames)), 'html')\n"
        "print(harness.__file__)\n"
        "print(len(page) > 50_000, 'gsasrec' in spaces.published(), bool(spaces.about('gsasrec')))\n"
        "print('alphafuse' in published.names())\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, found, papers = done.stdout.splitlines()
    assert where.startswith(str(tmp_path / "site"))
    assert (found, papers) == ("True True True", "True")

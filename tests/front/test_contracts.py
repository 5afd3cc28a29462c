"""The import contracts catch what CONTRIBUTING.md says they catch: each is broken on purpose in a copy of the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(tree):
    """Exit code and output of `lint-imports` in a tree that has no cache yet."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(tree), "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path):
    for name in ("harness", "adapters", "backbones"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("harness/workflows/progress.py", "import ray", "Only engine.ray_cluster and engine.ray_tune import Ray"),
        ("harness/report/tables/_build.py", "import mlflow", "Only record.mlflow_client speaks to MLflow"),
        ("harness/verbs/show.py", "def f():\n    import mlflow", "Only record.mlflow_client speaks to MLflow"),
        ("harness/report/tables/_build.py", "from harness.record import ledger", "Tables and statistics take frames"),
        ("harness/types.py", "from harness.system import files", "Arrows point down"),
        ("harness/unplaced.py", "", "Arrows point down"),
        ("adapters/svd.py", "from harness import types", "Model code knows nothing of the engine"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tree, file, line, contract):
    with (tree / file).open("a") as source:
        source.write(f"\n\n{line}\n")
    code, output = lint(tree)
    assert code == 1
    assert f"{contract}" in output.split("Broken contracts")[1], output

"""A small data set, a home folder and an MLflow store for the tests that ask for them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dataset_files import make_dataset

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("COLUMNS", "LINES"):  # pytest-xdist sets them, and tables are fitted to them
    os.environ.pop(name, None)


# Files of minutes. They run first, so that no worker is left with one of them when the others are done.
LONGEST = (
    "test_tutorial",
    "test_bench",
    "test_kill",
    "test_pruning",
    "test_training_on_movielens",
    "test_tracking_away",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A trial flushes denormals to zero for its whole process; the next test wants numbers as they were."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "toy")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs. Creating one takes seconds, so tests copy it."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def mlflow_store(empty_mlflow: Path) -> Callable[[Path], str]:
    """Put an empty MLflow database at a path and return its URI."""

    def put(file: Path) -> str:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(empty_mlflow, file)
        return f"sqlite:///{file}"

    return put

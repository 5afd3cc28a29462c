"""One prepared data set for all training tests, and its split."""

import pytest
from dataset_files import make_dataset

from harness.data import preparation, reader, splits
from harness.types import PrepSpec, Protocol


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    raw = reader.open_dataset(str(make_dataset(root / "toy")), root)
    return preparation.prepare(raw, PrepSpec(), root)


@pytest.fixture
def split(prepared):
    return splits.split(prepared, Protocol())

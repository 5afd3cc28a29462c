"""The small data set, prepared and split."""

import pytest

from harness.data import preparation, reader, splits
from harness.types import PrepSpec, Protocol


@pytest.fixture
def split(dataset, home):
    return splits.split(preparation.prepare(reader.open_dataset(str(dataset), home), PrepSpec(), home), Protocol())

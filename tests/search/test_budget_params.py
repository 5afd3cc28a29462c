"""A budget's own shared parameters: set for all cells unless the command says otherwise."""

import pytest

from harness.api import parsed
from harness.search import spaces
from harness.types import Cell
from harness.verbs import bench
from harness.verbs._options import request_of


@pytest.mark.parametrize(
    ("options", "ema"),
    [
        ({}, 0.97),
        ({"budget": "quick"}, 0.97),
        ({"budget": "quick", "set": {"train.ema": 0.5}}, 0.5),
        ({"budget": "quick", "set": {"train.ema": 0}}, None),
        ({"budget": "quick", "set": {"train.d": 32}}, 0.97),
        ({"budget": "standard"}, None),
        ({"budget": "quick", "spaces": "gsasrec"}, None),
    ],
)
def test_quick_averages_weights_unless_the_command_decides(tmp_path, options, ema):
    request = request_of(parsed("bench", bench.command, {"home": tmp_path, **options}))
    space = spaces.of_cell(Cell("toy", "none", "sasrec", "id"), request.spaces)
    assert space.fixed.get("train.ema") == ema

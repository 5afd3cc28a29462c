"""A budget's own shared parameters: set for all cells unless the command says otherwise."""

import pytest

from harness.api import parsed
from harness.search import spaces
from harness.types import Cell, HarnessError
from harness.verbs import bench
from harness.verbs._request import request_of


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


def test_patience_is_an_option_of_its_own(tmp_path):
    def budget(**options):
        return request_of(parsed("bench", bench.command, {"home": tmp_path, **options})).budget

    assert budget(patience=0, set={"train.schedule": "one_cycle"}).patience == 0
    assert budget(budget="standard", patience=9).patience == 9
    assert budget(budget="standard").patience == 5


@pytest.mark.parametrize("options", [{}, {"trials": 1}, {"budget": "standard", "trials": 0}])
def test_another_search_seed_is_refused_where_nothing_is_drawn(tmp_path, options):
    """Its table would repeat the first one to the last bit and look like a second search."""
    with pytest.raises(HarnessError, match="--search-seed 1 repeats a search with other draws, but with --trials"):
        request_of(parsed("bench", bench.command, {"home": tmp_path, "search_seed": 1, **options}))
    assert request_of(parsed("bench", bench.command, {"home": tmp_path, "search_seed": 1, "trials": 2}))

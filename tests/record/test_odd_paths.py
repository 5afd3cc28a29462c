"""Homes whose path has characters with a meaning in addresses."""

import pytest
import synthetic_ledgers
from command_line import TINY, harness
from mlflow_server import check_mirror

from harness.record import tracking
from harness.record.ledger import Ledger
from harness.types import HarnessError


@pytest.fixture
def odd(tmp_path):
    """Write a home with a ledger below a folder of that name."""

    def write(name):
        home = tmp_path / name / "home"
        synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
        return home, Ledger.open(home)

    return write


@pytest.mark.parametrize("name", ["a#b", "me@lab:1", "50%", "a&b;c=d", "[x] +y", "ünï 漢", "a'b\"c", "%%2", "~"])
def test_the_mirror_of_a_home_is_in_it_whatever_its_path(name, odd, tmp_path, mlflow_store):
    home, ledger = odd(name)
    mlflow_store(home / "mlflow" / "mlflow.db")
    uri = tracking.default_uri(home)
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    check_mirror(uri, ledger)
    stored, sources = tracking.read(uri, home)
    assert stored.trials.keys() == ledger.trials.keys()
    confirmed = next(i for i in ledger.trials if ledger.trials[i].role == "confirm")
    assert sources.ranks(confirmed) is not None
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert {path.name for path in home.iterdir()} == {"ledger", "artifacts", "mlflow"}


@pytest.mark.parametrize(("name", "part"), [("a?b", "?"), ("a%20b", "%20"), ("a%3Fb", "%3F")])
def test_a_path_that_no_address_of_a_database_can_hold_is_refused(name, part, odd, dataset, tmp_path, mlflow_store):
    home, ledger = odd(name)
    before = sorted(path for path in tmp_path.rglob("*") if dataset not in path.parents)
    for words in (
        ["sync"],
        ["leaderboard", "--from-mlflow"],
        ["bench", "--datasets", str(dataset), "--adapters", "id", *TINY],
    ):
        done = harness(home, *words)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"mlflow.db contains '{part}'" in line
        assert "--tracking" in line
    assert sorted(path for path in tmp_path.rglob("*") if dataset not in path.parents) == before
    elsewhere = mlflow_store(tmp_path / "store" / "mlflow.db")
    assert tracking.sync(elsewhere, home, ledger) == len(ledger.trials)
    check_mirror(elsewhere, ledger)
    confirmed = next(i for i in ledger.trials if ledger.trials[i].role == "confirm")
    assert tracking.read(elsewhere, home)[1].ranks(confirmed) is not None


def test_a_query_after_the_path_of_a_database_is_refused(home):
    with pytest.raises(HarnessError, match=r"contains '\?'"):
        tracking.sync(f"sqlite:///{home}/x.db?timeout=9", home, Ledger())
    assert list(home.iterdir()) == []

"""harness: which way of turning LLM text embeddings into item embeddings helps sequential recommendation?"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

__version__ = "0.1.0"


def _refuse_adapterhub() -> None:
    """The distribution `adapters` (AdapterHub) would overwrite our folder of that name."""
    try:
        version = metadata.version("adapters")
    except metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"The distribution 'adapters' {version} (AdapterHub) is installed and takes the import name of our adapters; "
        "run: pip uninstall adapters, then install harness again, or use another virtual environment."
    )


_refuse_adapterhub()


def bench(home: str, **request: Any) -> pl.DataFrame:
    """Run what is missing of a grid and return its table, a row a row of the leaderboard.

    `request`: the fields of `harness.plan.Request` (datasets, adapters, backbones, encoders, budget, protocol, ...).
    Raises HarnessError for bad input.
    """
    from pathlib import Path

    from harness import walk
    from harness.plan import Request
    from harness.store import check_home

    return walk.run(Request(home=check_home(Path(home)), **request), walk.Options()).table.frame()


def leaderboard(home: str) -> pl.DataFrame:
    """The newest table of a home, a row a row of the leaderboard. Raises HarnessError if there is none."""
    from pathlib import Path

    from harness import results, store, tables
    from harness.ledger import Ledger

    folder = store.check_home(Path(home))
    return tables.build(results.build(Ledger.open(folder), lambda i: store.load_ranks(folder, i))).frame()

"""harness: compare ways of turning LLM text embeddings into item embeddings for sequential recommendation."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Unpack

from harness.types import HarnessError

if TYPE_CHECKING:
    import os

    import polars as pl

    from harness.api import BenchOptions
    from harness.training.exported_model import Recommender

__all__ = ["HarnessError", "bench", "compare", "leaderboard", "load_export"]

__version__ = "0.1.0"


def _refuse_adapterhub() -> None:
    """Raise ImportError if the distribution `adapters` (AdapterHub) is installed: it overwrites our package."""
    try:
        version = metadata.version("adapters")
    except metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"The distribution 'adapters' {version} (AdapterHub) is installed and overwrites our package of that name; "
        "run: pip uninstall adapters, then reinstall harness, or use another virtual environment."
    )


_refuse_adapterhub()


def bench(**options: Unpack[BenchOptions]) -> pl.DataFrame:
    """Run the missing trials of a grid and return its table, one line per row of the leaderboard.

    Keywords are the options of `harness bench`, with `_` for `-` and with the same defaults:
    `bench(datasets="ml-100k", adapters=["id", "svd"], budget="standard", set={"train.d": 128}, home="results")`.
    Lists may be Python lists or comma lists as on the command line. Raises HarnessError for bad input, with the nearest
    valid name; KeyboardInterrupt, with the exit code 130 or 143 in its `code`, if Ctrl-C or SIGTERM stopped it.
    """
    from harness import api

    return api.bench(options)


def leaderboard(
    home: str | os.PathLike[str] | None = None, *, run: str | None = None, from_mlflow: str | None = None
) -> pl.DataFrame:
    """Return the newest table of a home (HARNESS_HOME or ~/.harness if None), one line per row of the leaderboard.

    `run`: the table as of this launch; `from_mlflow`: URI of an MLflow store to build the table from instead of the
    ledger. Raises HarnessError if there is no table.
    """
    from harness import api

    return api.leaderboard(home, run, from_mlflow)


def compare(a: str, b: str, *, home: str | os.PathLike[str] | None = None) -> pl.DataFrame:
    """Compare two launches of a home, two homes or two MLflow stores (`mlflow:<uri>`): one row per shared cell.

    Columns: the cell's names, `why_not` (why it is not compared, else empty), `same_runs`, `p` of no difference in
    NDCG@10 (Holm-adjusted), and per metric `<metric>_a`, `_b`, `_difference` (B - A), `_low`, `_high` (95 %).
    Raises HarnessError if `a` or `b` does not exist.
    """
    from harness import api

    return api.compare(a, b, home)


def load_export(folder: str | os.PathLike[str]) -> Recommender:
    """Load a model that `harness export` wrote; `recommend(histories, k)` queries it. Needs no home.

    Raises HarnessError if a file is missing, damaged or of another version, or if the self-test fails.
    """
    from harness.training import exported_model

    return exported_model.load(folder)

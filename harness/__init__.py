"""harness: which way of turning LLM text embeddings into item embeddings helps sequential recommendation?"""

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


def bench(**options: Unpack[BenchOptions]) -> pl.DataFrame:
    """Run what is missing of a grid and return its table, a row a row of the leaderboard.

    Keywords are the options of `harness bench`, with `_` for `-`; what is left out has its default there:
    `bench(datasets="ml-100k", adapters=["id", "svd"], budget="standard", set={"train.d": 128}, home="results")`.
    Lists may be given as lists or as on the command line. Raises HarnessError for bad input, with the nearest name.
    """
    from harness import api

    return api.bench(options)


def leaderboard(
    home: str | os.PathLike[str] | None = None, *, run: str | None = None, from_mlflow: str | None = None
) -> pl.DataFrame:
    """The newest table of a home (of HARNESS_HOME or ~/.harness if None), a row a row of the leaderboard.

    `run`: as it stood at that launch; `from_mlflow`: built from the MLflow store of that URI alone. Raises HarnessError
    if there is none.
    """
    from harness import api

    return api.leaderboard(home, run, from_mlflow)


def compare(a: str, b: str, *, home: str | os.PathLike[str] | None = None) -> pl.DataFrame:
    """Two launches of a home, two homes or two MLflow stores (`mlflow:<uri>`): a row a cell that both have.

    Columns: the cell's names, `why_not` (why it is not compared, else empty), `same_runs`, `p` of no difference in
    NDCG@10 (Holm-adjusted), and of each metric `<metric>_a`, `_b`, `_difference` (B - A), `_low`, `_high` (95 %).
    Raises HarnessError if one of the two is none.
    """
    from harness import api

    return api.compare(a, b, home)


def load_export(folder: str | os.PathLike[str]) -> Recommender:
    """The model that `harness export` wrote to a folder; `recommend(histories, k)` asks it. Needs no home.

    Raises HarnessError if a file is missing, damaged or of another version, or its self-test fails.
    """
    from harness.training import exported_model

    return exported_model.load(folder)

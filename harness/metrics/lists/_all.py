"""Compute every metric of this folder on top-10 lists."""

from __future__ import annotations

import math

from harness import registry
from harness.metrics.lists._base import Catalogue, TopLists

CUTOFF = 10


def names() -> dict[str, str]:
    """Metric modules by recorded name, such as `coverage@10`."""
    return {f"{metric}@{CUTOFF}": metric for metric in registry.names(registry.LIST_METRICS)}


def summary(metric: str) -> str:
    """First paragraph of a metric's docstring, on one line."""
    return registry.schema(registry.LIST_METRICS, metric).doc.split("\n\n")[0].replace("\n", " ")


def scores(lists: TopLists, catalogue: Catalogue) -> dict[str, float]:
    """Value of each metric on the first 10 places, by recorded name; undefined ones (no text, no item) are left out."""
    items = lists.cut(CUTOFF).items
    values = {
        name: float(registry.load(registry.LIST_METRICS, metric)(items, catalogue)) for name, metric in names().items()
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}

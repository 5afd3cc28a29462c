"""What encoders, baselines, metrics, data sets and table formats owe."""

import inspect
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from harness import registry
from harness.conformance._subjects import OWN, names_of, parametrized
from harness.conformance.spectra import toy_spectrum
from harness.data import library
from harness.data.splits import Queries, Split
from harness.metrics._all import CUTOFFS, per_user
from harness.metrics._ties import Ranks
from harness.metrics.lists._base import Catalogue
from harness.report import tables
from harness.report.tables._frames import SCHEMAS
from harness.text.encoders._base import Encoder, Texts, encoder

ITEMS, USERS, LENGTH = 60, 20, 6
ENCODERS = names_of(registry.ENCODERS) if OWN else ["noise"]  # others need a model or an argument


def toy_split():
    """Twenty users of six events each: four to train, one to validate, one to test."""
    items = np.random.default_rng(0).integers(1, ITEMS + 1, USERS * LENGTH).astype(np.int32)
    users, ends = np.arange(USERS, dtype=np.int32), np.full(USERS, LENGTH, np.int64)
    offsets = np.arange(USERS + 1, dtype=np.int64) * LENGTH
    return Split(ITEMS, items, offsets, None, ends - 2, Queries(users, ends - 2), Queries(users, ends - 1))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_a_finite_row_per_item_twice_the_same(name, tmp_path):
    subject = registry.load(registry.ENCODERS, name)
    assert issubclass(subject, Encoder)
    if subject.takes and not subject.optional:
        pytest.skip(f"it needs {subject.takes}")
    texts = Texts(["a", "b", "c"], ["red wool", None, "small paper"], [0, 1, 2], 3)
    one, two = (encoder(name, tmp_path).encode(texts, lambda done, total: None) for _ in range(2))
    assert one.shape == (3, one.shape[1])
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert one[[0, 2]].any(1).all()
    assert not one[1].any(), "an item without text has a zero row"
    assert np.array_equal(one, two)
    assert json.loads(json.dumps(encoder(name, tmp_path).identity()))["encoder"] == name


@parametrized(registry.BASELINES)
def test_a_baseline_scores_every_item_for_every_query(package, name):
    split = toy_split()
    scorer = registry.load(package, name)(split, toy_spectrum(ITEMS))
    scores = scorer.scores(split.valid)
    assert scores.shape == (USERS, ITEMS)
    assert scores.dtype == torch.float32
    assert not torch.isnan(scores).any()


@parametrized(registry.BASELINES)
def test_a_baseline_counts_training_events_only(package, name):
    """The split that it gets holds all events: those of validation and test must not change its scores."""
    split, scorer = toy_split(), registry.load(package, name)
    others = split.items.reshape(USERS, LENGTH).copy()
    others[:, -2:] = others[:, -2:] % ITEMS + 1
    changed = replace(split, items=others.ravel())
    scores = [scorer(one, toy_spectrum(ITEMS)).scores(one.valid) for one in (split, changed)]
    assert torch.equal(*scores)


@parametrized(registry.METRICS)
def test_a_metric_maps_whole_ranks_to_numbers_from_0_to_1_that_never_grow_with_the_rank(package, name):
    ranks = np.arange(1.0, 101.0)
    for k in CUTOFFS:
        values = registry.load(package, name)(ranks, k)
        assert values.shape == ranks.shape
        assert np.isfinite(values).all()
        assert (np.diff(values) <= 0).all()
        assert values[-1] >= 0
        assert values[0] <= 1
        tied = per_user(Ranks(np.array([1.0]), np.array([40.0])), name, k)
        np.testing.assert_allclose(tied, values[:40].mean())


@parametrized(registry.LIST_METRICS)
def test_a_list_metric_gives_one_number(package, name):
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(ITEMS)[:10] for _ in range(USERS)]).astype(np.int32)
    counts = rng.integers(1, 9, ITEMS)
    value = registry.load(package, name)(lists, Catalogue(counts, counts, 30, rng.standard_normal((ITEMS, 4))))
    assert np.isfinite(float(value))


@parametrized(registry.DATASETS)
def test_a_data_set_describes_itself_and_is_not_ready_in_an_empty_home(package, name, tmp_path):
    for word in [word for word, (stem, _) in library.built_in().items() if stem == name]:
        subject = library.component(word)
        assert subject.name == word
        assert all(isinstance(getattr(subject, key), str) for key in ("text", "licence", "citation"))
        assert subject.ready(tmp_path) is False
        assert list(inspect.signature(subject.fetch).parameters) == ["home"]


@parametrized(registry.TABLES)
def test_a_table_format_renders_a_table_without_rows(package, name):
    runs, ranks, cells = (pl.DataFrame(schema=SCHEMAS[frame]) for frame in ("runs", "ranks", "cells"))
    table = tables.build(tables.Results(runs=runs, ranks=ranks, cells=cells))
    assert isinstance(tables.render(table, name), str | bytes)

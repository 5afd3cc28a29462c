"""Several texts an item: one is drawn for each item and training step, and the mean ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_trials import a_trial
from synthetic_spectra import spectrum_of_variants, toy_variants

from adapters._base import Adapter, Spectrum
from adapters.linear import Linear
from harness import registry
from harness.text import embeddings
from harness.text.encoders import _base
from harness.training import trial

DRAWING = [
    name
    for name in registry.names(registry.ADAPTERS)
    if registry.schema(registry.ADAPTERS, name).attributes.get("draws")
]


def text_of(split, M=3, D=24, seed=0):
    """M texts an item; item 0 has none, item 1 one, item 2 two."""
    variants = np.random.default_rng(seed).normal(size=(M, split.n_items, D)).astype(np.float32)
    variants[:, 0], variants[1:, 1], variants[0, 2] = 0, 0, 0
    return spectrum_of_variants(torch.from_numpy(variants))


def identity_of(spectrum: Spectrum) -> Linear:
    """An adapter whose table is the text that it reads."""
    adapter = Linear(spectrum, spectrum.E.shape[1])
    torch.nn.init.eye_(adapter.map.weight)
    torch.nn.init.zeros_(adapter.map.bias)
    return adapter


def text_drawn(adapter: Linear, spectrum: Spectrum) -> torch.Tensor:
    """Which text of each item is in the adapter's table, (M, N) bool."""
    return (adapter().detach() == spectrum.variants).all(2)


# --- features


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
def test_the_features_of_a_text_are_the_affine_map_that_makes_those_of_the_mean(preprocess):
    spectrum = toy_variants()
    S, V, mean, E, texts = (getattr(spectrum, name).double().numpy() for name in ("S", "V", "mean", "E", "variants"))
    n = int(E.any(1).sum())
    expected = {
        "raw": texts,
        "center": texts - mean,
        "whiten": (texts - mean) @ V / S * (n - 1) ** 0.5,
    }[preprocess] * texts.any(2, keepdims=True)
    found = spectrum.variant_features(preprocess)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    counts = np.maximum(texts.any(2).sum(0), 1)[:, None]
    mean_row = found.double().numpy().sum(0) / counts
    np.testing.assert_allclose(mean_row, spectrum.features(preprocess).numpy(), rtol=1e-3, atol=1e-4)


def test_raw_texts_are_not_copied():
    spectrum = toy_variants()
    assert Linear(spectrum, 5).features_by_variant.data_ptr() == spectrum.variants.data_ptr()
    assert Linear(replace(spectrum, variants=None), 5).drawn is None


# --- the draw


def test_each_text_that_an_item_has_is_drawn_equally_often_and_no_other():
    torch.manual_seed(0)
    spectrum = toy_variants()
    adapter, times, steps = identity_of(spectrum), torch.zeros(3, 60), 2000
    for _ in range(steps):
        adapter.draw()
        times += text_drawn(adapter, spectrum)
    assert times[:, 1].tolist()[0] == 0, "item 1 lacks the first text"
    assert times[:, 2].tolist() == [steps, 0, 0], "item 2 has only the first text"
    assert (times[:, 3] == steps).all(), "the row of an item without text is zero"
    for share, drawn in ((1 / 2, times[1:, 1]), (1 / 3, times[:, 4:])):
        assert (drawn / steps - share).abs().max() < 5 * (share * (1 - share) / steps) ** 0.5
    together = torch.zeros(3, 60)
    for _ in range(200):
        adapter.draw()
        texts = text_drawn(adapter, spectrum)
        together += texts & texts[:, 4:5]
    assert (together[:, 5:].sum(0) / 200 - 1 / 3).abs().max() < 0.2, "items are drawn independently"


def test_before_a_draw_and_in_eval_mode_the_mean_is_read():
    spectrum = toy_variants()
    adapter = identity_of(spectrum)
    assert torch.equal(adapter(), spectrum.E)
    adapter.draw()
    assert not torch.equal(adapter(), spectrum.E)
    assert torch.equal(adapter.eval()(), spectrum.E)
    assert torch.equal(adapter.rows(torch.tensor([5, 1])), spectrum.E[[5, 1]])


def test_within_a_step_the_whole_table_and_its_rows_read_the_same_texts():
    adapter, ids = identity_of(toy_variants()), torch.tensor([7, 1, 59, 7, 0])
    seen = set()
    for seed in range(5):
        torch.manual_seed(seed)
        adapter.draw()
        assert torch.equal(adapter.rows(ids), adapter()[ids])
        assert torch.equal(adapter.rows(ids), adapter.rows(ids))
        seen.add(tuple(adapter.rows(ids)[:, 0].tolist()))
    assert len(seen) > 1


@pytest.mark.parametrize("name", DRAWING)
def test_texts_are_drawn_and_read_on_the_device_of_the_adapter(name):
    adapter = registry.load(registry.ADAPTERS, name)(toy_variants(), 8).to("meta")  # refuses tensors of other devices
    adapter.draw()
    for rows in (adapter.read("features"), adapter.read("features", torch.tensor([3, 5], device="meta"))):
        assert rows.device.type == "meta"


@pytest.mark.parametrize("loss", ["softmax", "infonce"])
def test_a_training_step_draws_once_and_ranking_never(split, monkeypatch, loss):
    draws, reads = [], []
    draw, read = Adapter.draw, Adapter.read
    monkeypatch.setattr(Adapter, "draw", lambda self: (draws.append(len(reads)), draw(self))[1])
    monkeypatch.setattr(Adapter, "read", lambda self, *args: (reads.append(self.drawn), read(self, *args))[1])
    training = trial.Training(a_trial("llmemb", **{"train.loss": loss}), split, text_of(split))
    assert not draws
    steps = len(list(training.windows.batches(training.train["batch_size"], np.random.default_rng(0))))
    training.epoch()
    assert len(draws) == steps > 1
    texts = [drawn for drawn in reads if drawn is not None]
    assert len(set(map(id, texts))) == steps, "table and auxiliary loss read the texts of their step"
    assert len(texts) >= 2 * steps


# --- whole trials


@pytest.mark.parametrize("adapter", DRAWING)
def test_a_trial_with_variants_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(split, adapter):
    work = a_trial(adapter, epochs=3, patience=3)
    whole, first = (trial.Training(work, split, text_of(split)) for _ in range(2))
    while not whole.over:
        whole.epoch()
    first.epoch()
    second = trial.Training(work, split, text_of(split))
    assert second.restore(first.save())
    while not second.over:
        second.epoch()
    assert second.curve == whole.curve
    weights = second.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())
    assert not any("variant" in name or "text_" in name for name in weights)
    plain = trial.Training(work, split, replace(text_of(split), variants=None))
    while not plain.over:
        plain.epoch()
    assert any(not torch.equal(value, weights[name]) for name, value in plain.model.state_dict().items())


@pytest.mark.parametrize("adapter", ["svd", "spectran", "llminit"])
def test_an_adapter_that_reads_the_mean_trains_as_on_the_mean(split, adapter):
    text = text_of(split)
    several, one = (trial.run(a_trial(adapter), split, text)[0] for text in (text, replace(text, variants=None)))
    assert several.curve == one.curve
    assert several.test == one.test


def arrays_of(word, texts, home):
    encoder = _base.encoder(word, home)
    matrices = embeddings.matrices(encoder, texts, home)
    basis = embeddings.basis(matrices["E"], embeddings.embedding_hash(encoder, texts), home)
    return {"U": basis.U, "S": basis.S, "V": basis.V, "mean": basis.mean, **matrices}


@pytest.mark.parametrize("adapter", ["mlp", "pca_moe", "whitenrec_plus"])
def test_equal_texts_give_the_numbers_of_one_text_bit_for_bit(split, prepared, tmp_path, adapter):
    texts = embeddings.texts_of(prepared)
    one, equal, several = (
        trial.run(a_trial(adapter), split, trial.spectrum(arrays_of(word, texts, tmp_path), 0))
        for word in ("noise", "variants:noise+noise+noise", "variants:noise+shuffled:noise")
    )
    assert equal[0].curve == one[0].curve
    assert equal[1].weights == one[1].weights
    assert equal[1].weights == one[1].weights
    assert several[0].curve != one[0].curve

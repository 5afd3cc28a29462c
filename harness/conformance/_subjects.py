"""The components under test, and small models made of them."""

import functools

import pytest
import torch

from adapters._base import FUSIONS, ItemTable, Step
from harness import overlay, registry
from harness.conformance.spectra import toy_spectrum
from harness.training.losses.softmax import Softmax
from harness.training.model import Batch, SequenceModel
from harness.types import HarnessError

OWN = overlay.current().components
D, MAX_LEN = 8, 6


def names_of(package):
    """Return the names to test: the components from outside harness if there are any, else the built-in ones."""
    return [name for name in registry.names(package) if not OWN or (package, name) in OWN]


def parametrized(*packages):
    """Return the mark that runs a test once per component of these packages."""
    pairs = [(package, name) for package in packages for name in names_of(package)]
    return pytest.mark.parametrize(("package", "name"), pairs, ids=[f"{package}/{name}" for package, name in pairs])


def fusions_of(name):
    """Return the ways in which the seam may fuse an adapter with an ID embedding."""
    try:
        attributes = registry.schema(registry.ADAPTERS, name).attributes
    except HarnessError:  # a broken file, reported by the tests of the component
        return ("none",)
    return FUSIONS if attributes.get("uses_text", True) and not attributes.get("fuses") else ("none",)


def make_adapter(name, spectrum=None, d=D, **own):
    torch.manual_seed(0)
    return registry.load(registry.ADAPTERS, name)(spectrum or toy_spectrum(), d, **own)


def make_table(name, fusion="none", **own):
    d = D // 2 if fusion == "concat" else D
    return ItemTable(make_adapter(name, d=d, **own), D, fusion=fusion, out_std=0.05, id_std=0.02)


def make_backbone(name, seed=0, **own):
    torch.manual_seed(seed)
    return registry.load(registry.BACKBONES, name)(D, MAX_LEN, **own)


def batch():
    """Right-padded item numbers of 60 items, (4, MAX_LEN + 1)."""
    g = torch.Generator().manual_seed(1)
    items = torch.randint(1, 61, (4, MAX_LEN + 1), generator=g)
    items[1, 4:] = 0
    items[3, 2:] = 0
    return items


def model_of(table, backbone):
    return SequenceModel(table, backbone, Softmax(table.adapter.n))


def loss_of(table, backbone):
    times = times_of(batch()) if backbone.uses_time else None
    return model_of(table, backbone).loss(
        Batch(batch(), torch.tensor([0, 1, 2, 5]), times), torch.Generator().manual_seed(2)
    )


def stirred(module):
    """The module a little away from its start, where a factor that starts at zero keeps a gradient from the other."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.01 * torch.randn(p.shape, generator=generator))
    return module


def assert_all_are_reached(parameters):
    """Assert that every parameter, by name, has a finite gradient that is not zero everywhere."""
    bad = [n for n, p in parameters.items() if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()]
    assert not bad, f"no gradient, or one that is not finite, reaches: {', '.join(bad)}"


def step_of(model):
    """The step that `batch` is, as an auxiliary loss is given it."""
    T, sequences = model.table(), batch()
    inputs, targets = sequences[:, :-1], sequences[:, 1:]
    states = model.states(inputs, T)[targets > 0]
    users = torch.tensor([0, 1, 2, 5])
    encode = functools.partial(model.last_states, table=T)
    return Step(sequences, users, states, targets[targets > 0] - 1, encode, MAX_LEN)


def times_of(items):
    """Event times of item numbers, (rows, L), later from left to right, zeros on padding."""
    steps = torch.randint(1, 10**6, items.shape, generator=torch.Generator().manual_seed(5))
    return 1_300_000_000 * (items > 0) + steps.cumsum(1) * (items > 0)


def states_of(backbone, x, real):
    """The backbone's states of item vectors, at times that depend on the position alone."""
    times = (torch.arange(x.shape[1] + 1) * 86_400).expand(len(x), -1) if backbone.uses_time else None
    return backbone(x, real, times)


def width_of(name):
    return registry.load(registry.ADAPTERS, name).views * D


ADAPTERS, BACKBONES = names_of(registry.ADAPTERS), names_of(registry.BACKBONES)
FUSED = [(name, fusion) for name in ADAPTERS for fusion in fusions_of(name)]
each_adapter = pytest.mark.parametrize("name", ADAPTERS)
each_backbone = pytest.mark.parametrize("name", BACKBONES)
each_fused = pytest.mark.parametrize(("name", "fusion"), FUSED)
each_model = parametrized(registry.ADAPTERS, registry.BACKBONES)
each_component = parametrized(registry.ADAPTERS, registry.BACKBONES, registry.LOSSES)

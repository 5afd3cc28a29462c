"""The published settings that are laid over the shipped search spaces: whole, fixed, cited, and ready to train."""

import math
import re
import tomllib
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import make_dataset

from harness import registry
from harness.data import preparation, reader, splits
from harness.search import axes, spaces
from harness.training import trial
from harness.types import Cell, Inputs, PrepSpec, Protocol, Trial

ROOT = registry.folder_of("search_spaces") / "published"
FOLDERS = sorted(folder.name for folder in ROOT.iterdir())
FILES = sorted(str(file.relative_to(ROOT)) for file in ROOT.rglob("*") if file.is_file())
PACKAGES = {"adapters": registry.ADAPTERS, "backbones": registry.BACKBONES, "losses": registry.LOSSES}
SHARED = {"train": spaces.TRAIN_DEFAULTS, "text": spaces.TEXT_DEFAULTS}

each_folder = pytest.mark.parametrize("folder", FOLDERS)
each_file = pytest.mark.parametrize("file", FILES)


def named(folder, package):
    return sorted(file.stem for file in (ROOT / folder / package).glob("*.toml"))


CELLS = [(folder, a, b) for folder in FOLDERS for a in named(folder, "adapters") for b in named(folder, "backbones")]
each_cell = pytest.mark.parametrize(("folder", "adapter", "backbone"), CELLS, ids=["/".join(cell) for cell in CELLS])


def space_of(folder, adapter, backbone):
    source = spaces.SpaceSource(ROOT / folder)
    source.check()
    return spaces.of_cell(Cell("toy", "minilm", backbone, adapter), source)


@each_file
def test_a_file_says_whose_settings_these_are(file):
    lines = (ROOT / file).read_text().splitlines()
    comment = " ".join(takewhile(lambda line: line.startswith("#"), lines))
    assert re.search(r"\b(201[5-9]|202\d)\b", comment), "the comment at the top names no publication with its year"
    assert max(map(len, lines)) <= 120


@each_file
def test_a_file_fixes_every_parameter_of_its_component(file):
    path = Path(file)
    if len(path.parts) == 2:
        defaults, implied = SHARED[path.stem], spaces.TRAIN_IMPLIED if path.stem == "train" else ()
    else:
        assert path.stem in registry.names(PACKAGES[path.parts[1]]), "the name of a component, spelled as its file"
        schema = registry.schema(PACKAGES[path.parts[1]], path.stem)
        defaults, implied = schema.params, schema.attributes.get("implied", ())
    space = spaces.read(ROOT / file, path.stem, defaults)
    assert not [name for name, axis in space.items() if isinstance(axis, axes.Range | axes.Choices)]
    left_open = {name for name, default in defaults.items() if name not in space and default is not None}
    left_open -= set(implied)  # whose defaults never change
    assert not left_open, "a default that changes would change what was published"


@each_folder
def test_a_folder_is_whole(folder):
    assert (ROOT / folder / "train.toml").is_file()
    assert named(folder, "adapters")
    assert named(folder, "backbones")
    loss = tomllib.loads((ROOT / folder / "train.toml").read_text())["loss"]
    schema = registry.schema(registry.LOSSES, loss)
    used = [loss] if set(schema.params) - set(schema.attributes.get("implied", ())) else []
    assert named(folder, "losses") == used, "settings of the loss that is trained, and of no other"
    reads_text = [a for a in named(folder, "adapters") if a != "id"]
    assert (ROOT / folder / "text.toml").is_file() == bool(reads_text)
    known = {"train.toml", "text.toml"} | {f"{p}/{n}.toml" for p in PACKAGES for n in named(folder, p)}
    assert {str(f.relative_to(ROOT / folder)) for f in (ROOT / folder).rglob("*") if f.is_file()} <= known


@each_cell
def test_nothing_is_left_to_search_in_a_published_cell(folder, adapter, backbone):
    assert space_of(folder, adapter, backbone).searched == {}


@each_folder
def test_the_shipped_ranges_hold_the_published_settings_of_training(folder):
    shipped = spaces.read(ROOT.parent / "train.toml", "train", spaces.TRAIN_DEFAULTS, spaces.TRAIN_DOMAINS)
    ranges = {name: axis for name, axis in shipped.items() if isinstance(axis, axes.Range | axes.Choices)}
    assert set(ranges) == {"lr", "weight_decay"}
    published = tomllib.loads((ROOT / folder / "train.toml").read_text())
    outside = {name: published[name] for name, axis in ranges.items() if not axis.holds(published[name])}
    assert outside in ({}, {"weight_decay": 0.0}), "none at all is a fixed value, which no range on a log scale holds"


@each_folder
@pytest.mark.parametrize(("adapter", "backbone"), [("id", None), (None, "sasrec"), ("id", "sasrec")])
def test_other_rows_can_be_trained_beside_the_published_ones(folder, adapter, backbone):
    adapters = [adapter] if adapter else named(folder, "adapters")
    for a in adapters:
        for b in [backbone] if backbone else named(folder, "backbones"):
            space = space_of(folder, a, b)
            assert not [name for name in space.searched if name.startswith(("train.", "loss."))]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """160 items with text of rank 140, so that methods which keep d = 128 components of it can be built."""
    folder = tmp_path_factory.mktemp("published")
    dataset = make_dataset(folder / "toy", users=240, items=160)
    split = splits.split(preparation.prepare(reader.open_dataset(str(dataset), folder), PrepSpec(), folder), Protocol())
    E = np.random.default_rng(0).normal(size=(split.n_items, 140)).astype(np.float32)
    U, S, Vt = np.linalg.svd(E - E.mean(0), full_matrices=False)
    return split, {"U": U, "S": S, "V": np.ascontiguousarray(Vt.T), "mean": E.mean(0), "E": E}


@each_cell
def test_a_published_cell_can_be_trained(folder, adapter, backbone, toy):
    split, arrays = toy
    params = space_of(folder, adapter, backbone).default
    work = Trial(Cell("toy", "noise", backbone, adapter), "search", 0, 1, 1, params, Protocol(), Inputs(data="x"))
    training = trial.Training(work, split, trial.spectrum(arrays, split.n_items))
    starts, lengths = training.windows.starts[:30], training.windows.lengths[:30]
    losses = [training.step(training.batch(starts, lengths), torch.Generator().manual_seed(s)).item() for s in range(2)]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert torch.isfinite(training.model.table()).all()

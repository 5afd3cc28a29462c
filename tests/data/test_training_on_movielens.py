"""Train every adapter and every backbone for a few epochs on MovieLens-100K: each must beat the popularity baseline."""

import pytest
from dataset_files import SHARED

from harness import registry
from harness.data import preparation, reader, splits
from harness.metrics._all import HEADLINE
from harness.search import spaces
from harness.text import embeddings
from harness.text.encoders import _base
from harness.training import trial
from harness.types import BASELINE, NO_TEXT, Cell, Inputs, PrepSpec, Protocol, Trial

FOLDER = SHARED / "ml-100k"
EPOCHS = 4
CELLS = [(name, "sasrec") for name in registry.names(registry.ADAPTERS)]
CELLS += [("id", name) for name in registry.names(registry.BACKBONES) if name != "sasrec"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the research data sets are not beside the checkout"),
]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    prepared = preparation.prepare(reader.open_dataset(str(FOLDER), home), PrepSpec(), home)
    texts, encoder = embeddings.texts_of(prepared), _base.encoder(f"file:{FOLDER / 'emb_minilm384_meta.npy'}", home)
    E = embeddings.embed(encoder, texts, home)
    basis = embeddings.basis(E, embeddings.embedding_hash(encoder, texts), home)
    arrays = {"U": basis.U, "S": basis.S, "V": basis.V, "mean": basis.mean, "E": E}
    return splits.split(prepared, Protocol()), arrays


@pytest.fixture(scope="module")
def floor(material):
    split, _ = material
    popular = Trial(Cell("ml-100k", NO_TEXT, BASELINE, "popularity"), "confirm", 0, 0, 0, {}, Protocol(), Inputs())
    return trial.run(popular, split, trial.spectrum({}, split.n_items))[0]


@pytest.mark.parametrize(("adapter", "backbone"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_a_few_epochs_beat_popularity(material, floor, adapter, backbone):
    split, arrays = material
    cell = Cell("ml-100k", "minilm", backbone, adapter)
    pace = registry.schema(registry.BACKBONES, backbone).attributes.get("pace", 1)
    params = spaces.of_cell(cell, spaces.SpaceSource()).default
    made = Trial(cell, "confirm", 1, pace * EPOCHS, 0, params, Protocol(), Inputs())
    reads = registry.schema(registry.ADAPTERS, adapter).attributes.get("uses_text", True)
    result, _ = trial.run(made, split, trial.spectrum(arrays if reads else {}, split.n_items))
    assert result.test[HEADLINE] > floor.test[HEADLINE]
    assert result.valid[HEADLINE] > floor.valid[HEADLINE]

"""A grid with several texts an item from its plan to its table, its weights and its numbers made again."""

import re
import shutil

import numpy as np
import pytest
import safetensors.numpy
import small_homes
import torch
from command_line import harness as command
from dataset_files import make_dataset

from harness.data import reader
from harness.record.ledger import Ledger
from harness.report import ledger_frames, row_lookup, tables
from harness.training import exported_model
from harness.workflows import export, provenance, reproduce

WORD = "variants:own:title+own:full"
PINS = {**small_homes.SMALL, "text.fusion": "none"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with rows over one text and over two, of which an item lacks the first."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("variants")
    folder = make_dataset(root / "shop")
    for seed, name in enumerate(("title", "full")):
        E = np.random.default_rng(seed).normal(size=(40, 24)).astype(np.float32)
        E[5] *= seed
        np.save(folder / f"{name}.npy", E)
    (folder / "dataset.toml").write_text('[embeddings]\ntitle = "title.npy"\nfull = "full.npy"\n')
    home = root / "home"
    home.mkdir()
    grid = small_homes.request(home, folder, "id,linear,svd,id+svd", encoders=f"own:title,{WORD}", pins=PINS)
    small_homes.run(grid)
    return home


def printed(home):
    return tables.render(tables.build(ledger_frames.of_home(home)), "md")


def curves(home, encoder, adapter):
    ledger = Ledger.open(home)
    row = row_lookup.find(row_lookup.of(ledger), f"{encoder}/sasrec/{adapter}")
    return [ledger.trials[trial.id].result.curve for trial in row_lookup.confirmed(ledger, row)]


def test_rows_over_several_texts_stand_beside_those_over_one(made):
    table = printed(made)
    assert table.count(WORD) >= 3
    assert curves(made, WORD, "linear") != curves(made, "own:title", "linear")


def test_the_table_names_the_rows_that_train_on_the_mean(made):
    assert re.findall(r"Trained on the mean of an item's texts[^:]*: ([^.]*)\.", printed(made)) == ["svd"]


def test_an_export_maps_the_text_of_an_unseen_item_as_the_mean_of_known_ones(made, tmp_path):
    report = export.write(made, f"{WORD}/sasrec/linear", tmp_path / "out")
    assert report.equal == report.queries
    linear = safetensors.numpy.load_file(report.folder / exported_model.LINEAR)
    table = safetensors.numpy.load_file(report.folder / exported_model.TABLE)["item_table"]
    texts = np.stack([np.load(made.parent / "shop" / f"{name}.npy") for name in ("title", "full")])
    E = texts.sum(0) / (texts != 0).any(2).sum(0)[:, None]
    np.testing.assert_allclose(E @ linear["W"] + linear["b"], table, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("adapter", ["linear", "id+svd"])
def test_the_numbers_are_made_again_to_the_last_digit(made, adapter):
    done = command(made, "reproduce", f"{WORD}/sasrec/{adapter}", "--dataset", str(made.parent / "shop"))
    assert done.returncode == 0, done.stderr
    assert "Equal to the last bit." in done.stdout
    assert "its encoder" not in done.stdout


@pytest.mark.parametrize("encoder", ["own:title", WORD])
def test_matrices_of_a_registered_data_set_are_checked_with_the_cached_sequences(made, encoder, tmp_path):
    home = shutil.copytree(made, tmp_path / "home")
    ledger = Ledger.open(home)
    row = row_lookup.find(row_lookup.of(ledger), f"{encoder}/sasrec/linear")
    [trial, *_] = row_lookup.confirmed(ledger, row)

    def here():
        return reproduce.check(home, row, trial, provenance.provenance())["embedding"]

    assert here()[1].startswith("not checked"), "its folder is not known"
    reader.register("shop", made.parent / "shop", home)
    assert here() == (trial.inputs.embedding,) * 2


def test_a_damaged_embedding_is_set_aside_and_encoded_by_the_next_command(made, tmp_path):
    home = shutil.copytree(made, tmp_path / "home")
    row, words = f"{WORD}/sasrec/linear", ["--dataset", str(made.parent / "shop")]
    for verb in ("export", "reproduce"):
        for file in (home / "cache" / "embeddings").glob("*/E.npy"):
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(data)
        out = ["--output", str(tmp_path / "out")] if verb == "export" else []
        first = command(home, verb, row, *out, *words)
        assert first.returncode == 2
        assert "Give the command again to encode its texts again." in first.stderr
        assert not (tmp_path / "out" / "model.json").exists()
        again = command(home, verb, row, *out, *words)
        assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / exported_model.LINEAR).is_file()

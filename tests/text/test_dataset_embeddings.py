"""One word for the embeddings that data sets bring along, each under a file name of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import small_homes
from command_line import harness
from dataset_files import make_dataset

from harness import registry
from harness.checks import linter
from harness.data import library, preparation, reader, splits
from harness.record.ledger import Ledger
from harness.search import plan, selection
from harness.text import embeddings
from harness.text.encoders import _base
from harness.text.encoders.file import File
from harness.types import HarnessError, PrepSpec
from harness.workflows import components, shared_data


def with_matrix(folder: Path, file: str, seed: int, toml: str = "") -> np.ndarray:
    """A data set folder with a matrix (items, 6) float32 in that file, and a dataset.toml."""
    make_dataset(folder, users=30, items=20, seed=seed)
    E = np.random.default_rng(seed).standard_normal((20, 6)).astype(np.float32)
    np.save(folder / file, E)
    if toml:
        (folder / "dataset.toml").write_text(toml)
    return E


def opened(word: str, home: Path) -> tuple[splits.Prepared, _base.Texts]:
    prepared = preparation.prepare(reader.open_dataset(word, home), PrepSpec(kcore=0), home)
    return prepared, embeddings.texts_of(prepared)


def hash_of(folder: str, word: str, home: Path) -> str:
    return embeddings.embedding_hash(_base.encoder(word, home), opened(folder, home)[1])


@pytest.mark.parametrize("word", ["own:titles", "own"])
def test_one_word_reads_the_matrix_that_each_folder_declares(tmp_path, home, word):
    for name, seed in (("a", 1), ("b", 2)):
        E = with_matrix(tmp_path / name, f"E-{name}.npy", seed, f'[embeddings]\ntitles = "E-{name}.npy"\n')
        prepared, texts = opened(str(tmp_path / name), home)
        assert prepared.card.own_embeddings == ["titles"]
        rows = prepared.catalogue["source_row"].to_list()
        np.testing.assert_array_equal(embeddings.embed(_base.encoder(word, home), texts, home), E[rows])


def test_it_is_the_embedding_that_the_file_itself_would_be_and_controls_read_it_too(tmp_path, home):
    with_matrix(tmp_path / "a", "E.npy", 1, '[embeddings]\ntitles = "E.npy"\n')
    _, texts = opened(str(tmp_path / "a"), home)
    for own, file in (("own:titles", "file:"), ("shuffled:own", "shuffled:file:")):
        made = [_base.encoder(word, home) for word in (own, f"{file}{tmp_path}/a/E.npy")]
        assert len({embeddings.embedding_hash(encoder, texts) for encoder in made}) == 1
    assert _base.encoder("own:titles", home).label == "own:titles"


def test_a_registered_folder_that_cannot_be_written_to_has_its_embeddings_in_the_config(tmp_path, home):
    E = with_matrix(tmp_path / "a", "E.npy", 1)
    elsewhere = tmp_path / "else.npy"
    np.save(elsewhere, -E)
    own = ["--embedding", "titles=E.npy", "--embedding", f"minus={elsewhere}"]
    done = harness(home, "register", "shop", str(tmp_path / "a"), *own)
    assert done.returncode == 0, done.stderr
    assert f"own:minus of shop: {elsewhere}\n" in done.stdout
    before = library.config_file(home).read_bytes()
    assert harness(home, "register", "shop", str(tmp_path / "a"), "--embedding", "titles=E.npy").returncode == 0
    assert library.config_file(home).read_bytes() == before
    prepared, texts = opened("shop", home)
    assert prepared.card.own_embeddings == ["minus", "titles"]
    minus, titles = (embeddings.embed(_base.encoder(f"own:{word}", home), texts, home) for word in ("minus", "titles"))
    np.testing.assert_array_equal(minus, -titles)


def test_a_plan_over_two_data_sets_takes_one_word_and_alternatives_in_braces(tmp_path, home):
    for name in ("set-a", "set-b"):
        with_matrix(tmp_path / name, f"{name}.npy", 1)
        reader.register(name, tmp_path / name, home, {"text": Path(f"{name}.npy")})
    for words in (["--datasets", "set-{a,b}"], ["--datasets", "set-a", "set-b"], ["set-a,set-b"]):
        done = harness(home, "plan", *words, "--adapters", "svd", "--encoders", "own:text", "--kcore", "0", "--json")
        assert done.returncode == 0, done.stderr
        cells = json.loads(done.stdout)["cells"]
        with_text = {c["dataset"] for c in cells if c["encoder"] == "own:text" and c["adapter"] == "svd"}
        assert with_text == {"set-a", "set-b"}


@pytest.mark.parametrize(
    ("toml", "word", "says"),
    [
        ("", "own:titles", "'a' declares no embedding"),
        ('[embeddings]\ntitles = "E.npy"\n', "own:title", "declares no 'title'. Did you mean 'titles'?"),
        ('[embeddings]\nx = "E.npy"\ny = "E.npy"\n', "own", "declares several. Known: x, y."),
        ('[embeddings]\ntitles = "gone.npy"\n', "own:titles", "gone.npy: no such file"),
        ('[embeddings]\ntitles = "E.pkl"\n', "own:titles", "'.pkl' is not the suffix of a matrix file"),
        ("embeddings = 3\n", "own:titles", "embeddings must be a table"),
        ("[embeddings]\ntitles = 3\n", "own:titles", "embeddings.titles must be the path of a file in quotes"),
        ('[embeddings]\n"../x" = "E.npy"\n', "own:titles", "'../x' is not a valid name for an embedding"),
    ],
)
def test_what_is_not_declared_or_not_there_is_one_clear_line(tmp_path, home, toml, word, says):
    with_matrix(tmp_path / "a", "E.npy", 1, toml)
    with pytest.raises(HarnessError) as caught:
        hash_of(str(tmp_path / "a"), word, home)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("embedding", "says"),
    [
        ("titles=gone.npy", "There is no file gone.npy"),
        ("titles", "is not WORD=FILE, such as titles=E.npy"),
        ("a b=E.npy", "'a b' is not a valid name for an embedding"),
    ],
)
def test_what_cannot_be_registered_changes_nothing(tmp_path, home, embedding, says):
    with_matrix(tmp_path / "a", "E.npy", 1)
    done = harness(home, "register", "shop", str(tmp_path / "a"), "--embedding", embedding)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not library.config_file(home).exists()


def test_another_file_under_a_name_that_is_taken_is_refused(tmp_path, home):
    with_matrix(tmp_path / "a", "E.npy", 1)
    reader.register("shop", tmp_path / "a", home, {"titles": Path("E.npy")})
    np.save(tmp_path / "a" / "F.npy", np.ones((20, 2)))
    with pytest.raises(HarnessError, match="already has embeddings"):
        reader.register("shop", tmp_path / "a", home, {"titles": Path("F.npy")})


def test_the_linter_counts_the_faults_of_an_own_embedding(tmp_path, home):
    E = with_matrix(tmp_path / "a", "E.npy", 1, '[embeddings]\ntitles = "E.npy"\n')
    E[3] = np.nan
    np.save(tmp_path / "a" / "E.npy", E)
    report = linter.examine(str(tmp_path / "a"), home, "own:titles", PrepSpec(kcore=0))
    assert report.encoder == "own:titles"
    assert [(f.count, f.total) for f in report.findings if f.name == "NaN rows"] == [(1, 20)]


def rewrite(file: Path, seed: int) -> None:
    """Another matrix (20, 6) under the same name, a second later."""
    time = file.stat().st_mtime + 1
    np.save(file, np.random.default_rng(seed).standard_normal((20, 6)).astype(np.float32))
    os.utime(file, (time, time))


@pytest.mark.parametrize("word", ["own", "shuffled:own"])
def test_a_matrix_that_is_written_while_it_is_read_is_not_cached(tmp_path, home, word, monkeypatch):
    with_matrix(tmp_path / "a", "E.npy", 1, '[embeddings]\ntitles = "E.npy"\n')
    _, texts = opened(str(tmp_path / "a"), home)
    encode = File.encode

    def written_meanwhile(self, *words):
        rewrite(tmp_path / "a" / "E.npy", 2)
        return encode(self, *words)

    monkeypatch.setattr(File, "encode", written_meanwhile)
    with pytest.raises(HarnessError, match=r"changed while it was read; run the command again\."):
        embeddings.embed(_base.encoder(word, home), texts, home)
    assert list((home / "cache" / "embeddings").iterdir()) == []


def test_a_matrix_that_is_written_after_the_plan_is_not_trained_on_under_the_old_hash(tmp_path, home):
    E = with_matrix(tmp_path / "a", "E.npy", 1, '[embeddings]\ntitles = "E.npy"\n')
    pins = small_homes.SMALL | {"train.d": 4}
    made = small_homes.request(home, tmp_path / "a", "svd", encoders="own", pins=pins)
    grid = plan.make(made, Ledger.open(home))
    rewrite(tmp_path / "a" / "E.npy", 2)
    with pytest.raises(HarnessError, match="'own' changed while it was read"):
        shared_data.prepare(grid)
    np.save(tmp_path / "a" / "E.npy", E)
    [(basis, arrays)] = shared_data.prepare(grid).values()
    np.testing.assert_allclose(basis.U * basis.S @ basis.V.T + basis.mean, arrays["E"], atol=1e-5)


def test_a_card_tells_of_them_without_a_path(tmp_path, home):
    with_matrix(tmp_path / "a", "E.npy", 1, '[embeddings]\ntitles = "E.npy"\n')
    told = components.details(components.one(str(tmp_path / "a"), home, PrepSpec(kcore=0)))
    assert "own:titles" in told
    assert "E.npy" not in told


COMMAS = "runs, old {1,2}[3]"


def test_a_path_with_commas_is_written_in_double_quotes(tmp_path, home):
    (tmp_path / COMMAS).mkdir()
    E = with_matrix(tmp_path / "a", "unused.npy", 1)
    np.save(tmp_path / COMMAS / "E,F.npy", E)
    word = f'file:"{tmp_path / COMMAS}/E,F.npy"'
    done = harness(home, "prepare", str(tmp_path / "a"), "--encoders", f"noise,shuffled:{word},{word}", "--kcore", "0")
    assert done.returncode == 0, done.stderr
    plain = f"file:{tmp_path / COMMAS}/E,F.npy"
    for given in (word, plain):
        assert linter.examine(str(tmp_path / "a"), home, given, PrepSpec(kcore=0)).encoder == plain
    assert [encoder.word for encoder in selection.encoders(f"{word},noise", home).values()] == [plain, "noise"]
    assert registry.split_list(f"noise,{registry.quoted(plain)}") == ["noise", plain]


def test_a_path_that_was_cut_at_its_comma_is_refused_with_the_way_to_write_it(tmp_path, home):
    np.save(tmp_path / "E,F.npy", np.ones((2, 2)))
    with pytest.raises(HarnessError, match=r"There is 'E,F\.npy': put a path with a comma in double quotes"):
        _base.encoder(f"file:{tmp_path}/E", home)
    (tmp_path / "v1.npy,x").mkdir()
    with pytest.raises(HarnessError, match=r"There is 'v1\.npy,x': put"):
        _base.encoder(f"file:{tmp_path}/v1.npy", home)
    with_matrix(tmp_path / "shop, new", "E.npy", 1, 'name = "shop"')
    whole = f"{tmp_path}/shop, new"
    assert selection.datasets(f'"{whole}",ml-100k,!ml-100k', home) == [whole]
    assert reader.open_dataset(whole, home).name == "shop"
    with pytest.raises(HarnessError, match=r"shop is not a folder.*There is 'shop, new': put a path"):
        reader.open_dataset(selection.datasets(whole, home)[0], home)


def test_a_matrix_that_is_a_folder_is_refused_as_one(tmp_path, home):
    (tmp_path / "E.parquet").mkdir()
    with pytest.raises(HarnessError, match=r"E\.parquet is a folder; a matrix must be one file"):
        _base.encoder(f"file:{tmp_path}/E.parquet", home)

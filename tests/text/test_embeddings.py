"""The cache of embeddings and bases: computed once, opened without being read, never silently wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import harness
from text_catalogues import catalogue, damaged_somewhere, matrix

from harness.data import preparation, reader
from harness.system import checksums, files
from harness.text import embeddings
from harness.text.embeddings import basis, embed, embedding_hash, reporter, texts_of
from harness.text.encoders import _base, noise
from harness.text.encoders._base import Texts, encoder
from harness.types import HarnessError, PrepSpec


class Fixed(_base.Encoder):
    """An encoder of a given matrix that counts how often it is run."""

    def __init__(self, E: np.ndarray, home: Path) -> None:
        super().__init__("", home)
        self.E, self.runs = E, 0

    def encode(self, texts: Texts, progress: _base.Progress) -> np.ndarray:
        self.runs += 1
        return self.E


# --- the embedding cache


def test_the_texts_of_a_prepared_data_set_know_their_rows_in_the_items_file(dataset, home, tmp_path):
    raw = pl.read_parquet(dataset / "items.parquet")
    extra = pl.DataFrame({"item_id": ["a-first", "z-last"], "title": ["nobody", "bought these"]})
    pl.concat([extra[:1], raw[5:].reverse(), raw[1:5], extra[1:]]).write_parquet(dataset / "items.parquet")  # no i000
    texts = texts_of(preparation.prepare(reader.open_dataset(str(dataset), home), PrepSpec(kcore=0), home))
    source = pl.read_parquet(dataset / "items.parquet")
    assert len(texts) == 40
    assert texts.n_source_rows == len(source) == 41
    assert (texts.texts[0], texts.source_rows[0]) == (None, None)
    for item, text, row in zip(texts.item_ids[1:], texts.texts[1:], texts.source_rows[1:], strict=True):
        assert source.row(row) == (item, text)
    saved = matrix(41)
    np.save(tmp_path / "m.npy", saved)
    E = embed(encoder(f"file:{tmp_path}/m.npy", home), texts, home)
    np.testing.assert_array_equal(E[7], saved[source["item_id"].to_list().index(texts.item_ids[7])])


def test_the_hash_of_an_embedding_is_known_without_torch_and_without_the_model(tmp_path):
    code = (
        "import sys; from pathlib import Path; from harness.text.embeddings import embedding_hash\n"
        "from harness.text.encoders._base import Texts, encoder\n"
        "t = Texts(['a'], ['x'], [0], 1); h = Path(sys.argv[1])\n"
        "for word in ('minilm', 'noise', 'shuffled:minilm'): print(embedding_hash(encoder(word, h), t))\n"
        "heavy = {'torch', 'sentence_transformers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert len(set(run.stdout.split())) == 3
    assert not any(tmp_path.iterdir())


def test_a_hash_follows_the_texts_of_a_text_encoder_and_not_its_ids(tmp_path):
    texts, here = catalogue(), encoder("minilm", tmp_path)
    renamed = replace(texts, item_ids=["a", "b", "c", "d"])
    changed = replace(texts, texts=["other", *texts.texts[1:]])
    assert embedding_hash(here, renamed) == embedding_hash(here, texts)
    assert embedding_hash(here, changed) != embedding_hash(here, texts)


def test_raising_an_encoders_version_changes_its_hash(tmp_path, monkeypatch):
    before = embedding_hash(encoder("shuffled:noise", tmp_path), catalogue())
    monkeypatch.setattr(noise.Noise, "version", 2)
    assert embedding_hash(encoder("shuffled:noise", tmp_path), catalogue()) != before


def test_an_embedding_is_computed_once_and_then_mapped_from_disk(tmp_path):
    E = matrix()
    fixed = Fixed(E, tmp_path)
    first, second = embed(fixed, catalogue(), tmp_path), embed(fixed, catalogue(), tmp_path)
    assert fixed.runs == 1
    assert isinstance(second, np.memmap)
    assert second.dtype == np.float32
    np.testing.assert_array_equal(first, E)
    np.testing.assert_array_equal(second, E)


def test_float16_and_float64_matrices_are_stored_as_float32(tmp_path):
    for dtype in (np.float16, np.float64):
        E = matrix().astype(dtype)
        stored = embed(Fixed(E, tmp_path / str(np.dtype(dtype))), catalogue(), tmp_path / str(np.dtype(dtype)))
        np.testing.assert_array_equal(stored, E.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_and_its_item_named(tmp_path, bad):
    E = matrix()
    E[2, 1] = bad
    with pytest.raises(HarnessError, match=r"the embedding of item 'i2' \(row 2\) is NaN or infinite"):
        embed(Fixed(E, tmp_path), catalogue(), tmp_path)
    assert not list((tmp_path / "cache" / "embeddings").iterdir())


def test_the_first_bad_item_is_named_in_a_matrix_of_many_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.text.basis.CHUNK", 8 * 3 * 2)
    E = matrix(50)
    E[37] = E[44] = np.nan
    with pytest.raises(HarnessError, match="item 'i37'"):
        embed(Fixed(E, tmp_path), catalogue(50), tmp_path)


def test_a_matrix_of_the_wrong_shape_is_refused(tmp_path):
    for E in (matrix(3), matrix().ravel()):
        with pytest.raises(HarnessError, match="for 4 items; it must be 2-D"):
            embed(Fixed(E, tmp_path), catalogue(), tmp_path)


def test_a_matrix_whose_rows_are_all_equal_or_all_zero_is_refused(tmp_path):
    constant = np.ones((4, 3), np.float32)
    constant[1] = 0  # a missing text does not make the others differ
    with pytest.raises(HarnessError, match="all items with text have the same embedding"):
        embed(Fixed(constant, tmp_path), catalogue(), tmp_path)
    with pytest.raises(HarnessError, match="all 4 rows are zero"):
        embed(Fixed(np.zeros((4, 3)), tmp_path), catalogue(), tmp_path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damaged_somewhere, cut_short, emptied, Path.unlink])
@pytest.mark.parametrize("name", ["E.npy", "about.json"])
def test_a_damaged_cache_is_named_set_aside_and_made_again(tmp_path, harm, name, capsys):
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    (file,) = (tmp_path / "cache" / "embeddings").glob(f"*/{name}")
    harm(file)
    again = Fixed(matrix(), tmp_path)
    np.testing.assert_array_equal(embed(again, catalogue(), tmp_path), matrix())
    assert again.runs == 1
    aside = file.parent.with_name(f"{file.parent.name}.damaged-1")
    assert aside.is_dir()
    assert f"Warning: {file.parent} is damaged" in (said := capsys.readouterr().err)
    assert aside.name in said


def test_a_damaged_embedding_that_was_paid_for_is_set_aside_and_not_paid_again_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "Api", Fixed)
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    (file,) = (tmp_path / "cache" / "embeddings").glob("*/E.npy")
    damaged_somewhere(file)
    again = Fixed(matrix(), tmp_path)
    with pytest.raises(HarnessError, match=r"E.npy has changed since it was written.*aside as .*damaged-1.*good copy"):
        embed(again, catalogue(), tmp_path)
    assert again.runs == 0
    embed(again, catalogue(), tmp_path)
    assert again.runs == 1


def test_an_array_of_another_shape_is_refused(tmp_path):
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    (file,) = (tmp_path / "cache" / "embeddings").glob("*/E.npy")
    np.save(file, matrix(5))
    again = Fixed(matrix(), tmp_path)
    assert embed(again, catalogue(), tmp_path).shape == (4, 3)
    assert again.runs == 1


def settled(home: Path) -> Path:
    """The file of a cached 4 x 3 embedding that was found right when it was no longer new."""
    embed(Fixed(matrix(), home), catalogue(), home)
    time.sleep(0.05)
    embed(Fixed(matrix(), home), catalogue(), home)
    return next((home / "cache" / "embeddings").glob("*/E.npy"))


def read_in_full(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the arrays that are read in full from now on."""
    names: list[str] = []
    sha256 = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: names.append(path.name) or sha256(path))
    return names


def test_an_array_found_right_is_read_in_full_again_only_after_a_change(tmp_path, monkeypatch):
    file, names = settled(tmp_path), read_in_full(monkeypatch)
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    assert names == []
    os.replace(file.rename(file.with_suffix(".moved")), file)  # the same bytes, but the file's state has changed
    time.sleep(0.05)
    for _ in range(3):
        np.testing.assert_array_equal(embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path), matrix())
    assert names == ["E.npy"]


def test_a_file_so_new_that_a_change_could_bear_its_time_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "TICK", 3_600_000_000_000)
    settled(tmp_path)
    names = read_in_full(monkeypatch)
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    assert names == ["E.npy"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no time of the last change of state")
def test_a_flipped_byte_is_found_though_the_time_of_the_last_write_is_put_back(tmp_path, capsys):
    file = settled(tmp_path)
    stat = file.stat()
    damaged_somewhere(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_mtime_ns, file.stat().st_size) == (stat.st_mtime_ns, stat.st_size)
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    assert "E.npy has changed since it was written" in capsys.readouterr().err


@pytest.mark.parametrize("stamp", ["", "[]", '{"E": 7}', '{"E": null}'])
def test_a_stamp_that_cannot_be_read_is_no_damage_but_not_believed(tmp_path, monkeypatch, stamp):
    file, names = settled(tmp_path), read_in_full(monkeypatch)
    (file.parent / checksums.STAMP).write_text(stamp, encoding="utf-8")
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    assert names == ["E.npy"]


def test_a_home_that_may_only_be_read_serves_its_arrays(tmp_path, monkeypatch):
    file = settled(tmp_path)
    (file.parent / checksums.STAMP).unlink()

    def refuse(path: Path, value: object) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(files, "write_json", refuse)
    np.testing.assert_array_equal(embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path), matrix())


def test_progress_is_one_line_in_place_on_a_terminal_and_rare_lines_elsewhere(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = iter([0.0, 4.0, 12.0, 13.0, 24.0] * 2)
    monkeypatch.setattr(embeddings.time, "monotonic", lambda: next(clock))
    for stream, lines in ((io.StringIO(), 2), (Terminal(), 1)):
        tell = reporter("minilm", stream)
        for done in (0, 512, 1024, 1536, 2048):
            tell(done, 2048)
        written = stream.getvalue()
        assert written.count("\n") == lines
        assert "minilm: 1,024 of 2,048 texts, 12 s left" in written
        assert written.endswith("minilm: 2,048 of 2,048 texts, 0 s left\n")


def test_two_matrices_of_one_name_are_not_prepared_as_one(tmp_path, home, dataset):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "E.npy", matrix(40, 5))
    words = f"file:{tmp_path}/a/E.npy,file:{tmp_path}/b/E.npy"
    done = harness(home, "prepare", str(dataset), "--kcore", "0", "--encoders", words)
    assert done.returncode == 2
    assert "two encoders have the same name; rename a file" in done.stderr


# --- the cache of bases


def test_a_basis_is_computed_once_for_each_key_and_setting(tmp_path):
    E = matrix(20, 5)
    found = basis(E, "key", tmp_path)
    again = basis(np.zeros_like(E), "key", tmp_path)  # a matrix that cannot be decomposed is never looked at
    assert again.hash == found.hash
    assert again.info == found.info
    assert all(isinstance(getattr(again, name), np.memmap) for name in ("U", "S", "V", "mean"))
    others = [basis(E, "other", tmp_path), basis(E, "key", tmp_path, center=False)]
    others.append(basis(E, "key", tmp_path, tolerance=0.5))
    assert len({found.hash, *(other.hash for other in others)}) == 4
    assert len(others[2].S) < len(found.S)


@pytest.mark.parametrize("name", ["U", "S", "V", "mean"])
def test_a_damaged_basis_is_named_set_aside_and_made_again(tmp_path, name, capsys):
    good = np.array(getattr(basis(matrix(20, 5), "key", tmp_path), name))
    (file,) = (tmp_path / "cache" / "bases").glob(f"*/{name}.npy")
    damaged_somewhere(file)
    np.testing.assert_array_equal(getattr(basis(matrix(20, 5), "key", tmp_path), name), good)
    assert f"is damaged ({name}.npy has changed since it was written)" in capsys.readouterr().err
    assert list((tmp_path / "cache" / "bases").glob("*.damaged-1"))


def test_no_flipped_byte_of_a_description_changes_what_it_says(tmp_path):
    E = matrix(20, 5)
    info = basis(E, "key", tmp_path).info
    (file,) = (tmp_path / "cache" / "bases").glob("*/about.json")
    content = file.read_bytes()
    places = range(0, len(content), 5)
    for at in places:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert basis(E, "key", tmp_path).info == info
    found = len(list(file.parent.parent.glob("*.damaged-*")))  # the rest were flips such as of white space
    assert found > len(places) / 2

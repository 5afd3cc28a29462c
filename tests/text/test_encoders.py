"""Every encoder: its word, its identity, its matrix, and the line that refuses bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from dataset_files import SHARED
from safetensors.torch import save_file
from text_catalogues import catalogue, damaged_somewhere, matrix

from harness.system import files
from harness.text.embeddings import basis, can_encode, embed, embedding_hash, embedding_info
from harness.text.encoders import minilm, noise
from harness.text.encoders._base import Texts, encoder
from harness.types import HarnessError

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the research copies of the data sets are not here")


def saved(path: Path, E: np.ndarray, ids: list[str] | None = None) -> Path:
    np.save(path, E)
    if ids is not None:
        path.with_suffix(".ids.txt").write_text("".join(f"{i}\n" for i in ids))
    return path


def made(word: str, texts: Texts, home: Path) -> np.ndarray:
    return embed(encoder(word, home), texts, home)


def refusal(word: str, texts: Texts, home: Path) -> str:
    with pytest.raises(HarnessError) as error:
        made(word, texts, home)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- words and identities


def test_an_unknown_encoder_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(HarnessError, match=r"There is no encoder 'minlm'\. Did you mean 'minilm'"):
        encoder("minlm", tmp_path)


def test_an_encoder_without_its_argument_or_with_one_too_many_is_refused(tmp_path):
    with pytest.raises(HarnessError, match="'st' needs a sentence-transformers model id or folder"):
        encoder("st", tmp_path)
    with pytest.raises(HarnessError, match="'shuffled' needs the encoder to shuffle"):
        encoder("shuffled", tmp_path)
    with pytest.raises(HarnessError, match="'noise' takes no argument, but got '7'"):
        encoder("noise:7", tmp_path)
    with pytest.raises(HarnessError, match="There is no encoder 'noize'"):
        encoder("shuffled:noize", tmp_path)


def test_a_hash_never_depends_on_where_a_file_lies(tmp_path):
    one = saved(tmp_path / "one.npy", matrix())
    (tmp_path / "sub").mkdir()
    two = saved(tmp_path / "sub" / "two.npy", matrix())
    other = saved(tmp_path / "other.npy", matrix(seed=1))
    hashes = [embedding_hash(encoder(f"file:{path}", tmp_path), catalogue()) for path in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]


# --- the controls


def test_noise_of_an_item_does_not_depend_on_the_order_or_the_rest_of_the_catalogue(tmp_path):
    texts = catalogue(6)
    turned = Texts(texts.item_ids[::-1], texts.texts[::-1], texts.source_rows[::-1], 6)
    E = made("noise", texts, tmp_path)
    np.testing.assert_array_equal(made("noise", turned, tmp_path), E[::-1])
    np.testing.assert_array_equal(made("noise", catalogue(3), tmp_path), E[:3])


def test_noise_is_standard_normal_over_the_root_of_its_width_and_zero_where_text_is_missing(tmp_path):
    E = made("noise", catalogue(500, missing=(7,)), tmp_path).astype(np.float64)
    assert E.shape == (500, 384)
    assert not E[7].any()
    z = np.delete(E, 7, axis=0).ravel() * 384**0.5
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):  # of N(0, 1); 5 standard errors of 191,616 draws
        spread = (z**power).std() / len(z) ** 0.5
        assert abs((z**power).mean() - moment) < 5 * spread
    off_diagonal = np.corrcoef(np.delete(E, 7, axis=0)) - np.eye(499)
    assert np.abs(off_diagonal).max() < 6 / 384**0.5


def test_noise_is_the_same_in_every_version_of_the_code(tmp_path):
    row = made("noise", catalogue(2), tmp_path)[0, :3] * 384**0.5
    np.testing.assert_allclose(row, NOISE_I0, rtol=1e-6)


NOISE_I0 = (0.7172218, -0.2411707, -0.4862336)


def test_shuffled_deals_every_row_to_another_item_and_leaves_missing_rows_alone(tmp_path):
    texts = catalogue(40, missing=(0, 13))
    plain, shuffled = made("noise", texts, tmp_path), made("shuffled:noise", texts, tmp_path)
    assert sorted(map(bytes, plain)) == sorted(map(bytes, shuffled))
    assert not shuffled[[0, 13]].any()
    assert all((plain[i] != shuffled[i]).any() for i in range(40) if i not in (0, 13))


def test_shuffled_is_dealt_the_same_every_time_and_no_two_neighbours_stay_together(tmp_path):
    texts = catalogue(40)
    one, two = made("shuffled:noise", texts, tmp_path / "a"), made("shuffled:noise", texts, tmp_path / "b")
    np.testing.assert_array_equal(one, two)
    plain = [bytes(row) for row in made("noise", texts, tmp_path)]
    came_from = np.array([plain.index(bytes(row)) for row in one])
    assert (np.diff(came_from) == 1).mean() < 0.2


def test_shuffled_takes_the_matrix_of_the_other_encoder_from_the_cache(tmp_path, monkeypatch):
    made("noise", catalogue(), tmp_path)
    monkeypatch.setattr(noise.Noise, "encode", lambda *_: pytest.fail("computed twice"))
    made("shuffled:noise", catalogue(), tmp_path)


# --- matrices from files


def test_rows_of_a_npy_are_rows_of_the_items_file(tmp_path):
    E = matrix(6).astype(np.float16)
    texts = Texts(["a", "b", "orphan", "c"], ["x", "y", None, "z"], [5, 0, None, 2], 6)
    read = made(f"file:{saved(tmp_path / 'm.npy', E)}", texts, tmp_path)
    np.testing.assert_array_equal(read, np.stack([E[5], E[0], np.zeros(3), E[2]]).astype(np.float32))


def test_a_sidecar_of_ids_aligns_a_matrix_by_id(tmp_path):
    E, texts = matrix(5), catalogue(3)
    path = saved(tmp_path / "m.npy", E, ["i2", "extra", "i0", "more", "i1"])
    np.testing.assert_array_equal(made(f"file:{path}", texts, tmp_path), E[[2, 4, 0]])


def test_ids_that_do_not_match_are_refused_although_the_matrix_is_cached(tmp_path):
    """Computed for items without text, whose rows may be missing, and then used for items with text."""
    path = saved(tmp_path / "m.npy", matrix(3), ["i0", "i1", "x2"])
    made(f"file:{path}", catalogue(3, missing=(2,)), tmp_path)
    assert "has no row for 1 of 3 items, for example 'i2'" in refusal(f"file:{path}", catalogue(3), tmp_path)
    by_row = f"file:{saved(tmp_path / 'rows.npy', matrix(3))}"
    made(by_row, catalogue(3), tmp_path)
    grown = replace(catalogue(3), n_source_rows=4)
    assert "has 3 rows, but the items file has 4" in refusal(by_row, grown, tmp_path)


def test_noise_has_nothing_to_stand_for_without_texts(tmp_path):
    blank = catalogue(3, missing=(0, 1, 2))
    assert not can_encode(encoder("noise", tmp_path), blank)
    assert not can_encode(encoder("shuffled:noise", tmp_path), blank)
    assert can_encode(encoder("noise", tmp_path), catalogue(3, missing=(0,)))


def test_an_item_without_text_may_be_absent_from_a_file_with_ids(tmp_path):
    path = saved(tmp_path / "m.npy", matrix(3), ["i0", "i1", "i3"])
    read = made(f"file:{path}", catalogue(4, missing=(2,)), tmp_path)
    assert not read[2].any()
    np.testing.assert_array_equal(read[[0, 1, 3]], matrix(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_safetensors_matrix_is_read_in_every_float_type(tmp_path, dtype):
    tensor = torch.from_numpy(matrix()).to(dtype)
    save_file({"E": tensor, "temperature": torch.ones(1)}, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(made(f"file:{tmp_path}/m.safetensors", catalogue(), tmp_path), tensor.float().numpy())


def test_a_safetensors_matrix_is_aligned_by_its_sidecar(tmp_path):
    save_file({"E": torch.from_numpy(matrix())}, tmp_path / "m.safetensors")
    (tmp_path / "m.ids.txt").write_text("i3\r\ni2\r\ni1\r\ni0\r\n")
    np.testing.assert_array_equal(made(f"file:{tmp_path}/m.safetensors", catalogue(), tmp_path), matrix()[::-1])


@pytest.mark.parametrize("dtype", [pl.List(pl.Float32), pl.List(pl.Float64), pl.Array(pl.Float32, 3)])
def test_a_parquet_matrix_is_aligned_by_its_item_ids(tmp_path, dtype):
    rows = [*matrix(3).tolist(), None]
    frame = pl.DataFrame(
        {"item_id": ["i1", "i0", "i3", "i2"], "e": pl.Series(rows, dtype=dtype), "title": list("abcd")}
    )
    frame.write_parquet(tmp_path / "m.parquet")
    read = made(f"file:{tmp_path}/m.parquet", catalogue(), tmp_path)
    np.testing.assert_array_equal(read, np.stack([matrix(3)[1], matrix(3)[0], np.zeros(3), matrix(3)[2]]))


def test_parquet_ids_may_be_numbers(tmp_path):
    frame = pl.DataFrame({"item_id": [12, 7], "e": matrix(2).tolist()})
    frame.write_parquet(tmp_path / "m.parquet")
    read = made(f"file:{tmp_path}/m.parquet", Texts(["7", "12"], ["x", "y"], [0, 1], 2), tmp_path)
    np.testing.assert_array_equal(read, matrix(2)[::-1])


def test_a_missing_file_and_an_unknown_suffix_are_refused_at_once(tmp_path):
    with pytest.raises(HarnessError, match="no such file"):
        encoder(f"file:{tmp_path}/no.npy", tmp_path)
    with pytest.raises(HarnessError, match=r"'.np' is not the suffix of a matrix file. Did you mean '.npy'\?"):
        encoder(f"file:{tmp_path}/m.np", tmp_path)


def test_a_wrong_number_of_rows_is_refused_with_both_numbers(tmp_path):
    said = refusal(f"file:{saved(tmp_path / 'm.npy', matrix(5))}", catalogue(4), tmp_path)
    assert "has 5 rows, but the items file has 4" in said
    assert "m.ids.txt" in said
    short = saved(tmp_path / "short.npy", matrix(5), ["i0", "i1"])
    assert "has 5 rows, but short.ids.txt has 2 ids" in refusal(f"file:{short}", catalogue(4), tmp_path)


def test_ids_that_do_not_match_are_refused_with_counts_and_examples(tmp_path):
    path = saved(tmp_path / "m.npy", matrix(3), ["i0", "x1", "x2"])
    said = refusal(f"file:{path}", catalogue(4), tmp_path)
    assert "has no row for 3 of 4 items, for example 'i1'; its 3 ids look like 'i0'" in said
    twice = saved(tmp_path / "twice.npy", matrix(4), ["i0", "i1", "i1", "i2"])
    assert "repeats 1 ids, for example 'i1'" in refusal(f"file:{twice}", catalogue(4), tmp_path)


def test_a_bad_number_in_a_file_names_the_item_and_not_the_row_of_the_file(tmp_path):
    E = matrix(4)
    E[1, 0] = np.nan
    path = saved(tmp_path / "m.npy", E, ["i3", "i2", "i1", "i0"])
    assert "item 'i2'" in refusal(f"file:{path}", catalogue(4), tmp_path)
    wide = saved(tmp_path / "wide.npy", matrix(4).astype(np.float64) * 1e300)
    assert "item 'i0' (row 0) is NaN or infinite" in refusal(f"file:{wide}", catalogue(4), tmp_path)


def test_arrays_that_are_no_matrix_of_numbers_are_refused(tmp_path):
    assert "contains 4 float32; it must be a 2-D array" in refusal(
        f"file:{saved(tmp_path / 'flat.npy', matrix()[:, 0])}", catalogue(), tmp_path
    )
    assert "contains 4x3 complex64" in refusal(
        f"file:{saved(tmp_path / 'c.npy', matrix().astype(np.complex64))}", catalogue(), tmp_path
    )


def quantised(E: np.ndarray) -> np.ndarray:
    """Each column over the range of a byte, as libraries quantise embeddings; float64."""
    low, high = E.min(0), E.max(0)
    return (E - low) / (high - low) * 255


BITS = {
    "bfloat16 as uint16": lambda E: (E.view(np.uint32) >> 16).astype(np.uint16),
    "bfloat16 as int16": lambda E: (E.view(np.uint32) >> 16).astype(np.uint16).view(np.int16),
    "float16 as uint16": lambda E: E.astype(np.float16).view(np.uint16),
    "float32 as uint32": lambda E: E.view(np.uint32),
    "float32 as int32": lambda E: E.view(np.int32),
    "float64 as int64": lambda E: E.astype(np.float64).view(np.int64),
}
PACKED = {
    "bits": lambda E: np.packbits(E > 0, axis=1),
    "bits in the other order": lambda E: np.packbits(E > 0, axis=1, bitorder="little"),
    "bits less 128": lambda E: (np.packbits(E > 0, axis=1).astype(np.int64) - 128).astype(np.int8),
}


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet"])
@pytest.mark.parametrize("form", [*BITS, *PACKED])
def test_bits_of_floats_and_packed_bits_are_refused(tmp_path, form, suffix):
    E = {**BITS, **PACKED}[form](matrix(60, 64) / 20)
    if suffix == "npy":
        saved(tmp_path / "m.npy", E)
    elif suffix == "safetensors":
        save_file({"E": torch.from_numpy(E)}, tmp_path / "m.safetensors")
    else:
        ids = [f"i{row}" for row in range(60)]
        lists = pl.Series(E.tolist(), dtype=pl.List(pl.Series(E[0]).dtype))
        pl.DataFrame({"item_id": ids, "e": lists}).write_parquet(tmp_path / "m.parquet")
    said = refusal(f"file:{tmp_path}/m.{suffix}", catalogue(60), tmp_path)
    assert f"contains {E.dtype}" in said
    assert ("np.unpackbits" in said) == (form in PACKED)
    assert "float32" in said


NUMBERS = {
    "uint8": lambda E: quantised(E).astype(np.uint8),
    "int8": lambda E: (quantised(E) - 128).astype(np.int8),
    "int8 of one scale": lambda E: (E / np.abs(E).max() * 127).round().astype(np.int8),
    "zeros and ones": lambda E: (E > 1).astype(np.uint8),
    "counts": lambda E: np.abs(E).round().astype(np.int64),
    "counts in 16 bits": lambda E: np.abs(E).round().astype(np.uint16),
}


@pytest.mark.parametrize("form", NUMBERS)
def test_quantised_numbers_and_counts_are_read_and_the_former_reported(tmp_path, form, capsys):
    E = NUMBERS[form](matrix(60, 64))
    read = made(f"file:{saved(tmp_path / 'm.npy', E)}", catalogue(60), tmp_path)
    np.testing.assert_array_equal(read, E.astype(np.float32))
    assert ("read as magnitudes" in capsys.readouterr().err) == ("int8" in form)


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet"])
def test_a_row_that_float32_would_round_to_zero_is_refused(tmp_path, suffix):
    """A zero row marks an item without text."""
    E = matrix().astype(np.float64)
    E[2] = 1e-60
    if suffix == "npy":
        saved(tmp_path / "m.npy", E)
    elif suffix == "safetensors":
        save_file({"E": torch.from_numpy(E)}, tmp_path / "m.safetensors")
    else:
        pl.DataFrame({"item_id": [f"i{row}" for row in range(4)], "e": E.tolist()}).write_parquet(
            tmp_path / "m.parquet"
        )
    assert "item 'i2' is too small for float32" in refusal(f"file:{tmp_path}/m.{suffix}", catalogue(), tmp_path)


def test_a_matrix_without_columns_is_refused(tmp_path):
    assert "contains 4x0 float32" in refusal(
        f"file:{saved(tmp_path / 'm.npy', np.zeros((4, 0), np.float32))}", catalogue(), tmp_path
    )


def test_a_parquet_file_is_read_by_its_exact_path(tmp_path):
    """Brackets are no pattern, and a folder named key=value adds no column."""
    for place in ("E[1].parquet", "E1.parquet", "[old]/item_id=4/E.parquet"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        numbers = matrix() * (2 if place == "E1.parquet" else 1)
        frame = pl.DataFrame({"item_id": [f"i{row}" for row in range(4)], "e": numbers.tolist()})
        frame.write_parquet(tmp_path / place)
    for place in ("E[1].parquet", "[old]/item_id=4/E.parquet"):
        np.testing.assert_array_equal(made(f"file:{tmp_path}/{place}", catalogue(), tmp_path), matrix())


def test_a_bfloat16_array_that_numpy_does_not_know_is_named(tmp_path):
    E = (matrix().view(np.uint32) >> 16).astype(np.uint16).view(np.dtype("V2"))
    assert "Is it bfloat16? Save it as float32." in refusal(
        f"file:{saved(tmp_path / 'm.npy', E)}", catalogue(), tmp_path
    )


def test_a_row_that_float32_cannot_hold_is_refused_and_not_taken_for_an_item_without_text(tmp_path):
    E = matrix(4).astype(np.float64)
    E[2] *= 1e-60
    said = refusal(f"file:{saved(tmp_path / 'm.npy', E)}", catalogue(4), tmp_path)
    assert "the row of item 'i2' is too small for float32" in said


def test_an_archive_of_arrays_under_another_name_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", E=matrix())
    (tmp_path / "m.npz").rename(tmp_path / "m.npy")
    assert "damaged or not a plain .npy array" in refusal(f"file:{tmp_path}/m.npy", catalogue(), tmp_path)


def test_a_pickled_array_and_damaged_files_are_refused_and_never_run(tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([[object()]]), allow_pickle=True)
    assert "damaged or not a plain .npy array" in refusal(f"file:{tmp_path}/pickled.npy", catalogue(), tmp_path)
    for suffix in ("npy", "safetensors", "parquet"):
        (tmp_path / f"bad.{suffix}").write_bytes(b"not a matrix at all")
        assert "is damaged or not" in refusal(f"file:{tmp_path}/bad.{suffix}", catalogue(), tmp_path)
    saved(tmp_path / "m.npy", matrix())
    (tmp_path / "m.ids.txt").write_bytes(b"i0\ni\xe9\ni2\ni3\n")
    assert "m.ids.txt: line 2 is not UTF-8: byte E9" in refusal(f"file:{tmp_path}/m.npy", catalogue(), tmp_path)


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header + "\n").to_bytes(2, "little") + header.encode() + b"\n" + b"\0" * 24


def safetensors(dtype: str, size: int) -> bytes:
    header = json.dumps({"e": {"dtype": dtype, "shape": [4, 2], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"1" * size


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2")),
        ("huge.npy", npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**70}, 2), }}")),
        ("deep.npy", npy("(" * 9000)),
        ("four_bits.safetensors", safetensors("F4", 4)),
    ],
)
def test_a_header_that_cannot_be_a_matrix_is_one_clear_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert f"{name} is damaged or not a" in refusal(f"file:{tmp_path}/{name}", catalogue(), tmp_path)


def test_a_parquet_matrix_is_not_known_by_ids_that_it_does_not_read(tmp_path):
    pl.DataFrame({"item_id": ["i0", "i1", "i2", "i3"], "e": matrix().tolist()}).write_parquet(tmp_path / "m.parquet")
    before = embedding_hash(encoder(f"file:{tmp_path}/m.parquet", tmp_path), catalogue())
    (tmp_path / "m.ids.txt").write_text("another\n")
    assert embedding_hash(encoder(f"file:{tmp_path}/m.parquet", tmp_path), catalogue()) == before


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ids_may_be_written_by_any_editor(tmp_path, codec, end):
    """With a byte order mark, in UTF-16, with the line ends of any system, and with blank lines between."""
    rows = matrix()
    order = [2, 0, 3, 1]
    saved(tmp_path / "m.npy", rows[order])
    lines = [f"i{row}" for row in order]
    text = end.join([*lines[:2], "", *lines[2:], "", ""])
    (tmp_path / "m.ids.txt").write_bytes(text.encode(codec))
    np.testing.assert_array_equal(made(f"file:{tmp_path}/m.npy", catalogue(), tmp_path), rows)


def test_a_safetensors_file_must_hold_exactly_one_matrix(tmp_path):
    for tensors, said in (
        ({"a": torch.ones(4, 3), "b": torch.ones(4, 3)}, "has 2 2-D tensors: a, b"),
        ({"a": torch.ones(4)}, "has 0 2-D tensors. It must have exactly one"),
    ):
        save_file(tensors, tmp_path / "m.safetensors")
        assert said in refusal(f"file:{tmp_path}/m.safetensors", catalogue(), tmp_path)


def test_a_parquet_file_must_have_ids_and_lists_of_one_length(tmp_path):
    for frame, said in (
        (
            pl.DataFrame({"id": ["i0"], "e": [[1.0]]}),
            "must have a column item_id and one column of lists; it has: id, e",
        ),
        (pl.DataFrame({"item_id": ["i0"], "e": [1.0]}), "one column of lists; it has: item_id, e"),
        (pl.DataFrame({"item_id": ["i0", "i1"], "e": [[1.0], [1.0, 2.0]]}), "have one length, not [1, 2]"),
        (pl.DataFrame({"item_id": ["i0", "i1"], "e": [["x"], ["y"]]}), "lists of numbers"),
    ):
        frame.write_parquet(tmp_path / "m.parquet")
        assert said in refusal(f"file:{tmp_path}/m.parquet", catalogue(), tmp_path)


# --- sentence-transformers


WORDS = {"[UNK]": 0, "red": 1, "blue": 2, "shoe": 3, "hat": 4}
VECTORS = np.arange(20, dtype=np.float32).reshape(5, 4) ** 2


@pytest.fixture
def small_model(tmp_path) -> Path:
    """A sentence-transformers folder of a model that averages the vectors of five words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path / "small"
    (folder / "0_Static").mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "0_Static" / "tokenizer.json"))
    save_file({"embedding.weight": torch.from_numpy(VECTORS)}, folder / "0_Static" / "model.safetensors")
    module = {"idx": 0, "name": "0", "path": "0_Static", "type": "sentence_transformers.models.StaticEmbedding"}
    files.write_json(folder / "modules.json", [module])
    return folder


def test_a_model_folder_encodes_each_text_and_leaves_missing_ones_zero(tmp_path, small_model):
    texts = Texts(list("abcd"), ["red shoe", None, "hat", "red shoe"], [0, 1, 2, 3], 4)
    E = made(f"st:{small_model}", texts, tmp_path)
    red_shoe = (VECTORS[1] + VECTORS[3]) / 2
    np.testing.assert_allclose(E, [red_shoe, np.zeros(4), VECTORS[4], red_shoe])


def test_a_model_folder_is_known_by_its_content(tmp_path, small_model):
    texts = catalogue()
    before = embedding_hash(encoder(f"st:{small_model}", tmp_path), texts)
    moved = small_model.rename(tmp_path / "elsewhere")
    (moved / "README.md").write_text("another card")
    assert embedding_hash(encoder(f"st:{moved}", tmp_path), texts) == before
    (weights,) = moved.rglob("*.safetensors")
    damaged_somewhere(weights)
    assert embedding_hash(encoder(f"st:{moved}", tmp_path), texts) != before


def test_files_in_linked_folders_are_content_of_a_model_folder(tmp_path, small_model):
    def known():
        return embedding_hash(encoder(f"st:{small_model}", tmp_path), catalogue())

    before = known()
    (small_model / "0_Static").rename(tmp_path / "pool")
    (small_model / "0_Static").symlink_to(tmp_path / "pool")
    assert known() == before
    (tmp_path / "pool" / "upwards").symlink_to(small_model)
    assert known() == before
    damaged_somewhere(tmp_path / "pool" / "model.safetensors")
    assert known() != before


def test_texts_are_encoded_longest_first_each_once_with_progress(tmp_path, small_model, monkeypatch):
    from harness.text.encoders import st

    monkeypatch.setattr(st, "CHUNK", 2)
    seen, told = [], []

    class Model:
        def encode(self, chunk: list[str], **_: object) -> np.ndarray:
            seen.extend(chunk)
            return np.array([[len(text), 1.0] for text in chunk], np.float32)

    texts = Texts(list("abcde"), ["bb", "a", "bb", None, "cccc"], list(range(5)), 5)
    E = st.encode_texts(Model(), texts, lambda done, total: told.append((done, total)))
    assert seen == ["cccc", "bb", "a"]
    assert told == [(2, 3), (3, 3)]
    np.testing.assert_array_equal(E, [[2, 1], [1, 1], [2, 1], [0, 0], [4, 1]])


def test_a_catalogue_without_any_text_is_refused(tmp_path, small_model):
    assert "No item has text" in refusal(f"st:{small_model}", catalogue(2, missing=(0, 1)), tmp_path)


def test_a_hub_model_that_is_not_here_is_refused_offline_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for word in ("st:no-such-owner/no-such-model", "st:/no/such/folder", "st:x@main"):
        assert f"'{word}' is neither a folder nor a model in the local Hugging Face cache" in refusal(
            word, catalogue(), tmp_path
        )


def test_a_hub_model_pinned_to_a_commit_is_known_without_the_hub(tmp_path):
    commit = "0" * 40
    identity = encoder(f"st:owner/model@{commit}", tmp_path).identity()
    assert identity["model"] == "owner/model"
    assert identity["commit"] == commit


def test_a_folder_that_holds_no_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert "cannot be loaded by sentence-transformers" in refusal(f"st:{tmp_path}/empty", catalogue(), tmp_path)


@pytest.fixture
def model_home(request) -> Path:
    """A home whose 83 MB of model weights are fetched once a checkout."""
    return request.config.cache.mkdir("harness-home")


def test_minilm_equals_sentence_transformers_called_directly(tmp_path, model_home):
    from sentence_transformers import SentenceTransformer

    some = ["Toy Story (1995). Animation, Children's, Comedy", None, "Heat", "", "Café — 日本", "word " * 400]
    texts = Texts([f"i{i}" for i in range(6)], some, list(range(6)), 6)
    here = encoder("minilm", model_home)
    assert isinstance(here, minilm.MiniLM)
    E = embed(here, texts, tmp_path)
    direct = SentenceTransformer(str(here.folder()), device="cpu", local_files_only=True)
    for text, row in zip(some, E, strict=True):
        expected = np.zeros(384) if text is None else direct.encode([text])[0]
        np.testing.assert_allclose(row, expected, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(E[[0, 2, 3, 4, 5]], axis=1), 1, atol=1e-6)


@needs_data
def test_minilm_has_rank_381_in_float32_and_is_what_the_research_copy_holds(tmp_path, model_home):
    titles = pl.read_parquet(SHARED / "amazon2014-office" / "items.parquet")["title"][:600].to_list()
    n = len(titles)
    texts = Texts([str(i) for i in range(n)], titles, list(range(n)), n)
    E = embed(encoder("minilm", model_home), texts, tmp_path)
    copy = np.load(SHARED / "amazon2014-office" / "emb_minilm384_title.npy")[:n].astype(np.float32)
    np.testing.assert_allclose(E, copy, atol=5e-4)  # float16 carries 3 digits
    found = basis(E, "key", tmp_path)
    assert found.info["precision"] == "float32"
    assert found.info["rank"] == 381


def test_weights_that_are_not_the_pinned_ones_are_refused(tmp_path):
    folder = tmp_path / "models" / "all-MiniLM-L6-v2"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"other")
    assert "is not the pinned file" in refusal("minilm", catalogue(), tmp_path)


def test_a_text_that_is_too_long_for_a_model_is_cut_by_it_and_counted(tmp_path, model_home, capsys):
    # 254 words and two special tokens are what MiniLM takes; a word of many tokens counts as these
    some = [
        "word " * 254,
        "word " * 255,
        "word " * 255 + "other",
        "x" * 3000 + " and so on",
        None,
        "supercalifragilistic " * 60,
    ]
    texts = Texts([f"i{i}" for i in range(6)], some, list(range(6)), 6)
    here = encoder("minilm", model_home)
    E = embed(here, texts, tmp_path)
    said = capsys.readouterr().err
    assert said.count("of 5 texts are longer than 256 tokens; their ends are cut off.") == 1
    assert embedding_info(here, texts, tmp_path) == {"missing": 1, "distinct": 5, "cut": 3}
    np.testing.assert_allclose(E[0], E[1], atol=2e-6)
    shuffled = encoder("shuffled:minilm", model_home)
    assert embedding_info(shuffled, texts, tmp_path) == {"missing": 1, "distinct": 5, "cut": 3}


def test_chunks_of_a_resumed_run_are_those_of_the_first(tmp_path, small_model, monkeypatch):
    from harness.text.encoders import st

    monkeypatch.setattr(st, "CHUNK", 2)
    model = st.load_model(str(small_model), "st")
    order = ["red blue", "red shoe", "blue", "hat", "red"]
    job = st.job(model, order)
    whole = list(job.batches(0))
    assert [len(rows) for rows in whole] == [2, 2, 1]
    for resumed, first in zip(job.batches(2), whole[1:], strict=True):
        np.testing.assert_array_equal(resumed, first)
    assert job.cut == 0

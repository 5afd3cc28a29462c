"""The embedding cache and the spectral basis, against independent float64 recomputation and real files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from harness import data, vectors
from harness.encoders import _base, noise
from harness.types import HarnessError, PrepSpec
from harness.vectors import Texts, basis, embed, embedding_hash, encoder, reporter, texts_of

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the research copies of the data sets are not here")


def catalogue(n: int = 4, missing: tuple[int, ...] = ()) -> Texts:
    """n items i0, i1, ... with texts, the rows of a file of n rows."""
    texts = [None if i in missing else f"text of {i}" for i in range(n)]
    return Texts([f"i{i}" for i in range(n)], texts, list(range(n)), n)


def matrix(n: int = 4, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def damaged_somewhere(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


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
    texts = texts_of(data.prepare(data.open_dataset(str(dataset), home), PrepSpec(kcore=0), home))
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
        "import sys; from pathlib import Path; from harness import vectors as v\n"
        "t = v.Texts(['a'], ['x'], [0], 1); h = Path(sys.argv[1])\n"
        "for word in ('minilm', 'noise', 'shuffled:minilm'): print(v.embedding_hash(v.encoder(word, h), t))\n"
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


def test_the_first_bad_item_is_named_in_a_matrix_of_many_slabs(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "SLAB", 8 * 3 * 2)
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
    with pytest.raises(HarnessError, match="all items with text have one and the same embedding"):
        embed(Fixed(constant, tmp_path), catalogue(), tmp_path)
    with pytest.raises(HarnessError, match="all 4 rows are zero"):
        embed(Fixed(np.zeros((4, 3)), tmp_path), catalogue(), tmp_path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize("harm", [damaged_somewhere, cut_short, Path.unlink])
@pytest.mark.parametrize("name", ["E.npy", "about.json"])
def test_a_damaged_cache_is_reported_by_its_folder_and_not_read(tmp_path, harm, name):
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    (file,) = (tmp_path / "cache" / "embeddings").glob(f"*/{name}")
    harm(file)
    with pytest.raises(HarnessError, match=r"is damaged \(.*\). Delete that folder; it is computed again."):
        embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)


def test_an_array_too_large_to_hash_each_time_must_still_have_its_shape(tmp_path, monkeypatch):
    embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)
    (file,) = (tmp_path / "cache" / "embeddings").glob("*/E.npy")
    np.save(file, matrix(5))
    monkeypatch.setattr(vectors, "CHECKED", 0)
    with pytest.raises(HarnessError, match=r"E.npy is not what was written"):
        embed(Fixed(matrix(), tmp_path), catalogue(), tmp_path)


def test_progress_is_one_line_in_place_on_a_terminal_and_rare_lines_elsewhere(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = iter([0.0, 4.0, 12.0, 13.0, 24.0] * 2)
    monkeypatch.setattr(vectors.time, "monotonic", lambda: next(clock))
    for stream, lines in ((io.StringIO(), 2), (Terminal(), 1)):
        tell = reporter("minilm", stream)
        for done in (512, 1024, 1536, 2048):
            tell(done, 2048)
        written = stream.getvalue()
        assert written.count("\n") == lines
        assert "minilm: 1,024 of 2,048 texts, 12 s left" in written
        assert written.endswith("minilm: 2,048 of 2,048 texts, 0 s left\n")


# --- the spectral basis


def centred(E: np.ndarray, center: bool = True) -> np.ndarray:
    """X in float64, straight from the definition."""
    X = E.astype(np.float64)
    has_text = (X != 0).any(1)
    return np.where(has_text[:, None], X - X[has_text].mean(0) * center, 0)


def orthonormality(A: np.ndarray) -> float:
    A = A.astype(np.float64)
    return float(np.abs(A.T @ A - np.eye(A.shape[1])).max())


def made_of(n: int, d: int, sigma: np.ndarray, seed: int = 0) -> np.ndarray:
    """A float64 matrix (n, d) of given singular values whose columns have mean zero."""
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((n, len(sigma)))
    Q = np.linalg.qr(left - left.mean(0))[0]
    return Q * sigma @ np.linalg.qr(rng.standard_normal((d, len(sigma))))[0].T


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "d"), [(300, 40), (40, 300), (60, 60)])
def test_the_basis_is_the_svd_of_the_centred_matrix(tmp_path, monkeypatch, n, d, center):
    monkeypatch.setattr(vectors, "SLAB", 8 * 7 * min(n, d))  # seven rows at a time
    E = matrix(n, d) * np.geomspace(1, 0.01, d, dtype=np.float32) + 0.3
    found = basis(E, "key", tmp_path, center=center)
    U, S, Vt = np.linalg.svd(centred(E, center), full_matrices=False)
    r = min(d, n - center)
    assert found.U.shape == (n, r)
    assert found.V.shape == (d, r)
    assert found.U.dtype == found.S.dtype == found.V.dtype == found.mean.dtype == np.float32
    np.testing.assert_allclose(found.S, S[:r], rtol=1e-6)
    sign = np.sign((Vt[:r] * found.V.T).sum(1))
    np.testing.assert_allclose(found.V.T, Vt[:r] * sign[:, None], atol=1e-5)
    np.testing.assert_allclose(found.U, U[:, :r] * sign, atol=1e-5)
    assert orthonormality(found.U) < 1e-5
    assert orthonormality(found.V) < 1e-5
    np.testing.assert_allclose(found.mean, E.astype(np.float64).mean(0) * center, rtol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(2000, 128), (128, 2000)])
def test_the_basis_holds_its_digits_down_to_the_cut_and_ends_there(tmp_path, n, d):
    sigma = np.geomspace(30, 30e-6, 100) * 1.05
    sigma[0] /= 1.05
    E = made_of(n, d, np.append(sigma, 30 * 0.9e-6)).astype(np.float32)
    exact = np.linalg.svd(centred(E), compute_uv=False)
    found = basis(E, "key", tmp_path)
    above = int((exact > 1e-6 * exact[0]).sum())
    assert above >= 100
    assert len(found.S) == above
    np.testing.assert_allclose(found.S, exact[:above], rtol=1e-6)
    assert orthonormality(found.U) < 1e-5
    assert orthonormality(found.V) < 1e-5


@pytest.mark.parametrize(("n", "d"), [(300, 40), (30, 50)])
def test_signs_are_canonical_whatever_the_order_of_rows_and_the_sign_of_the_routine(tmp_path, monkeypatch, n, d):
    E = matrix(n, d)
    found = basis(E, "one", tmp_path)
    largest = np.abs(found.V).argmax(0)
    assert (found.V[largest, np.arange(found.V.shape[1])] > 0).all()
    order = np.random.default_rng(1).permutation(n)
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda G: (eigh(G)[0], eigh(G)[1] * np.where(np.arange(len(G)) % 2, 1, -1)))
    flipped = basis(E[order], "two", tmp_path)
    np.testing.assert_allclose(flipped.V, found.V, atol=2e-5)
    np.testing.assert_allclose(flipped.U, found.U[order], atol=2e-5)


@pytest.mark.parametrize(("n", "d"), [(200, 30), (30, 50)])
def test_rows_without_text_count_nowhere_and_stay_zero(tmp_path, n, d):
    E = matrix(n, d) + 1
    holes = np.zeros((n + 3, d), np.float32)
    has_text = np.ones(n + 3, bool)
    has_text[[0, 11, n + 2]] = False
    holes[has_text] = E
    whole, found = basis(E, "whole", tmp_path), basis(holes, "holes", tmp_path)
    np.testing.assert_allclose(found.S, whole.S, rtol=1e-6)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(found.U[has_text], whole.U, atol=1e-5)
    assert not found.U[~has_text].any()
    assert (found.info["missing"], whole.info["missing"]) == (3, 0)
    assert f"3 of {n + 3} items have no embedding" in found.info["notes"]


def test_the_scaled_basis_has_unit_variance_over_the_items_with_text(tmp_path):
    E = matrix(200, 20) + 2
    E[:50] = 0
    U = basis(E, "key", tmp_path).U[50:].astype(np.float64) * 149**0.5
    np.testing.assert_allclose(U.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(U.var(0, ddof=1), 1, rtol=1e-5)


def test_without_centring_the_mean_is_zero_and_the_first_direction_is_the_mean(tmp_path):
    E = matrix(500, 20) * 0.1 + 1
    found = basis(E, "key", tmp_path, center=False)
    assert not found.mean.any()
    assert not found.info["centred"]
    direction = E.mean(0) / np.linalg.norm(E.mean(0))
    assert found.V[:, 0] @ direction > 0.999


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
def test_a_damaged_basis_is_reported(tmp_path, name):
    basis(matrix(20, 5), "key", tmp_path)
    (file,) = (tmp_path / "cache" / "bases").glob(f"*/{name}.npy")
    damaged_somewhere(file)
    with pytest.raises(HarnessError, match=f"is damaged \\({name}.npy is not what was written\\)"):
        basis(matrix(20, 5), "key", tmp_path)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n", "d"), [(900, 64), (64, 200)])
def test_null_directions_of_a_rounded_matrix_are_cut_though_rounding_fills_them(tmp_path, stored, n, d):
    exact = made_of(n, d, np.geomspace(10, 0.5, 20)) + 0.01
    rounded = torch.from_numpy(exact).to(stored).float().numpy()
    singular = np.linalg.svd(centred(rounded), compute_uv=False)
    assert singular[20] > 3e-5 * singular[0]  # far above the tolerance
    found = basis(rounded, "key", tmp_path)
    assert found.info["precision"] == str(stored).removeprefix("torch.")
    assert found.info["rank"] == 20
    assert found.info["notes"][0].startswith(f"rank 20 of {min(n, d)}")
    assert basis(exact.astype(np.float32), "exact", tmp_path).info["rank"] == 20


def test_a_tolerance_that_the_gram_matrix_cannot_serve_is_refused(tmp_path):
    for tolerance in (1e-7, 0.0, 1.0, float("nan")):
        with pytest.raises(HarnessError, match="at least 1e-06 and below 1"):
            basis(matrix(), "key", tmp_path, tolerance=tolerance)


def test_matrices_without_a_direction_are_refused(tmp_path):
    one = np.zeros((4, 3), np.float32)
    one[2] = 1
    with pytest.raises(HarnessError, match="at least 2 items with an embedding; 1 of 4 have one"):
        basis(one, "one", tmp_path)
    with pytest.raises(HarnessError, match="equal up to rounding"):
        basis(np.tile(matrix(1, 7), (9, 1)), "equal", tmp_path)


def test_the_card_of_a_basis_agrees_with_its_definitions(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "SLAB", 8 * 8 * 7)  # seven rows at a time; the equal ones lie in two slabs
    E = matrix(60, 8) + 0.5
    E[5] = E[6] = E[7]
    E[9] = 0
    info = basis(E, "key", tmp_path, tolerance=0.2).info
    X = np.delete(E.astype(np.float64), 9, axis=0)
    S = np.linalg.svd(X - X.mean(0), compute_uv=False)
    kept = S[S / S[0] > 0.2]
    cosine = (X @ X.T) / np.outer(*[np.linalg.norm(X, axis=1)] * 2)
    p = kept / kept.sum()
    assert (info["rank"], info["dim"], info["items"]) == (len(kept), 8, 60)
    assert (info["missing"], info["duplicates"]) == (1, 2)
    assert info["mean_cosine"] == pytest.approx(cosine[~np.eye(59, dtype=bool)].mean(), rel=1e-9)
    assert info["energy_kept"] == pytest.approx((kept**2).sum() / (S**2).sum(), rel=1e-9)
    assert info["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    assert info["condition_number"] == pytest.approx(kept[0] / kept[-1], rel=1e-9)
    assert info["centred"] is True
    assert json.loads(json.dumps(info)) == info


CARDS = {  # missing texts, duplicate rows, rank, effective rank of the centred matrix: measured apart from this code
    "amazon2014-office/emb_minilm384_title": (3, 3, 381, 267.5),
    "amazon2014-toys/emb_minilm384_title": (59, 68, 381, 296.8),
    "ml-100k/emb_minilm384_meta": (0, 18, 381, 279.8),
    "ml-100k/emb_mpnet768_meta": (0, 15, 764, 421.4),
}


@needs_data
@pytest.mark.parametrize("name", CARDS)
def test_real_embeddings_have_the_rank_they_are_known_to_have(tmp_path, name):
    E = np.load(DATA / f"{name}.npy").astype(np.float32)
    found = basis(E, name, tmp_path)
    missing, duplicates, rank, effective_rank = CARDS[name]
    assert (found.info["missing"], found.info["duplicates"], found.info["rank"]) == (missing, duplicates, rank)
    assert found.info["effective_rank"] == pytest.approx(effective_rank, abs=0.06)
    assert found.info["precision"] == "float16"
    assert found.info["notes"][0].startswith(f"rank {rank} of {E.shape[1]}")
    assert found.info["energy_kept"] > 1 - 1e-12
    assert orthonormality(found.U) < 1e-6


@needs_data
def test_a_real_basis_is_the_svd_of_the_file(tmp_path):
    E = np.load(DATA / "ml-100k" / "emb_minilm384_meta.npy").astype(np.float32)
    found = basis(E, "key", tmp_path)
    U, S, _ = np.linalg.svd(centred(E), full_matrices=False)
    np.testing.assert_allclose(found.S, S[:381], rtol=1e-6)
    np.testing.assert_allclose(found.U.astype(np.float64) * found.S @ found.V.T, centred(E), atol=1e-6)
    overlap = np.abs((U[:, :381] * found.U).sum(0))
    assert overlap.min() > 1 - 1e-6

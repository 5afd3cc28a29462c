"""The spectral basis, against independent float64 recomputation and real files."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import SHARED

from harness.text import basis as decomposition
from harness.text import embeddings
from harness.text.embeddings import basis
from harness.types import HarnessError

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the research copies of the data sets are not here")


def matrix(n: int = 4, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def in_pieces(monkeypatch: pytest.MonkeyPatch, short: int, rows: int = 7) -> None:
    """Work through matrices with a short side of `short` so many rows at a time."""
    monkeypatch.setattr(decomposition, "ROWS", rows)
    monkeypatch.setattr(decomposition, "CHUNK", 8 * rows * short)


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
    in_pieces(monkeypatch, min(n, d))
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


@pytest.mark.parametrize(("n", "d"), [(500, 30), (30, 500)])
def test_many_pieces_give_the_basis_of_one(tmp_path, monkeypatch, n, d):
    E = (made_of(n, d, np.geomspace(1, 1e-2, 25)) + 0.02).astype(np.float16).astype(np.float32)
    E[[0, 8, n - 1]] = 0
    E[3] = E[n - 2]
    whole = basis(E, "whole", tmp_path)
    in_pieces(monkeypatch, min(n, d))
    pieces = basis(E, "pieces", tmp_path)
    assert whole.info["duplicates"] == 1
    for name, value in whole.info.items():
        assert pieces.info[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)
    for name, scale in {"U": 1, "S": 1e-2, "V": 1, "mean": 1e-2}.items():
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-6, atol=1e-6 * scale)


def peak_of_a_basis(N: int, D: int, folder: Path) -> int:
    """Bytes that NumPy and Python hold at most while a basis is made of a file of N x D random numbers."""
    E = np.lib.format.open_memmap(folder / f"{N}.npy", "w+", np.float32, (N, D))
    for start in range(0, N, 10_000):
        E[start : start + 10_000] = matrix(min(10_000, N - start), D, start)
    tracemalloc.start()
    try:
        basis(E, str(N), folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_whatever_the_number_of_items(tmp_path):
    D = 256
    blocks = 3 * 8 * decomposition.ROWS * D
    few, many = (peak_of_a_basis(N, D, tmp_path) for N in (30_000, 60_000))
    assert many < blocks + 10e6  # 35 MB; the matrix itself would be 123 MB in float64
    assert many - few < 1e6


def test_a_long_basis_tells_how_far_it_is_and_a_short_one_nothing(tmp_path, monkeypatch, capsys):
    E = matrix(200, 20)
    basis(E, "short", tmp_path)
    assert capsys.readouterr().err == ""
    in_pieces(monkeypatch, 20, 10)
    clock = itertools.count(0.0, 4.0)
    monkeypatch.setattr(embeddings.time, "monotonic", lambda: next(clock))  # 4 s from one piece to the next
    basis(E, "long", tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 13 + 1 + 7  # of 40 pieces every third; the decomposition; of 1 + 20 pieces every third
    assert all(line.startswith("basis of 200 x 20: ") for line in lines)
    told = [int(line.split(": ")[1].split("%")[0]) for line in lines]
    assert told == sorted(told)
    assert told[-1] == 100
    assert lines[-1].endswith("100%, 0 s left")
    (announced,) = [line for line in lines if "decomposing" in line]
    assert announced.endswith(" s left; decomposing, about 25 s")


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


def test_of_entries_of_equal_size_the_first_is_positive_though_they_lie_in_two_pieces(tmp_path, monkeypatch):
    E = np.float32([[4, -4], [-4, 4], [1, 1], [-1, -1]])  # V is (1, -1) and (1, 1), but for its length
    monkeypatch.setattr(decomposition, "CHUNK", 8)  # one row of V
    for sign in (1, -1):
        assert (basis(sign * E, f"{sign}", tmp_path).V[0] > 0).all()


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


def test_entries_that_vary_less_than_a_step_of_the_optimiser_are_told(tmp_path):
    E = matrix(200, 30)
    told = basis(E * 1e-3, "small", tmp_path).info["notes"]
    assert [note for note in told if note.startswith("entries vary by 0.001 only") and note.endswith("matrix by 100")]
    assert not [note for note in basis(E * 0.01, "usual", tmp_path).info["notes"] if "entries" in note]


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


def test_rounding_is_a_twelfth_of_the_squared_distance_of_neighbouring_numbers():
    A = matrix(50, 6).astype(np.float16) * np.float16([1, 1e-3, 1e-5, 1e-6, 30, 0])
    A[::3] = 0
    places = np.where(A != 0, np.spacing(np.abs(A)).astype(np.float64), 0)
    assert (np.abs(A[A != 0]) < 2.0**-14).any()  # subnormal numbers, whose last place is as small as it gets
    expected = (places**2).sum(0) / 12
    np.testing.assert_allclose(decomposition._rounding(A.astype(np.float64), "float16"), expected, rtol=1e-12)


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
    in_pieces(monkeypatch, 8)  # the equal rows lie in two of them
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
    E = np.load(SHARED / f"{name}.npy").astype(np.float32)
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
    E = np.load(SHARED / "ml-100k" / "emb_minilm384_meta.npy").astype(np.float32)
    found = basis(E, "key", tmp_path)
    U, S, _ = np.linalg.svd(centred(E), full_matrices=False)
    np.testing.assert_allclose(found.S, S[:381], rtol=1e-6)
    np.testing.assert_allclose(found.U.astype(np.float64) * found.S @ found.V.T, centred(E), atol=1e-6)
    overlap = np.abs((U[:, :381] * found.U).sum(0))
    assert overlap.min() > 1 - 1e-6

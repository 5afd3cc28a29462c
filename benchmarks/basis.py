"""The spectral basis against NumPy's SVD in float64 and against the matrix products that it needs.

`python benchmarks/basis.py [--large]`: `--large` adds a million items (a few minutes; 4 GB of embeddings and 4 GB of U
in the temporary folder).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import _measure
import numpy as np

from harness.text import embeddings

SHAPES = [(12_101, 384, 3), (12_101, 1024, 1), (12_101, 4096, 1), (2_420, 4096, 1), (100_000, 1024, 1)]  # N, D, repeats
LARGE = (1_000_000, 1024, 0)  # no repeats: timed during the run that measures memory
LARGEST_SVD = 12_101 * 1024  # entries
BLOCK = 4096  # rows of the products whose rate is measured

ABOUT = """
E holds random normal numbers whose singular values fall geometrically by a factor of 10^3, plus a mean; a
memory-mapped float32 file. CPU seconds of one thread. *ours*: survey, Gram matrix, decomposition, projection; U, S and
V written, synced and hashed. *bound*: 2 N D s flops of the Gram matrix, s = min(N, D), at the rate of `A.T @ A`, and
2 N D s of the projection at the rate of `A @ W`, both with float64 blocks in memory, measured in this run (NumPy
computes only half of a product of a matrix with its transpose, hence rates above that of the projection); *eigh*:
`numpy.linalg.eigh` of such a Gram matrix. *svd*: `numpy.linalg.svd` of the centred matrix in float64, where feasible.
*error*: the largest relative error of a singular value, stored in float32, against that SVD. *peak*: the peak of
anonymous memory above its level before the call, sampled every 5 ms, without pages of mapped files, which the system
may drop at any time. *reopened*: wall milliseconds, median of 20.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    shapes = SHAPES + [LARGE] * parser.parse_args().large
    rows = []
    for N, D, repeats in shapes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(N, D, repeats, Path(folder)))
            print(rows[-1], flush=True)
    _measure.write("basis", "The spectral basis", _measure.table(rows), ABOUT.strip())


def measure(N: int, D: int, repeats: int, folder: Path) -> dict[str, object]:
    E = matrix(N, D, folder / "E.npy")
    runs = iter(range(100))

    def ours() -> embeddings.Basis:
        return embeddings.basis(E, f"run {next(runs)}", folder)

    basis, peak, spent = watched(ours)
    error = svd = "-"
    if N * D <= LARGEST_SVD:
        X = E - E.mean(0, dtype=np.float64)
        exact = np.linalg.svd(X, compute_uv=False)[: len(basis.S)]
        error = float(np.abs(basis.S / exact - 1).max())
        spent, svd = _measure.cpu_seconds(ours, lambda: np.linalg.svd(X, full_matrices=False), repeats=repeats)
    elif repeats:
        (spent,) = _measure.cpu_seconds(ours, repeats=repeats)
    bound, eigh = least(N, D)
    return {
        "N": N,
        "D": D,
        "ours, s": spent,
        "bound, s": bound,
        "eigh, s": eigh,
        "ours / (bound + eigh)": spent / (bound + eigh),
        "svd, s": svd,
        "svd / ours": svd / spent if isinstance(svd, float) else "-",
        "error": error,
        "peak, MB": peak / 2**20,
        "reopened, ms": reopened(lambda: embeddings.basis(E, "run 0", folder)),
    }


def matrix(N: int, D: int, path: Path) -> np.ndarray:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0].T
    mixing = (np.geomspace(1, 1e-3, D)[:, None] * axes).astype(np.float32)
    mean = rng.standard_normal(D, dtype=np.float32)
    E = np.lib.format.open_memmap(path, "w+", np.float32, (N, D))
    for start in range(0, N, BLOCK):
        rows = E[start : start + BLOCK]
        rows[:] = rng.standard_normal(rows.shape, dtype=np.float32) @ mixing + mean
    E.flush()
    return np.load(path, mmap_mode="r")


def least(N: int, D: int) -> tuple[float, float]:
    """CPU seconds of Gram matrix plus projection at the rate of large products, and of the decomposition."""
    s = min(N, D)
    rng = np.random.default_rng(1)
    A, W = rng.standard_normal((BLOCK, s)), rng.standard_normal((s, s))
    gram, projection = _measure.cpu_seconds(lambda: A.T @ A, lambda: A @ W, repeats=3)
    (eigh,) = _measure.cpu_seconds(lambda: np.linalg.eigh(A.T @ A), repeats=1)
    return (gram + projection) * max(N, D) / BLOCK, eigh - gram


def watched(call: Callable[[], embeddings.Basis]) -> tuple[embeddings.Basis, int, float]:
    """The result of a call, its peak anonymous memory in bytes, and its CPU seconds."""
    before = largest = anonymous()
    ended = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not ended.wait(0.005):
            largest = max(largest, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        start = time.process_time()
        basis = call()
        return basis, largest - before, time.process_time() - start
    finally:
        ended.set()
        watcher.join()


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def reopened(call: Callable[[], object]) -> float:
    """Wall milliseconds of a call, median of 20."""
    milliseconds = []
    for _ in range(20):
        start = time.perf_counter()
        call()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(milliseconds)


if __name__ == "__main__":
    main()

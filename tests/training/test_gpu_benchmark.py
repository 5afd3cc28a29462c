"""The benchmark of a card, on the CPU; on a card, its comparison of every component."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ENGINES = ("ray", "mlflow", "optuna", "click", "requests", "aiohttp", "transformers")


@pytest.fixture
def parity(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    import _parity

    yield _parity
    torch.set_num_threads(threads)


def test_it_runs_a_step_without_engine_tracking_or_network():
    code = (
        "import sys, torch, gpu, _parity\n"
        "rows = _parity.compare(torch.device('cpu'), 60, [('spectran', 'sasrec', 'softmax')])\n"
        "assert 'loss difference' in rows[0], rows\n"
        f"loaded = sorted(set({ENGINES!r}) & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent)]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_combination_that_raises_is_reported_and_does_not_end_the_run(parity, monkeypatch):
    build = parity.trial.build

    def broken(spec, *rest):
        if spec.cell.adapter == "linear":
            raise RuntimeError("no kernel image")
        return build(spec, *rest)

    monkeypatch.setattr(parity.trial, "build", broken)
    chosen = [("linear", "sasrec", "softmax"), ("llmesr", "hstu_time", "softmax"), ("id", "sasrec", "bce")]
    rows = parity.compare(torch.device("cpu"), 60, chosen)
    assert rows[0]["error"] == "RuntimeError: no kernel image"
    assert "refused" in rows[1]
    assert rows[2]["loss difference"] == 0 == rows[2]["gradient difference"]
    assert parity.failures(rows) == rows[:1]


def test_a_gradient_that_is_off_or_missing_fails(parity):
    wanted = {"a": torch.ones(4), "b": torch.full((4,), 2.0)}
    assert parity.worst(wanted, wanted) == 0
    off = parity.worst(wanted | {"a": torch.tensor([1.0, 1.0, 1.0, 1.02])}, wanted)
    assert off == pytest.approx(0.01, rel=1e-4)
    row = {"loss difference": 0.0, "gradient difference": off}
    assert parity.failures([row]) == [row]
    nothing = {"loss difference": float("nan"), "gradient difference": 0.0}
    assert parity.failures([nothing]) == [nothing]
    with pytest.raises(ArithmeticError, match="'b'"):
        parity.worst({"a": wanted["a"]}, wanted)


def test_every_component_is_compared_before_the_rest(parity):
    chosen = parity.combinations()
    assert len(chosen) == len(set(chosen))
    first = chosen[: len(chosen) // 2]
    for place in range(3):
        assert {c[place] for c in first} == {c[place] for c in chosen}


def test_a_cpu_does_not_write_the_recorded_result():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--small"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--out FOLDER" in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_component_equals_the_cpu_on_a_card(parity):
    torch.set_float32_matmul_precision("highest")
    rows = parity.compare(torch.device("cuda"), 300, parity.combinations()[:80])
    assert parity.failures(rows) == []

"""What a trial takes of its machine: read from real files, of this machine or of a made one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.engine.resources import ResourceMeter

MB = 2**20


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def package(root: Path, name: str, joules: float, span: float | None = None) -> Path:
    """A domain of the kernel's powercap tree, with its counter in microjoules."""
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("energy_uj").write_text(f"{round(joules * 1e6)}\n")
    if span is not None:
        folder.joinpath("max_energy_range_uj").write_text(f"{round(span * 1e6)}\n")
    return folder


def process(root: Path, peak_kb: int) -> None:
    root.joinpath("proc/self").mkdir(parents=True, exist_ok=True)
    root.joinpath("proc/self/status").write_text(
        f"Name:\tpython\nVmPeak:\t999999 kB\nVmHWM:\t{peak_kb} kB\nVmRSS:\t7 kB\n"
    )
    root.joinpath("proc/self/clear_refs").write_text("")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a peak since a moment")
def test_the_peak_is_that_since_the_meter_began_and_not_of_the_process():
    meter = ResourceMeter()
    before = meter.read()["peak_mb"]
    held = np.ones(300 * MB // 8)
    high = meter.read()["peak_mb"]
    assert 290 < high - before < 400
    del held
    assert meter.read()["peak_mb"] == pytest.approx(high, abs=5), "what was given back still counts"
    assert ResourceMeter().read()["peak_mb"] < high - 250, "and no more for the next trial"


def test_energy_is_that_of_whole_packages_and_of_this_trials_share(tmp_path):
    package(tmp_path, "intel-rapl:0", 1000)
    package(tmp_path, "intel-rapl:1", 50)
    package(tmp_path, "intel-rapl:0:0", 700)  # a part of the first, which counts it already
    package(tmp_path, "dtpm", 5)
    meter = ResourceMeter(0.25, tmp_path)
    package(tmp_path, "intel-rapl:0", 1000 + 3600)
    package(tmp_path, "intel-rapl:1", 50 + 7200)
    package(tmp_path, "intel-rapl:0:0", 9000)
    assert meter.read()["energy_wh"] == pytest.approx(0.25 * (1 + 2))


def test_a_counter_that_began_again_is_counted_over_its_range(tmp_path):
    package(tmp_path, "intel-rapl:0", 262_000, span=262_143)
    meter = ResourceMeter(root=tmp_path)
    package(tmp_path, "intel-rapl:0", 3457)
    assert meter.read()["energy_wh"] == pytest.approx((143 + 3457) / 3600)


@pytest.mark.parametrize("lost", ["counter", "range", "words"])
def test_a_machine_that_stops_saying_gives_no_number_rather_than_a_wrong_one(tmp_path, lost):
    package(tmp_path, "intel-rapl:0", 1000)
    folder = package(tmp_path, "intel-rapl:1", 1000)
    meter = ResourceMeter(root=tmp_path)
    package(tmp_path, "intel-rapl:0", 1500)
    if lost == "counter":
        folder.joinpath("energy_uj").unlink()
    elif lost == "range":
        package(tmp_path, "intel-rapl:1", 10)
    else:
        folder.joinpath("energy_uj").write_text("not available\n")
    assert "energy_wh" not in meter.read()


def test_the_peak_is_read_from_the_high_water_mark(tmp_path):
    process(tmp_path, 3 * 1024 + 512)
    meter = ResourceMeter(root=tmp_path)
    assert tmp_path.joinpath("proc/self/clear_refs").read_text() == "5", "the mark is set back first"
    assert meter.read() == {"peak_mb": 3.5}


def test_a_machine_that_says_nothing_is_left_out(tmp_path):
    assert ResourceMeter(root=tmp_path).read() == {}
    process(tmp_path, 1024)
    tmp_path.joinpath("proc/self/clear_refs").unlink()
    tmp_path.joinpath("proc/self/clear_refs").mkdir()  # no file to write to: the mark would be of the whole process
    assert ResourceMeter(root=tmp_path).read() == {}


def test_without_nvml_a_trial_on_a_gpu_has_the_energy_of_the_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    package(tmp_path, "intel-rapl:0", 0)
    meter = ResourceMeter(root=tmp_path)
    package(tmp_path, "intel-rapl:0", 1800)
    assert meter.read() == {"energy_wh": 0.5}


class Nvml(SimpleNamespace):
    """A driver's library of two GPUs, which counts millijoules."""

    def __init__(self) -> None:
        super().__init__(millijoules={"0": 0, "GPU-b": 0}, away=False)

    def nvmlInit(self) -> None:
        if self.away:
            raise RuntimeError("driver not loaded")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return str(index)

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.millijoules[handle]


@pytest.mark.parametrize(("visible", "own"), [("0", "0"), ("GPU-b,GPU-a", "GPU-b")])
def test_with_nvml_the_gpu_given_to_the_trial_counts_too(tmp_path, monkeypatch, visible, own):
    driver = Nvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    package(tmp_path, "intel-rapl:0", 0)
    meter = ResourceMeter(root=tmp_path)
    package(tmp_path, "intel-rapl:0", 1800)
    driver.millijoules = dict.fromkeys(driver.millijoules, 9e9) | {own: 900_000}
    assert meter.read() == {"energy_wh": 0.75}
    driver.away = True
    assert meter.read() == {}, "a sum without its GPU would be too small"


def test_a_trial_takes_its_share_of_its_gpu_and_not_of_the_machines_slots(tmp_path, monkeypatch):
    driver = Nvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    package(tmp_path, "intel-rapl:0", 0)
    meter = ResourceMeter(1 / 32, tmp_path, gpu_share=0.25)
    package(tmp_path, "intel-rapl:0", 32 * 3600)
    driver.millijoules["0"] = 4 * 3_600_000
    assert meter.read() == {"energy_wh": pytest.approx(1 + 1)}


class Card:
    """A GPU's allocator, in the words of torch.cuda."""

    def __init__(self, peak: int) -> None:
        self.peak, self.cached = peak, True

    def empty_cache(self) -> None:
        self.cached = False

    def reset_peak_memory_stats(self) -> None:
        self.peak = 0

    def max_memory_allocated(self) -> int:
        return self.peak


def test_a_trial_on_a_gpu_reports_its_peak_there_and_its_share_of_the_time(tmp_path, monkeypatch):
    card, clock = Card(peak=900 * MB), iter([100.0, 108.0])
    monkeypatch.setattr("harness.engine.resources.time.monotonic", lambda: next(clock))
    meter = ResourceMeter(root=tmp_path, gpu_share=0.25, cuda=card)
    assert not card.cached, "the next trial gets the memory that the last one left"
    card.peak = 3 * MB
    assert meter.read() == {"peak_vram_mb": 3.0, "gpu_seconds": 2.0}

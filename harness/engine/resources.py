"""Resource use of a trial: peak resident memory and, where available, energy.

Only Linux can reset a process's peak memory (``/proc/self/clear_refs``, proc(5)). The energy of processor packages is
in ``/sys/class/powercap``, if the kernel permits reading it. Values that cannot be read are left out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

JOULES_A_WH = 3600.0


class ResourceMeter:
    """Measure resource use from construction to `read`.

    share: fraction of the processors' energy to count, since several trials run in parallel. root: folder of ``proc``
    and ``sys``. gpu_share: fraction of the GPU's energy and time to count. cuda: ``torch.cuda`` if the trial runs on a
    GPU; memory that earlier trials of the process left in its cache is returned first.
    """

    def __init__(
        self, share: float = 1.0, root: Path = Path("/"), gpu_share: float = 1.0, cuda: Any | None = None
    ) -> None:
        self.share, self.root, self.gpu_share = share, root, gpu_share
        self.has_peak = _reset_peak(root)
        self.packages = {domain: _joules(domain) for domain in _packages(root)}
        self.gpu = _gpu_joules()
        self.cuda, self.start = cuda, time.monotonic()
        if cuda is not None:
            cuda.empty_cache()
            cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, float]:
        """Return `peak_mb`, the peak resident memory including the data, in 2^20 bytes, and `energy_wh`, the energy of
        the processor packages and of the GPU if it is used; each only where the machine reports it. On a GPU also
        `peak_vram_mb`, the peak memory of the trial's tensors there in 2^20 bytes, and `gpu_seconds`, wall-clock
        seconds times the trial's share of the GPU."""
        usage = {}
        if self.cuda is not None:
            usage["peak_vram_mb"] = round(self.cuda.max_memory_allocated() / 2**20, 1)
            usage["gpu_seconds"] = self.gpu_share * (time.monotonic() - self.start)
        if self.has_peak and (peak := _peak_mb(self.root)) is not None:
            usage["peak_mb"] = peak
        joules = [(self.share, _since(before, _joules(domain), domain)) for domain, before in self.packages.items()]
        if self.gpu is not None:
            now = _gpu_joules()
            joules.append((self.gpu_share, None if now is None else now - self.gpu))
        shares = [share * spent for share, spent in joules if spent is not None]
        if joules and len(shares) == len(joules):
            usage["energy_wh"] = round(sum(shares) / JOULES_A_WH, 6)
        return usage


def _reset_peak(root: Path) -> bool:
    """Reset the peak to the current resident memory. False if the system does not support it."""
    try:
        (root / "proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_mb(root: Path) -> float | None:
    try:
        lines = (root / "proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else round(int(kilobytes) / 1024, 1)


def _packages(root: Path) -> list[Path]:
    """Return the powercap domains of whole packages (``intel-rapl:0``) without their parts (``intel-rapl:0:1``)."""
    domains = (root / "sys/class/powercap").glob("intel-rapl:*")
    return sorted(path for path in domains if path.name.count(":") == 1)


def _joules(domain: Path) -> float | None:
    return _microjoules(domain / "energy_uj")


def _microjoules(path: Path) -> float | None:
    try:
        return int(path.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def _since(before: float | None, now: float | None, domain: Path) -> float | None:
    """Joules between two readings of a counter that wraps around at its range."""
    if before is None or now is None:
        return None
    if now >= before:
        return now - before
    span = _microjoules(domain / "max_energy_range_uj")
    return None if span is None else now + span - before


def _gpu_joules() -> float | None:
    """Energy counter of this process's first GPU, joules; None without a GPU or without NVML."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        return None
    try:
        import pynvml  # pyright: ignore[reportMissingImports]

        pynvml.nvmlInit()
        first = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(first))
            if first.isdigit()
            else pynvml.nvmlDeviceGetHandleByUUID(first)
        )
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except Exception:  # a trial must not fail because the driver does not report energy
        return None

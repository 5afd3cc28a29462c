"""What a trial takes of its machine: resident memory at its highest, and energy where the machine says it.

Linux alone tells a process's high-water mark since a moment (``/proc/self/clear_refs``, proc(5)); the packages' energy
is in ``/sys/class/powercap`` where the kernel lets one read it. What cannot be read is left out.
"""

from __future__ import annotations

import os
from pathlib import Path

JOULES_A_WH = 3600.0


class ResourceMeter:
    """Measures from its construction to `read`.

    share: of the energy of the machine's processors that is counted, where several trials run side by side. root:
    where ``proc`` and ``sys`` are. gpu_share: of the GPU, of its energy.
    """

    def __init__(self, share: float = 1.0, root: Path = Path("/"), gpu_share: float = 1.0) -> None:
        self.share, self.root, self.gpu_share = share, root, gpu_share
        self.peaked = _forget_peak(root)
        self.packages = {domain: _joules(domain) for domain in _packages(root)}
        self.gpu = _gpu_joules()

    def read(self) -> dict[str, float]:
        """`peak_mb`: resident memory at its highest, the data included, in 2^20 bytes; `energy_wh`: of the processor
        packages and, where it is used, the GPU; each only where the machine says it."""
        found = {}
        if self.peaked and (peak := _peak_mb(self.root)) is not None:
            found["peak_mb"] = peak
        joules = [(self.share, _since(before, _joules(domain), domain)) for domain, before in self.packages.items()]
        if self.gpu is not None:
            now = _gpu_joules()
            joules.append((self.gpu_share, None if now is None else now - self.gpu))
        own = [share * spent for share, spent in joules if spent is not None]
        if joules and len(own) == len(joules):
            found["energy_wh"] = round(sum(own) / JOULES_A_WH, 6)
        return found


def _forget_peak(root: Path) -> bool:
    """Set the high-water mark back to what is resident now. False where the system does not know how."""
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
    """The domains of whole packages (``intel-rapl:0``), not the parts of them (``intel-rapl:0:1``)."""
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
    """Joules between two readings of a counter that starts again at its range."""
    if before is None or now is None:
        return None
    if now >= before:
        return now - before
    span = _microjoules(domain / "max_energy_range_uj")
    return None if span is None else now + span - before


def _gpu_joules() -> float | None:
    """The counter of the first GPU that this process may use, where NVML is installed and a GPU was given to it."""
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
    except Exception:  # whatever the driver says, a trial goes on without
        return None

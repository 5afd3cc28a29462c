"""Hosts in network namespaces of this machine: each has its own address, loopback and ports, and sees nothing of the
others' folders for temporary files. They are joined by a switch. Needs root and the programs of iproute2.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

NETWORK = "10.253.7"
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def missing() -> str:
    """Why hosts cannot be made here; empty if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if not (shutil.which("ip") and shutil.which("unshare")):
        return "network namespaces need the programs ip and unshare"
    if run("ip", "netns", "add", probe := f"probe{os.getpid()}", check=False).returncode:
        return "this system refuses network namespaces"
    run("ip", "netns", "del", probe)
    return ""


def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=check, capture_output=True, text=True)


class Network:
    """A switch and its hosts. `folder` is private to each host but the first; it holds Ray's files."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.prefix = folder, f"h{os.getpid()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.names = names
        self.switch = f"{self.prefix}sw"
        run("ip", "netns", "add", self.switch)
        self._ip(self.switch, "link", "add", "bridge0", "type", "bridge")
        self._ip(self.switch, "link", "set", "bridge0", "up")
        for at, name in enumerate(names, 1):
            host = self._namespace(name)
            run("ip", "netns", "add", host)
            port = f"port{at}"
            self._ip(self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
            self._ip(self.switch, "link", "set", port, "master", "bridge0", "up")
            self._ip(host, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._ip(host, "link", "set", device, "up")

    def _namespace(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def _ip(self, namespace: str, *words: str) -> None:
        run("ip", "-n", namespace, *words)

    def address(self, name: str) -> str:
        return f"{NETWORK}.{1 + self.names.index(name)}"

    def words(self, name: str, *words: str) -> list[str]:
        """A command on a host."""
        inside = ["ip", "netns", "exec", self._namespace(name)]
        if name == self.names[0]:
            return [*inside, *words]
        mount = 'mount -t tmpfs none "$0" && exec "$@"'
        return [*inside, "unshare", "--mount", "sh", "-c", mount, str(self.folder), *words]

    def ray(self, name: str, head: str, *words: str) -> None:
        """Start Ray on a host: as the head, or joining it."""
        place = [f"--node-ip-address={self.address(name)}", "--block", "--disable-usage-stats"]
        if name == head:
            place += ["--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        else:
            place += [f"--address={self.address(head)}:6379"]
        command = self.words(name, *RAY, "start", *place, *words)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(command, start_new_session=True, **quiet))

    def cut(self, name: str, cut: bool) -> None:
        """Pull a host's cable, or plug it in again."""
        self._ip(self.switch, "link", "set", f"port{1 + self.names.index(name)}", "down" if cut else "up")

    def kill(self, name: str) -> None:
        """End all processes of a host at once, as a power cut does."""
        for pid in map(int, run("ip", "netns", "pids", self._namespace(name)).stdout.split()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def close(self) -> None:
        for name in self.names:
            self.kill(name)
        for process in self.processes:
            process.wait(timeout=20)
        for name in (*map(self._namespace, self.names), self.switch):
            run("ip", "netns", "del", name, check=False)

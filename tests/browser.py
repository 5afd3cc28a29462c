"""A real headless Chromium, spoken to over its DevTools pipe: no port, no driver, nothing to install beside it."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--mute-audio"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
]
PATIENCE = 90.0  # seconds that an answer may take on a loaded machine


def find() -> str | None:
    """The program, or None. $HARNESS_CHROMIUM names one elsewhere."""
    named = os.environ.get("HARNESS_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


class Absent(RuntimeError):
    """There is no Chromium, and no way to one from here."""


def obtain() -> str:
    """The program; where there is none, and we are root on a Debian, its package is installed first.

    Raises Absent with the reason if there is no way to it.
    """
    if found := find():
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Absent("no Chromium is here, and only root can install one with apt-get")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for limit, *words in ((120, "update"), (420, "install", "-y", "chromium")):
        try:
            told = subprocess.run(
                ["apt-get", *words], env=quiet, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Absent(f"apt-get {words[0]} took more than {limit} s") from error
        if told.returncode:
            last = (told.stderr.strip().splitlines() or ["no message"])[-1]
            raise Absent(f"apt-get {words[0]} failed: {last}")
    if found := find():
        return found
    raise Absent("apt-get installed chromium, but it cannot be found")


class Browser:
    """One Chromium process. Messages are JSON objects that end with a NUL, on its descriptors 3 (in) and 4 (out)."""

    def __init__(self, program: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ours_in, theirs_out = (_high(end) for end in os.pipe())
        theirs_in, ours_out = (_high(end) for end in os.pipe())
        log = (os.POSIX_SPAWN_OPEN, 2, str(folder / "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4), log]
        words = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.pid = os.posix_spawn(program, words, os.environ, file_actions=actions, setpgroup=0)
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come in between are kept in `events`."""
        self._number += 1
        number, message = self._number, {"id": self._number, "method": method, "params": params}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._read(until - time.monotonic())
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def _read(self, patience: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, patience))
            data = os.read(self._in, 1 << 16) if ready else b""
            if not data:
                raise RuntimeError("Chromium does not answer" if not ready else "Chromium has ended")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, number)
            for _ in range(50):
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    os.close(self._in)
                    os.close(self._out)
                    return
                time.sleep(0.1)


class Tab:
    """A page in it. Every request, console message, exception and policy violation is on record."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def open(self, address: str, width: int = 1280, height: int = 900, **screen: Any) -> None:
        """Load an address and wait until its scripts have run."""
        self.size(width, height, **screen)
        self.browser.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def size(self, width: int, height: int = 900, *, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def media(self, **features: str) -> None:
        """Such as prefers-color-scheme, with `_` for `-`."""
        known = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=known)

    def run(self, expression: str) -> Any:
        """The JSON value of an expression, awaited. Raises RuntimeError if it throws."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return told["result"].get("value")

    def until(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise RuntimeError(f"never came true: {condition}")
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """A real click in the middle of the first match, scrolled into view and drawn there: what has been laid out
        and not drawn yet is not what a click meets."""
        x, y = self.run(
            f"(async () => {{ const node = document.querySelector({json.dumps(selector)}); node.scrollIntoView("
            "{block: 'center', inline: 'center', behavior: 'instant'});"
            " await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));"
            " const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """A real key; `code` is its Windows virtual key code."""
        about = {"key": key, "windowsVirtualKeyCode": code, "code": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, words: str) -> None:
        self.call("Input.insertText", text=words)

    def shot(self, path: Path, *, whole: bool = False) -> None:
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def faults(self) -> list[str]:
        """Console errors and warnings, uncaught exceptions, policy violations, since the last `open`."""
        self.run("0")  # what was on its way has come
        found = []
        for event in self.browser.events:
            name, params = event["method"], event["params"]
            if name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
            elif name == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif name == "Audits.issueAdded" and "NavigationEntryMarkedSkippable" not in str(
                params
            ):  # no gesture made it
                found.append(f"{params['issue']['code']}: {params['issue']['details']}"[:300])
        return found

    def requests(self) -> list[str]:
        """Addresses asked for since the last `open`."""
        self.run("0")
        asked = [
            e["params"]["request"]["url"] for e in self.browser.events if e["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in asked if address != "about:blank"]

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)


def _high(descriptor: int) -> int:
    """The same end of a pipe under a number that is not 3 or 4, not inherited."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """A browser for the length of a block. Raises Absent if there is none."""
    browser = Browser(obtain(), folder)
    try:
        yield browser
    finally:
        browser.close()

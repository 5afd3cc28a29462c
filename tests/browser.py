"""A headless Chromium, driven by Playwright: the installed program, not a downloaded one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Error, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 90_000  # ms that an answer may take on a loaded machine
SCREEN = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}
LEVELS = ("error", "warning", "assert")  # of console messages that count as faults
SKIPPABLE = "NavigationEntryMarkedSkippable"  # an audit of pages opened without a user's gesture: every page of a test


def find() -> str | None:
    """Return the path of Chromium, or None. $HARNESS_CHROMIUM overrides the search."""
    return os.environ.get("HARNESS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Absent(RuntimeError):
    """Chromium is not installed and cannot be installed from here."""


def obtain() -> str:
    """Return the path of Chromium; root on Debian installs its package first where it is missing.

    Raises Absent with the reason.
    """
    if program := find():
        return program
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Absent("Chromium is not installed, and only root can install it with apt-get")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for limit, *words in ((120, "update"), (420, "install", "-y", "chromium")):
        try:
            done = subprocess.run(
                ["apt-get", *words], env=quiet, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Absent(f"apt-get {words[0]} took more than {limit} s") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Absent(f"apt-get {words[0]} failed: {last}")
    if program := find():
        return program
    raise Absent("apt-get installed chromium, but it is not on the path")


class Tab:
    """A page in a profile of its own that records requests, console messages, exceptions and policy violations."""

    def __init__(self, browser: Browser, *, phone: bool = False) -> None:
        self.context = browser.new_context(**(PHONE if phone else SCREEN))
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self._faults: list[str] = []
        self._requests: list[str] = []
        self.page.on("console", lambda message: message.type in LEVELS and self._faults.append(message.text))
        self.page.on("pageerror", lambda error: self._faults.append(str(error)))
        self._devtools = self.context.new_cdp_session(self.page)
        self._devtools.on("Audits.issueAdded", self._audited)
        self._devtools.on("Network.requestWillBeSent", lambda event: self._requests.append(event["request"]["url"]))
        for domain in ("Audits", "Network"):
            self.call(f"{domain}.enable")

    def _audited(self, event: dict[str, Any]) -> None:
        issue = event["issue"]
        if SKIPPABLE not in str(issue):
            self._faults.append(f"{issue['code']}: {issue['details']}"[:300])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a DevTools command that Playwright has no method for."""
        return self._devtools.send(method, params)

    def open(self, address: str) -> None:
        """Load an address, even if only its fragment is new, and clear the record."""
        self.page.goto("about:blank")
        self._faults.clear()
        self._requests.clear()
        self.page.goto(address)

    def media(self, **features: Any) -> None:
        """Emulate media features, such as `color_scheme="dark"`."""
        self.page.emulate_media(**features)

    def run(self, expression: str) -> Any:
        """Return the JSON value of an expression, awaited. Raises Playwright's Error if it throws."""
        return self.page.evaluate(expression)

    def until(self, condition: str) -> None:
        """Wait until an expression is true.

        Polled from here: Playwright's own polling evaluates a string in the page, which the page's policy forbids.
        """
        limit = time.monotonic() + PATIENCE / 1000
        while not self._holds(condition):
            assert time.monotonic() < limit, f"not true after {PATIENCE} ms: {condition}"
            self.page.wait_for_timeout(20)

    def _holds(self, condition: str) -> bool:
        """Whether an expression is true; not while the page is being replaced by the next one."""
        try:
            return bool(self.run(condition))
        except Error as error:
            if "context was destroyed" in str(error):
                return False
            raise

    def click(self, selector: str) -> None:
        """Click the first match with the mouse once it is visible, still and on top."""
        self.page.locator(selector).first.click()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def type(self, words: str) -> None:
        self.page.keyboard.insert_text(words)

    def faults(self) -> list[str]:
        """Return console errors and warnings, uncaught exceptions and policy violations since the last `open`."""
        self.run("0")  # events sent before its answer have arrived
        return self._faults

    def requests(self) -> list[str]:
        """Return the addresses requested since the last `open`."""
        self.run("0")
        return self._requests

    def reset(self) -> None:
        """Undo what a test may have changed: media features and the choices that the report stores."""
        self.media(color_scheme="null", reduced_motion="null")
        self.call("Storage.clearDataForOrigin", origin="file://", storageTypes="local_storage")

    def close(self) -> None:
        self.context.close()


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """Run a browser for the length of a block. Raises Absent if there is none."""
    program = obtain()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, timeout=PATIENCE, chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()

"""A headless Chromium that a test clicks in, where one is installed, driven over its debugging pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Page:
    """One open page. Clicks and keys are real input: what lies under the pointer gets them."""

    def __init__(self, to_browser: int, from_browser: int, patience: float) -> None:
        self._write, self._read = to_browser, from_browser
        self._patience = patience
        self._numbers = count(1)
        self._rest = b""
        self._session: str | None = None
        self.requests: list[str] = []  # addresses that the page has asked for

    def open(self, address: str, width: int, height: int) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Network.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=address)
        self.wait_for(f"document.readyState + location.href === {json.dumps('complete' + address)}")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true: some events come only after the input that causes them."""
        deadline = time.monotonic() + self._patience
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"{expression} stays false"
            time.sleep(0.02)

    def hover(self, element: str) -> tuple[float, float]:
        """Move the pointer onto an element, given as a JavaScript expression; its middle in the window."""
        box = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2] }})({element})"
        )
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
        return box[0], box[1]

    def click(self, element: str) -> None:
        x, y = self.hover(element)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 and kind == "keyDown" else ""
            )
        time.sleep(0.02)

    def type(self, text: str) -> None:
        """Type a text into the element that has been clicked."""
        self.send("Input.insertText", text=text)

    def screenshot(self) -> bytes:
        """Return a screenshot of the window as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and wait for its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._patience
        while True:
            answer = self._next(deadline)
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextmanager
def open_page(path: Path, profile: Path, width: int = 1200, height: int = 900, patience: float = 90) -> Iterator[Page]:
    """Open a local page in a new browser, which ends with the block.

    Args:
        profile: an empty folder.
        patience: seconds that any one answer may take.
    """
    read_commands, write_commands = map(_high, os.pipe())
    read_answers, write_answers = map(_high, os.pipe())
    # Chromium reads commands from 3 and writes answers to 4; started in a group of its own, so that all of it can end
    start = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
    browser = subprocess.Popen(
        ["bash", "-c", start, "bash", str(EXECUTABLE), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(read_commands, write_answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        os.close(read_commands)
        os.close(write_answers)
        page = Page(write_commands, read_answers, patience)
        page.open(path.as_uri(), width, height)
        yield page
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
        os.close(write_commands)
        os.close(read_answers)


def _high(descriptor: int) -> int:
    """Return a descriptor of the same file other than 3 and 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved

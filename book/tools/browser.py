"""Drive a headless Chromium from the standard library, over its DevTools pipe.

For look.py, `book.py print` and tests/book/test_browser.py: open a page, run JavaScript in it,
take its picture, and know every request it made and every error it reported.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # a container's root cannot have one; the pages are our own
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
]
# Formulas are set and fonts are there.
READY = """(async () => {
  while (document.readyState !== 'complete') await new Promise(r => setTimeout(r, 10));
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  await document.fonts.ready;
  return true;
})()"""


def find_browser() -> str | None:
    """The Chromium of this machine: $CHROME, or one on the path."""
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)


class BrowserError(RuntimeError):
    """The browser refused a command, or did not answer in time."""


class Browser:
    """One page in a headless Chromium; a context manager.

    Attributes:
        requests: addresses of everything the page has asked for, since `forget`.
        errors: what its console reported as an error, and exceptions nobody caught.
    """

    def __init__(self, program: str, *, timeout: float = 60.0) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._timeout, self._next, self._session, self._rest = timeout, 0, "", b""
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        self._pid = self._start(program)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def _start(self, program: str) -> int:
        """Chromium reads commands from its descriptor 3 and answers on 4."""
        import fcntl  # here, since Windows lacks it, where the tests are collected, too

        pairs = [[fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in os.pipe()] for _ in "io"]
        (theirs_in, self._out), (self._in, theirs_out) = pairs
        actions: list[Any] = [
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        call = [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        pid = os.posix_spawn(program, call, os.environ, file_actions=actions, setpgroup=0)
        os.close(theirs_in)
        os.close(theirs_out)
        return pid

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._out)
        os.close(self._in)
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give one DevTools command and wait for its result."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") != self._next:
                self._note(answer)
            elif "error" in answer:
                raise BrowserError(f"{method}: {answer['error']['message']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        """The next message, answer or event."""
        end = time.monotonic() + self._timeout
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            got = os.read(self._in, 1 << 20) if ready else b""
            if not got:
                raise BrowserError("the browser went away, or was silent for too long")
            self._rest += got
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        """Remember requests and errors."""
        method, given = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            self.errors.append(thrown.splitlines()[0])
        elif method == "Runtime.consoleAPICalled" and given["type"] == "error":
            self.errors.append(" ".join(str(arg.get("value")) for arg in given["args"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")

    def forget(self) -> None:
        """Start the lists of requests and errors anew."""
        self.requests.clear()
        self.errors.clear()

    def open(self, address: str) -> None:
        """Go to an address, and wait until formulas and fonts are there."""
        result = self.send("Page.navigate", url=address)
        if "errorText" in result:
            raise BrowserError(f"{address}: {result['errorText']}")
        self.wait(READY, seconds=self._timeout)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        result = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def wait(self, condition: str, *, seconds: float = 30.0) -> Any:
        """Wait until a JavaScript expression is true, across a change of page; its value."""
        end = time.monotonic() + seconds
        while True:
            try:
                if value := self.run(condition):
                    return value
            except BrowserError as error:
                if not re.search("navigated|context", str(error)):
                    raise
            if time.monotonic() > end:
                raise BrowserError(f"not within {seconds} s: {condition}")
            time.sleep(0.02)

    def press(self, text: str) -> None:
        """Type a text into what has the focus; a line break is the Enter key."""
        for piece in text.splitlines(keepends=True):
            self.send("Input.insertText", text=piece.rstrip("\n"))
            if piece.endswith("\n"):
                for kind in ("keyDown", "keyUp"):
                    self.send(
                        "Input.dispatchKeyEvent",
                        type=kind,
                        key="Enter",
                        code="Enter",
                        text="\r",
                        windowsVirtualKeyCode=13,
                    )

    def width(self, pixels: int, height: int = 900) -> None:
        """Give the window a width in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def pictures(self, path: Path, *, height: int = 16_000) -> None:
        """Save the whole page as PNGs, PATH and PATH-2, ..., none higher than Chromium can draw."""
        size = self.send("Page.getLayoutMetrics")["cssLayoutViewport"]
        whole = self.run("document.documentElement.scrollHeight")
        self.width(size["clientWidth"], min(whole, height))
        for part, top in enumerate(range(0, whole, height), start=1):
            self.run(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
            shot = base64.b64decode(self.send("Page.captureScreenshot")["data"])
            (path if part == 1 else path.with_stem(f"{path.stem}-{part}")).write_bytes(shot)
        self.width(size["clientWidth"], size["clientHeight"])

    def pdf(self, path: Path) -> None:
        """Print the page to A4, as its style sheet says, with an outline and working links."""
        printed = self.send(
            "Page.printToPDF",
            preferCSSPageSize=True,
            printBackground=True,
            displayHeaderFooter=True,
            headerTemplate="<span></span>",
            footerTemplate='<span class="pageNumber" style="font-size: 8px; margin: auto"></span>',
            generateTaggedPDF=True,
            generateDocumentOutline=True,
            transferMode="ReturnAsBase64",
        )
        path.write_bytes(base64.b64decode(printed["data"]))

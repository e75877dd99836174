"""A real browser driven over the DevTools protocol through a pipe: no driver, no web socket, no package."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars", "--mute-audio", "--remote-debugging-pipe"),
)
PATIENCE_S = 60


def executable() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. `events` holds what the browser told without being asked."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer, self._calls, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._calls:
                assert "error" not in answer, f"{method}: {answer['error']}"
                found: dict[str, Any] = answer["result"]
                return found
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0, until - time.monotonic()))
            assert ready, f"the browser said nothing for {PATIENCE_S} s"
            read = os.read(self._from, 1 << 16)
            assert read, "the browser has ended"
            self._buffer += read
        message, self._buffer = self._buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, path: Path) -> None:
        """Loads a file and waits until its script says that all is there."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + PATIENCE_S
        while self.run("document.documentElement?.dataset.ready ?? ''") != "tree":
            assert time.monotonic() < until, "the page was never ready"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a script. Fails where it throws."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path, whole: bool = False) -> None:
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def told(self, *methods: str) -> list[dict[str, Any]]:
        """The parameters of some events so far."""
        return [event["params"] for event in self.events if event.get("method") in methods]


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[Page]:
    """A page in a browser that ends with the block."""
    found = executable()
    assert found is not None, "no chromium on this machine"
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()

    def ends() -> None:
        # The protocol's own numbers: the browser reads 3 and writes 4. Duplicated first, as one of ours may have such a number.
        reads, writes = os.dup(in_read), os.dup(out_write)
        os.dup2(reads, 3)
        os.dup2(writes, 4)

    command = [found, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=ends, close_fds=False
    )
    os.close(in_read)
    os.close(out_write)
    page = Page(in_write, out_read)
    try:
        page.attach()
        yield page
        page.call("Page.close")
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        os.close(in_write)
        os.close(out_read)

"""Chromium as a person uses it: by the protocol of its own developer tools, which a page's policy does not bind."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from looking_at import FLAGS


class Tab:
    """One page, open. `run` evaluates an expression in it and returns its value; `picture` is what it looks like."""

    def __init__(self, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.socket, self.loop, self.count = socket, loop, 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        self.loop.run_until_complete(self.socket.send(json.dumps({"id": self.count, "method": method, "params": params})))
        while True:
            message = json.loads(self.loop.run_until_complete(asyncio.wait_for(self.socket.recv(), 60)))
            if message.get("id") == self.count:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def run(self, expression: str) -> Any:
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address: str, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=address)
        deadline = time.monotonic() + 60
        while self.run("location.href") != address or self.run("document.readyState") != "complete":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]))


@contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    import websockets

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    flags = [flag for flag in FLAGS if not flag.startswith("--virtual-time")]
    command = [chromium, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        address = page_address(profile)
        socket = loop.run_until_complete(websockets.connect(address, max_size=None, proxy=None))
        yield Tab(socket, loop)
        loop.run_until_complete(socket.close())
    finally:
        loop.close()
        browser.terminate()
        browser.wait(timeout=30)


def page_address(profile: Path) -> str:
    """Where the page's socket is: Chromium writes its port into the profile once it listens."""
    import urllib.request

    deadline, note = time.monotonic() + 60, profile / "DevToolsActivePort"
    while not (note.exists() and note.read_text().strip()):
        assert time.monotonic() < deadline, "chromium does not start"
        time.sleep(0.05)
    with urllib.request.urlopen(f"http://127.0.0.1:{note.read_text().splitlines()[0]}/json", timeout=30) as answer:
        found = json.loads(answer.read())
    return str(next(each["webSocketDebuggerUrl"] for each in found if each["type"] == "page"))

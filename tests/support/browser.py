"""Headless Chromium, driven over its debugging protocol: as a user's hands, eyes, and ears for what goes wrong."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

PROGRAM = shutil.which("chromium")


class Browser:
    """One page. requested: every address it asked for. complaints: errors and warnings of its console."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 960) -> None:
        assert PROGRAM, "Debian's `chromium` is needed"
        self.downloads = folder / "downloads"
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        profile = folder / "profile"
        self.process = subprocess.Popen(
            [PROGRAM, "--headless", "--no-sandbox", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
             "--remote-debugging-port=0",
             f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        known = profile / "DevToolsActivePort"
        for _ in range(600):
            if known.exists() and known.read_text().count("\n"):
                break
            time.sleep(0.1)
        port = known.read_text().splitlines()[0]
        (page,) = [one for one in httpx.get(f"http://127.0.0.1:{port}/json").json() if one["type"] == "page"]
        self.socket = connect(page["webSocketDebuggerUrl"], max_size=None)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")
        self.do("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.do("Emulation.setDeviceMetricsOverride", **size)

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer; events before it are noted."""
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=120))
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        kind, said = message.get("method"), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requested.append(said["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"])[:500])
        elif kind == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(said["args"])[:500])
        elif kind == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url')}")

    # --- hands

    def open(self, address: str) -> None:
        self.do("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def choose(self, selector: str, file: Path) -> None:
        """Picks a file, as in the dialogue behind an input."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def write(self, selector: str, text: str) -> None:
        self.value(f"(e => {{ e.focus(); e.value = ''; }})(document.querySelector({json.dumps(selector)}))")
        self.do("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        self.value(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        x, y = self.middle(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._mouse(kind, x, y)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """start, end: shares of the element's width and height."""
        self.value(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        left, top, width, height = self._rectangle(selector)
        points = [(left + x * width, top + y * height) for x, y in (start, end)]
        self._mouse("mousePressed", *points[0])
        for share in (0.2, 0.4, 0.6, 0.8, 1.0):
            self._mouse("mouseMoved", *(a + share * (b - a) for a, b in zip(*points, strict=True)))
        self._mouse("mouseReleased", *points[1])

    def _mouse(self, kind: str, x: float, y: float) -> None:
        pressed = 0 if kind == "mouseReleased" else 1
        self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=pressed, clickCount=1)

    def middle(self, selector: str) -> tuple[float, float]:
        left, top, width, height = self._rectangle(selector)
        return left + width / 2, top + height / 2

    def _rectangle(self, selector: str) -> list[float]:
        return self.value(
            f"(r => [r.left, r.top, r.width, r.height])(document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect())"
        )

    # --- eyes

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives."""
        said = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def text(self, selector: str) -> str:
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def hidden(self, selector: str) -> bool:
        return self.value(f"document.querySelector({json.dumps(selector)}).hidden")

    def until(self, expression: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.1)

    def picture(self, selector: str | None = None) -> bytes:
        """PNG of the window, or of one element."""
        clip = {}
        self.value("scrollTo(0, 0)")  # a clip counts from the document's top
        if selector:
            left, top, width, height = self._rectangle(selector)
            clip = {"clip": {"x": left, "y": top, "width": width, "height": height, "scale": 1}}
        return base64.b64decode(self.do("Page.captureScreenshot", format="png", **clip)["data"])

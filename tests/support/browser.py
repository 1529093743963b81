"""A headless Chromium, driven by the WebDriver protocol that ChromeDriver speaks over HTTP.

Source of the protocol: https://www.w3.org/TR/webdriver2/.
"""

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
CHROMEDRIVER = shutil.which("chromedriver")
IS_MISSING = not (CHROMIUM and CHROMEDRIVER)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Keys by the names that pages see, as WebDriver writes them.
KEYS = {
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "Escape": "\ue00c",
    "Tab": "\ue004",
}
AGAINST_HANGING_S = 300


class Browser:
    """One window.

    Args:
        address: of ChromeDriver.
        profile: a new folder for what Chromium keeps.
    """

    def __init__(self, address: str, profile: Path) -> None:
        self._address = address
        capabilities = {
            "goog:chromeOptions": {
                "binary": CHROMIUM,
                "args": [*FLAGS, f"--user-data-dir={profile}"],
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        value = self._call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})
        self._address = f"{address}/{value['sessionId']}"

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a page anew, with what follows # in its address."""
        self._call("POST", "/url", {"url": "about:blank"})
        self.logs("browser")
        self.logs("performance")
        self._call("POST", "/url", {"url": page.resolve().as_uri() + fragment})

    def script(self, body: str, *arguments: Any) -> Any:
        """Return what the body of a function returns in the page; promises are waited for."""
        return self._call("POST", "/execute/sync", {"script": body, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Press keys one after the other: those in `KEYS` by name, other texts letter by letter."""
        actions = []
        for key in keys:
            for letter in [KEYS[key]] if key in KEYS else key:
                actions += [
                    {"type": "keyDown", "value": letter},
                    {"type": "keyUp", "value": letter},
                ]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._call("POST", "/actions", {"actions": [source]})

    def click(self, selector: str, text: str | None = None) -> None:
        """Click the first element of a selector, or the first that has this text."""
        reference = self.script(
            "return [...document.querySelectorAll(arguments[0])].find("
            "one => arguments[1] === null || one.textContent.trim() === arguments[1])",
            selector,
            text,
        )
        assert reference, f"no {selector} has the text {text!r}"
        (element,) = reference.values()
        self._call("POST", f"/element/{element}/click", {})

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window in pixels."""
        self._call("POST", "/window/rect", {"width": width, "height": height})

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def logs(self, kind: str) -> list[dict[str, Any]]:
        """Return what was logged since the last call: ``browser`` or ``performance``."""
        return self._call("POST", "/se/log", {"type": kind})

    def console(self) -> list[str]:
        """Return the messages in the console, errors of scripts and of policies among them."""
        return [entry["message"] for entry in self.logs("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were requested, but for images that the page itself holds."""
        addresses = []
        for entry in self.logs("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                addresses.append(event["params"]["request"]["url"])
        return [address for address in addresses if not address.startswith("data:")]

    def close(self) -> None:
        """Close the window."""
        self._call("DELETE", "")

    def _call(self, method: str, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._address + path, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=AGAINST_HANGING_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start ChromeDriver and Chromium, and end both after the block.

    Args:
        folder: a new one for what they write.
    """
    log = folder / "chromedriver.log"
    command = [str(CHROMEDRIVER), "--port=0", f"--log-path={log}"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        port = None
        for line in driver.stdout:
            port = re.search(r"started successfully on port (\d+)", line)
            if port:
                break
        assert port, "ChromeDriver did not start"
        window = Browser(f"http://127.0.0.1:{port[1]}/session", folder / "profile")
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait()

"""A headless Chromium, spoken to over a pipe; nothing but Python needed."""

import json
import os
import shutil
import subprocess
import tempfile

_NAMES = ("chromium", "chromium-browser", "google-chrome")


class Chromium:
    """One page in a headless browser; a context manager.

    Attributes:
        events: What the browser said unasked, as `(method, parameters)`.
    """

    def __init__(self):
        program = next(filter(None, map(shutil.which, _NAMES)), None)
        if program is None:
            raise FileNotFoundError(f"None of {', '.join(_NAMES)} is installed")
        self.events = []
        self._count = 0
        self._profile = tempfile.TemporaryDirectory()
        for_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        self._process = subprocess.Popen(
            [
                # The browser reads from descriptor 3 and writes to 4.
                "sh",
                "-c",
                f'exec "$@" 3<&{for_browser} 4>&{from_browser}',
                "sh",
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                f"--user-data-dir={self._profile.name}",
                "--remote-debugging-pipe",
            ],
            pass_fds=(for_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(for_browser)
        os.close(from_browser)
        self._rest = b""
        self._session = None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self(
            "Target.attachToTarget", targetId=target, flatten=True
        )["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        os.close(self._to)
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._from)
        self._profile.cleanup()

    def __call__(self, method, **parameters):
        """A command of the DevTools protocol; returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append((answer["method"], answer["params"]))

    def open(self, url):
        """Load a page and wait until it is there, images and all."""
        self.events.clear()
        self("Page.navigate", url=url)
        while not any(m == "Page.loadEventFired" for m, _ in self.events):
            answer = self._read()
            self.events.append((answer["method"], answer["params"]))

    def evaluate(self, expression):
        """The value of a JavaScript expression on the page."""
        answer = self(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def _read(self):
        while b"\0" not in self._rest:
            part = os.read(self._from, 1 << 16)
            if not part:
                raise RuntimeError("The browser has gone.")
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        return json.loads(line)

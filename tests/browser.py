"""A headless Chromium for tests of what people look at: it is told by its debugging protocol, over a pipe."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from drover import PATIENCE, wait

ARTIFACTS = Path(os.environ.get("DROVER_TEST_ARTIFACTS") or Path(__file__).resolve().parent.parent / "build" / "artifacts")


class Browser:
    """One page of it, and nothing kept."""

    def __init__(self, width=1280, height=800):
        self.directory = Path(tempfile.mkdtemp(prefix="drover-browser."))
        self.log_file = self.directory / "chromium.log"
        self.width, self.height = width, height
        self.n = 0
        self.rest = b""
        asked, self.asking = os.pipe()
        self.answered, answering = os.pipe()
        program = shutil.which("chromium")
        assert program, "there is no chromium in $PATH: install it, or let tests/run.sh do so"

        def pipes():
            # It reads from 3 and writes to 4; neither of the two may be in the way of the other.
            first, second = os.dup2(asked, 103), os.dup2(answering, 104)
            os.dup2(first, 3)
            os.dup2(second, 4)

        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                [program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self.directory / 'profile'}",
                 # Of root it has no sandbox; /dev/shm is small in containers. It is to ask nobody but the page.
                 *(["--no-sandbox"] if os.geteuid() == 0 else []), "--disable-dev-shm-usage", "--disable-gpu",
                 "--no-first-run", "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
                 "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--hide-scrollbars",
                 f"--window-size={width},{height}", "about:blank"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=False, preexec_fn=pipes, start_new_session=True,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "TZ": "UTC", "LANG": "C.UTF-8"})
        os.close(asked)
        os.close(answering)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    # the protocol: JSON objects that end with a 0 byte

    def ask(self, method, session=None, **parameters):
        """What it answers. What else it says meanwhile is of no interest."""
        self.n += 1
        order = {"id": self.n, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        data = json.dumps(order).encode() + b"\0"
        while data:
            data = data[os.write(self.asking, data):]
        deadline = time.monotonic() + PATIENCE
        while True:
            while b"\0" not in self.rest:
                ready, _, _ = select.select([self.answered], [], [], max(deadline - time.monotonic(), 0))
                got = os.read(self.answered, 1 << 16) if ready else b""
                assert got, f"chromium does not answer {method}:\n{self.log_file.read_text(errors='replace')[-4000:]}"
                self.rest += got
            line, self.rest = self.rest.split(b"\0", 1)
            said = json.loads(line)
            if said.get("id") == self.n:
                assert "result" in said, f"{method}: {said}"
                return said["result"]

    def tell(self, method, **parameters):
        return self.ask(method, self.session, **parameters)

    # what a test calls

    def open(self, url):
        self.tell("Page.navigate", url=url)

    def evaluate(self, script):
        """The value of an expression of JavaScript in the page."""
        said = self.tell("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def text(self):
        """What the page shows, as it is rendered."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    def wait_text(self, *words):
        """Until all of them are shown; all of the text."""
        def shown():
            text = self.text()
            return all(word in text for word in words) and text
        return wait(shown, lambda: f"the page shows {words}:\n{self.evaluate('location.href')}\n{self.text()}", 2 * PATIENCE,
                    every=0.1)

    def click(self, text):
        """The link that says so."""
        found = f"[...document.querySelectorAll('a')].find(a => a.innerText.trim() === {json.dumps(text)})"
        wait(lambda: self.evaluate(f"!!{found}"), lambda: f"there is a link {text!r}:\n{self.text()}")
        self.evaluate(f"{found}.click()")

    def screenshot(self, name, height=None):
        """The window as it is, or its upper part, in the directory of artifacts."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.evaluate("document.activeElement.blur()")
        clip = {"x": 0, "y": 0, "width": self.width, "height": height or self.height, "scale": 1}
        data = self.tell("Page.captureScreenshot", format="png", clip=clip)["data"]
        path = ARTIFACTS / f"{name}.png"
        path.write_bytes(base64.b64decode(data))
        return path

    def close(self):
        os.close(self.asking)
        os.close(self.answered)
        try:
            self.process.wait(5) # it ends with its pipe
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

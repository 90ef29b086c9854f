"""The robustness report in a real browser.

    python3 tests/browser/check_report.py [FOLDER]

Needs Chromium (`apt install chromium`). Leaves screenshots and a PDF in the
folder, if given, for a person to look at.
"""

import base64
import pathlib
import sys
import tempfile

from chromium import Chromium

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from example_evaluation import SCRIPT
from example_evaluation import digits
from example_evaluation import example
from keras_qsn import report

WIDTHS = (320, 360, 768, 1280)

OVERFLOWING = """
[...document.querySelectorAll("body *")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5
               && e.getBoundingClientRect().width > 1)
  .map(e => e.tagName + "." + e.className)
"""

BROKEN_IMAGES = """
[...document.images].filter(i => !i.complete || !i.naturalWidth).length
"""

# Text whose contrast with the ground behind it is below 4.5, the AA level.
FAINT = """
(() => {
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = color => parts(color).slice(0, 3)
    .map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const hasText = e => [...e.childNodes]
    .some(n => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")].filter(hasText).filter(e => {
    const [a, b] = [getComputedStyle(e).color, ground(e)].map(luminance)
      .sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  }).map(e => e.tagName + ": " + e.textContent.slice(0, 40));
})()
"""


def main(folder):
    page = report.write_report(
        example(digits(96)), folder, lambda x: (x > 0.5).astype("float32")
    )[-1]
    url = page.resolve().as_uri()
    with Chromium() as browser:
        for scheme in ("light", "dark"):
            for width in WIDTHS:
                check(browser, url, scheme, width)
                save(browser, folder / f"{scheme}-{width}.png")
            assert browser.evaluate(GROUND) == GROUNDS[scheme]
        check_print(browser, folder / "print.pdf")


GROUND = "getComputedStyle(document.body).backgroundColor"
GROUNDS = {"light": "rgb(246, 247, 248)", "dark": "rgb(18, 21, 24)"}


def check(browser, url, scheme, width):
    """All that must hold at one width and in one colour scheme."""
    browser(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=800,
        deviceScaleFactor=1,
        mobile=width < 700,
    )
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser("Emulation.setEmulatedMedia", media="screen", features=media)
    browser.open(url)
    asked = {
        p["request"]["url"].split(",")[0]
        for method, p in browser.events
        if method == "Network.requestWillBeSent"
    }
    outside = {u for u in asked if u != url and not u.startswith("data:")}
    assert not outside, outside
    said = [p for m, p in browser.events if m in ("Log.entryAdded", DIALOG)]
    assert not said, said
    assert browser.evaluate("document.querySelector('h1').innerText") == SCRIPT
    assert browser.evaluate("document.scripts.length") == 0
    wide = browser.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, (scheme, width, wide)
    assert browser.evaluate(OVERFLOWING) == []
    assert browser.evaluate(BROKEN_IMAGES) == 0
    assert browser.evaluate(FAINT) == [], browser.evaluate(FAINT)
    print(f"{scheme}, {width} px wide: fits, and asks for nothing")


DIALOG = "Page.javascriptDialogOpening"


def check_print(browser, path):
    """Print from the dark scheme: paper stays white."""
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser("Emulation.setEmulatedMedia", media="", features=dark)
    data = browser("Page.printToPDF", printBackground=False)["data"]
    data = base64.b64decode(data)
    assert data.startswith(b"%PDF")
    path.write_bytes(data)
    browser("Emulation.setEmulatedMedia", media="print", features=dark)
    ink = browser.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(28, 33, 38)", ink
    print(f"prints, {len(data)} bytes")


def save(browser, path):
    """A picture of the whole page."""
    picture = browser("Page.captureScreenshot", captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(picture["data"]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(pathlib.Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(pathlib.Path(temporary))

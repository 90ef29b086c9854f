"""The pages in a real browser: a report, and a comparison.

    python3 tests/browser/check_report.py [FOLDER]

Needs Chromium (`apt install chromium`). Leaves screenshots and a PDF in the
folder, if given, for a person to look at.
"""

import base64
import dataclasses
import pathlib
import sys
import tempfile

from chromium import Chromium

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from example_evaluation import BREAKS
from example_evaluation import CHECKS
from example_evaluation import SCRIPT
from example_evaluation import STEPS
from example_evaluation import digits
from example_evaluation import example
from keras_qsn import report
from keras_qsn.evaluation import compare

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


# What a screen reader is told of a page.
ROLES = {"heading", "columnheader", "cell", "image"}


def pages(folder):
    """The pages, and what each has as its title."""
    evaluation = many_attacks()
    yield (
        report.write_report(
            evaluation, folder, lambda x: (x > 0.5).astype("float32")
        )[-1],
        SCRIPT,
    )
    models = {SCRIPT: evaluation, "a model of a long name, " * 3: example()}
    yield compare(models).write(folder)[-1], "Which model is the most robust?"


def many_attacks():
    """As the standard plan on a quantizer leaves it: most break nothing."""
    steps = [
        dataclasses.replace(step, name=f"{step.name}, {turn}")
        for turn in range(4)
        for step in STEPS
    ]
    breaks = [*BREAKS, *[0] * (len(steps) - len(BREAKS))]
    checks = [
        dataclasses.replace(
            check,
            key=f"{check.key}-{turn}",
            number=4 * turn + i,
            status=check.status if turn == 0 else "pass",
        )
        for turn in range(5)
        for i, check in enumerate(CHECKS)
    ]
    return example(digits(96), steps, breaks, checks)


def main(folder):
    with Chromium() as browser:
        for page, title in pages(folder):
            check_page(browser, page, title)


def check_page(browser, page, title):
    """All that must hold of a page; leaves pictures beside it."""
    url, folder, name = page.resolve().as_uri(), page.parent, page.stem
    for scheme in ("light", "dark"):
        for width in WIDTHS:
            check(browser, url, title, scheme, width)
            save(browser, folder / f"{name}-{scheme}-{width}.png")
        assert browser.evaluate(GROUND) == GROUNDS[scheme]
    check_print(browser, folder / f"{name}.pdf")


GROUND = "getComputedStyle(document.body).backgroundColor"
GROUNDS = {"light": "rgb(246, 247, 248)", "dark": "rgb(18, 21, 24)"}


def check(browser, url, title, scheme, width):
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
    assert browser.evaluate("document.querySelector('h1').innerText") == title
    assert browser.evaluate("document.scripts.length") == 0
    wide = browser.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, (scheme, width, wide)
    assert browser.evaluate(OVERFLOWING) == []
    assert browser.evaluate(BROKEN_IMAGES) == 0
    assert browser.evaluate(FAINT) == [], browser.evaluate(FAINT)
    tall = browser.evaluate("document.documentElement.scrollHeight")
    assert tall < 9000, (scheme, width, tall)
    check_reading(browser)
    print(f"{title[:20]}, {scheme}, {width} px wide: fits, {tall} px tall")


def check_reading(browser):
    """What a screen reader is told, in which order."""
    told = {}
    for node in browser("Accessibility.getFullAXTree")["nodes"]:
        if not node["ignored"]:
            told.setdefault(node["role"]["value"], []).append(node)
    assert ROLES <= {*told}, ROLES - {*told}
    for node in told["heading"] + told["image"]:
        assert node["name"]["value"].strip(), node
    levels = [
        prop["value"]["value"]
        for node in told["heading"]
        for prop in node["properties"]
        if prop["name"] == "level"
    ]
    assert levels[0] == 1 and 1 not in levels[1:], levels
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:])), levels


# Paper cannot be unfolded.
FOLDED = """
[...document.querySelectorAll("details td")]
  .filter(e => !e.checkVisibility({contentVisibilityAuto: true}))
  .map(e => e.textContent.slice(0, 40))
"""

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
    assert browser.evaluate(FOLDED) == [], browser.evaluate(FOLDED)
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

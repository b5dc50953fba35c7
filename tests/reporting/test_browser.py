"""The page in a browser: SQUEEZE_BROWSER names one, else Chromium or Chrome is looked for."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from squeeze_patch.reporting.page import Curve, Pictures, Row, Section, Table, page
from tests.reporting.conftest import HOSTILE

BROWSER = os.environ.get("SQUEEZE_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium, or name one in SQUEEZE_BROWSER"),
]
#: nothing of its own goes to the network; colours are those of the files
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)
#: of every text that is seen: [contrast to what is behind it (WCAG 2, relative luminance), the text]
CONTRASTS = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = parse(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if ((parse(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const words = texts.currentNode.textContent.trim();
    if (!words || !element.getClientRects().length || element.closest("script, option, title")) continue;
    const style = getComputedStyle(element);
    const pair = [element instanceof SVGElement ? style.fill : style.color, behind(element)].map(luminance);
    found.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), words]);
  }
  for (const select of document.querySelectorAll("select")) {
    const pair = [getComputedStyle(select).color, behind(select)].map(luminance);
    found.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), "select"]);
  }
  return found;
}"""
Layers = Dict[str, NDArray[np.uint8]]


class Opened:
    """A page that is open in the browser, and all that it said or asked for."""

    def __init__(self, browser: Any, path: Path, **how: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1000, "height": 800}, **how})
        self.context.set_default_timeout(5000)  # ms
        self.tab = self.context.new_page()
        self.said: List[str] = []
        self.asked: List[str] = []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: Any) -> None:
        self.context.close()

    def pixels(self, selector: str = ".stage") -> NDArray[np.int64]:
        """What is seen of an element, [H, W, 3]."""
        element = self.tab.locator(selector).first
        element.scroll_into_view_if_needed()
        clip = {name: round(value) for name, value in element.bounding_box().items()}
        with Image.open(io.BytesIO(self.tab.screenshot(clip=clip))) as image:
            return np.asarray(image.convert("RGB")).astype(np.int64)

    def choose(self, name: str, label: str) -> None:
        self.tab.locator(f"select[name={name}]").first.select_option(label=label)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture(scope="module")
def path(sections: List[Section], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "page.html"
    target.write_text(page("A title", Row("Verdict", "1 of 4", "of the checks", "short"), sections), encoding="utf-8")
    return target


def enlarged(image: NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """An image of few pixels, each of which has become a square."""
    scale, rest = divmod(size, len(image))
    assert rest == 0
    return image.astype(np.int64).repeat(scale, axis=0).repeat(scale, axis=1)


def same(seen: NDArray[np.int64], image: NDArray[np.uint8], left: int = 1, right: int = -1) -> bool:
    """Whether an enlarged image is seen, between two columns, but for its border: it may stand between two pixels of
    the screen."""
    return bool((seen[1:-1, left:right] == enlarged(image, len(seen))[1:-1, left:right]).all())


def test_it_says_nothing_and_asks_for_nothing(browser: Any, path: Path) -> None:
    with Opened(browser, path) as opened:
        assert opened.tab.locator("section").count() == 7
        assert opened.tab.locator(".viewer").first.is_visible()
        assert not [url for url in opened.asked if url != path.as_uri() and not url.startswith("data:")]
        assert opened.said == []


def test_the_policy_stops_what_would_be_loaded_or_run(browser: Any, path: Path) -> None:
    """Not that there is anything: these are put in from outside."""
    with Opened(browser, path) as opened:
        opened.tab.evaluate(
            "const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);"
            "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
        )
        assert opened.tab.evaluate("window.ran") is None
        opened.tab.wait_for_function("document.images[document.images.length - 1].complete")
        assert len([line for line in opened.said if "Content Security Policy" in line]) == 2


def test_texts_run_nothing(browser: Any, tmp_path: Path, layers: Layers) -> None:
    images = Pictures(HOSTILE, {HOSTILE: layers["dense"], f"{HOSTILE} 2": layers["squeezed"]}, HOSTILE)
    sections: List[Section] = [Table(HOSTILE, [Row(HOSTILE, HOSTILE, HOSTILE)]), images]
    sections.append(Curve(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: [(1, 2), (2, 3)]}, note=HOSTILE))
    (tmp_path / "page.html").write_text(page(HOSTILE, HOSTILE, sections), encoding="utf-8")
    with Opened(browser, tmp_path / "page.html", viewport={"width": 320, "height": 700}) as opened:
        assert opened.said == []
        assert opened.tab.locator("h1").inner_text().startswith("\"'><script>alert(1)</script><img src=//example.com")
        assert opened.tab.locator("img[src^='//']").count() == 0
        assert opened.tab.evaluate("document.documentElement.scrollWidth") == 320


def test_the_slider_wipes_from_one_layer_to_the_other(browser: Any, path: Path, layers: Layers) -> None:
    first, second = layers["dense"], layers["squeezed"]
    with Opened(browser, path) as opened:
        slider = opened.tab.get_by_label("Share of the left images, in percent")
        slider.press("Home")
        seen = opened.pixels()
        assert len(seen) >= 512  # enlarged to fit
        assert same(seen, second[0])
        slider.press("End")
        assert same(opened.pixels(), first[0])
        slider.fill("25")
        seen, border = opened.pixels(), len(seen) // 4
        assert same(seen, first[0], 1, border - 3)
        assert same(seen, second[0], border + 3, -1)
        assert (seen[1:-1, border - 3 : border + 3] == 255).any()  # a line between them


def test_it_is_operated_by_keyboard(browser: Any, path: Path, layers: Layers) -> None:
    with Opened(browser, path) as opened:
        tab = opened.tab
        tab.get_by_role("combobox", name="Latent", exact=True).focus()
        tab.keyboard.press("ArrowDown")
        for _ in range(2):
            tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowDown")
        for _ in range(4):  # view, zoom, the images, the slider
            tab.keyboard.press("Tab")
        slider = tab.get_by_label("Share of the left images, in percent")
        assert slider.evaluate("e => e === document.activeElement")
        tab.keyboard.press("ArrowRight")
        name = list(layers)[2]
        assert slider.get_attribute("aria-valuetext") == f"51 percent dense, 49 percent {name}"
        tab.keyboard.press("Home")
        assert same(opened.pixels(), layers[name][1])
        assert tab.locator(".stage img").evaluate_all("all => all.map(e => e.alt)") == [
            "dense, latent 2",
            f"{name}, latent 2",
        ]


def test_it_is_operated_by_mouse_and_touch(browser: Any, path: Path) -> None:
    with Opened(browser, path, has_touch=True) as opened:
        tab = opened.tab
        tab.locator(".stage").scroll_into_view_if_needed()
        box = tab.locator(".stage").bounding_box()
        x, y, width = box["x"], box["y"] + 100, box["width"]
        tab.mouse.move(x + width / 2, y)
        tab.mouse.down()
        tab.mouse.move(x + width / 4, y)
        assert tab.locator("[name=wipe]").input_value() == "25"
        tab.mouse.move(x - 10, y)  # out of the image: its end
        tab.mouse.up()
        assert tab.locator("[name=wipe]").input_value() == "0"
        tab.mouse.move(x + width / 2, y)
        assert tab.locator("[name=wipe]").input_value() == "0"
        tab.touchscreen.tap(x + width * 0.75, y)
        assert tab.locator("[name=wipe]").input_value() == "75"
        tab.locator(".strip img").nth(2).click()
        assert tab.locator("[name=latent]").input_value() == "2"


def test_differences_are_amplified(browser: Any, path: Path, layers: Layers) -> None:
    difference = np.abs(layers["dense"][1].astype(np.int64) - layers["squeezed"][1])
    with Opened(browser, path) as opened:
        opened.choose("latent", "2")
        opened.choose("zoom", "1x")
        for factor in (1, 4, 32):
            opened.choose("view", f"difference x {factor}")
            expected = (difference * factor).clip(0, 255)
            assert np.abs(opened.pixels() - expected)[1:-1, 1:-1].max() <= 1  # the browser may blend in float
        assert opened.tab.locator("[name=wipe]").is_disabled()
        opened.choose("right", "dense")
        assert opened.pixels()[1:-1, 1:-1].max() == 0


def test_zoom_shows_pixels_as_squares(browser: Any, path: Path, layers: Layers) -> None:
    with Opened(browser, path, viewport={"width": 400, "height": 800}) as opened:
        opened.tab.locator("[name=wipe]").press("End")
        for factor in (1, 8, 32):
            opened.choose("zoom", f"{factor}x")
            assert opened.tab.locator(".stage").bounding_box()["width"] == 16 * factor
            if factor < 32:  # else it scrolls inside of its frame
                assert same(opened.pixels(), layers["dense"][0])
        assert opened.tab.evaluate("document.documentElement.scrollWidth") == 400
        assert opened.tab.locator(".frame").evaluate("e => [e.scrollWidth, e.clientWidth < 400]") == [512, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible(browser: Any, path: Path, scheme: str) -> None:
    """WCAG 2 AA: 4.5 : 1."""
    with Opened(browser, path, color_scheme=scheme) as opened:
        opened.tab.locator("details").evaluate_all("all => all.forEach(e => { e.open = true; })")
        contrasts = opened.tab.evaluate(CONTRASTS)
        assert len(contrasts) > 100
        assert [(ratio, words) for ratio, words in contrasts if ratio < 4.5] == []
        ground = opened.tab.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, ground[len("rgb(") : -1].split(","))) / 3
        assert (brightness > 128) == (scheme == "light")


@pytest.mark.parametrize("width", [320, 1600])
def test_it_fits_windows(browser: Any, path: Path, width: int) -> None:
    with Opened(browser, path, viewport={"width": width, "height": 800}) as opened:
        opened.tab.locator("details").evaluate_all("all => all.forEach(e => { e.open = true; })")
        size = "[document.documentElement.scrollWidth, document.body.scrollWidth <= innerWidth]"
        assert opened.tab.evaluate(size) == [width, True]


@pytest.mark.parametrize("width", [718, 1047])
def test_it_fits_paper(browser: Any, path: Path, width: int) -> None:
    """A4 within its margins, upright and across; all images, and no controls."""
    with Opened(browser, path, viewport={"width": width, "height": 1000}) as opened:
        opened.tab.emulate_media(media="print")
        assert opened.tab.evaluate("document.documentElement.scrollWidth") == width
        assert not opened.tab.locator(".viewer").first.is_visible()
        assert opened.tab.locator(".strip img").last.is_visible()


def test_large_images_are_shrunk_on_the_screen_alone(browser: Any, tmp_path: Path) -> None:
    images = np.zeros([1, 1024, 1024, 3], dtype=np.uint8)
    (tmp_path / "page.html").write_text(page("", "", [Pictures("", {"a": images, "b": images})]), encoding="utf-8")
    with Opened(browser, tmp_path / "page.html", viewport={"width": 320, "height": 640}) as opened:
        assert 200 < opened.tab.locator(".stage").bounding_box()["width"] <= 320
        assert opened.tab.evaluate("document.documentElement.scrollWidth") == 320
        opened.choose("zoom", "1x")
        assert opened.tab.locator(".stage").bounding_box()["width"] == 1024
        assert opened.tab.evaluate("document.documentElement.scrollWidth") == 320


def test_without_scripts_all_images_are_there(browser: Any, path: Path, layers: Layers) -> None:
    with Opened(browser, path, java_script_enabled=False) as opened:
        images = opened.tab.locator(".strip img")
        assert images.count() == 9 + 3
        assert all(images.nth(index).is_visible() for index in range(images.count()))
        assert same(opened.pixels(".strip img"), layers["dense"][0])
        assert not opened.tab.locator(".viewer").first.is_visible()

"""The page as text."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from typing import Dict, List, Tuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from squeeze_patch.errors import MeasurementError
from squeeze_patch.reporting import page_pictures
from squeeze_patch.reporting.page import START, Curve, Pictures, Row, Section, Table, page
from squeeze_patch.reporting.page_curves import Axis
from tests.reporting.conftest import HOSTILE

VOID = {"meta", "link", "img", "input", "br"}
Layers = Dict[str, NDArray[np.uint8]]


class Document(HTMLParser):
    """What a page has; an end tag that does not fit is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: List[str] = []
        self.elements: List[Tuple[str, Dict[str, str]]] = []
        self.texts: Dict[str, List[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: List[Tuple[str, str | None]]) -> None:
        assert "svg" in self.open
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str) -> List[Dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def pixels(address: str) -> NDArray[np.uint8]:
    data = base64.b64decode(address[len("data:image/png;base64,") :], validate=True)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def test_it_is_one_document_that_refers_to_nothing(sections: List[Section]) -> None:
    text = page("A title", "A summary", sections)
    assert text.startswith(START)
    found = Document(text)
    assert [found.texts[tag][0] for tag in ("h1", "title")] == ["A title", "A title"]
    assert found.texts["h2"] == [section.title for section in sections]
    assert found.all("html") == [{"lang": "en"}]
    for tag, attributes in found.elements:
        assert not {name for name in attributes if name.startswith("on")} | {"style"} & set(attributes), tag
        for name in {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "ping"} & set(attributes):
            assert attributes[name].startswith("data:"), tag
    code = "".join(found.texts["style"] + found.texts["script"])
    assert not re.search(r"url\(|@import|https?:|fetch|XMLHttp|WebSocket|import\(", code)


def test_its_policy_allows_its_own_style_and_script(sections: List[Section]) -> None:
    found = Document(page("", "", sections))
    (policy,) = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert (allowed["default-src"], allowed["img-src"]) == ("'none'", "data:")
    for tag in ("style", "script"):
        (text,) = found.texts[tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"


def test_no_text_is_taken_for_html(layers: Layers) -> None:
    def everything(text: str) -> str:
        row = Row(text, text, text, "short")
        texts = Table(text, [[text, text]], [text, text], text)
        curve = Curve(text, text, text, {text: [(1, 2), (3, 4)], f"{text} too": [(1, 5)]}, note=text)
        images = Pictures(text, {text: layers["dense"], f"{text} too": layers["squeezed"]}, text)
        return page(text, row, [Table(text, [row], [text] * 3, text), texts, curve, images])

    hostile, harmless = Document(everything(HOSTILE)), Document(everything("harmless"))
    assert everything(HOSTILE).encode()  # nothing is left that UTF-8 has no bytes for
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert [set(attributes) for _, attributes in hostile.elements] == [set(names) for _, names in harmless.elements]
    seen = HOSTILE.replace("\x00", "\\x00").replace("\u202e", "\\u202e").replace("\udc80", "\\udc80")
    assert hostile.texts["h1"] == [seen]
    assert next(attributes["alt"] for attributes in hostile.all("img")) == f"{seen}, latent 1"
    count = sum(text.count("harmless") for texts in harmless.texts.values() for text in texts)
    assert sum(text.count(seen) for texts in hostile.texts.values() for text in texts) == count


def test_images_are_embedded_pixel_for_pixel(layers: Layers) -> None:
    found = Document(page("", "", [Pictures("Images", layers)])).all("img")
    names = [(name, latent) for name in layers for latent in range(3)]
    assert [image["alt"] for image in found] == [f"{name}, latent {latent + 1}" for name, latent in names]
    for image, (name, latent) in zip(found, names):
        assert (pixels(image["src"]) == layers[name][latent]).all()
        assert (image["width"], image["height"]) == ("128", "128")


@pytest.mark.parametrize(("room", "shown"), [(0, 1), (2.5, 2), (3, 3)])
def test_images_that_find_no_room_are_told(
    layers: Layers, monkeypatch: pytest.MonkeyPatch, room: float, shown: int
) -> None:
    whole = [sum(len(page_pictures.png_address(images[n])) for images in layers.values()) for n in range(3)]
    monkeypatch.setattr(page_pictures, "MOST_CHARACTERS", int(sum(whole) * room / 3))
    text = page("", "", [Pictures("Images", layers)])
    assert len(Document(text).all("img")) == 3 * shown
    assert (f"Shown are the first {shown} of 3 latents" in text) == (shown < 3)


def test_what_images_cost() -> None:
    """The bound that the docstring gives, on the images that compress the least."""
    noise = np.random.default_rng(0).integers(0, 256, [2, 64, 64, 3], dtype=np.uint8)
    sizes = [len(page("", "", [Pictures("", {"a": images, "b": images})])) for images in (noise[:1], noise)]
    assert 0.95 < (sizes[1] - sizes[0]) / (4 * 2 * 64**2) < 1.05  # 4/3 of 3 bytes a pixel, and PNG's own


def test_tables_leave_out_what_no_row_has() -> None:
    for row, columns in (
        (Row("a", "1"), ["name", "value"]),
        (Row("a", "1", "x"), ["name", "value", "detail"]),
        (Row("a", "1", state="holds"), ["name", "value", "state"]),
        (Row("a", "1", "x", "holds"), ["name", "value", "state", "detail"]),
    ):
        found = Document(page("", "", [Table("Rows", [row, Row("b", "2")])]))
        assert found.texts["th"] == [*columns, "a", "b"]
        assert {cell["scope"] for cell in found.all("th")} == {"col", "row"}
    assert "nothing to show" in page("", "", [Table("None", [])])


def test_a_state_is_told_in_words() -> None:
    for state, words in (("holds", "holds"), ("short", "falls short"), ("unknown", "could not be run")):
        found = Document(page("", Row("Verdict", "1 of 2", state=state), []))
        assert f" {words}" in found.texts["span"]


def test_what_does_not_fit_is_refused(layers: Layers) -> None:
    with pytest.raises(MeasurementError, match="state is one of holds, short, unknown, skipped or empty, not 'good'"):
        Row("a", "1", state="good")
    for rows in ([["a"]], [["a", "b", "c"], Row("a", "b")]):
        with pytest.raises(MeasurementError, match="have to be alike, and to fill its 3 columns"):
            Table("Rows", rows)  # type: ignore[arg-type]
    for images, words in (
        ({}, r"shape \[N, H, W, 3\]"),
        ({"a": layers["dense"][0]}, r"shape \[N, H, W, 3\]"),
        ({"a": layers["dense"][:0]}, r"shape \[N, H, W, 3\]"),
        ({"a": layers["dense"], "b": layers["dense"][:2]}, "of one shape"),
        ({"a": layers["dense"] / 255}, "uint8, not float64"),
    ):
        with pytest.raises(MeasurementError, match=words):
            Pictures("Images", images)


def drawn(curve: Curve) -> Document:
    return Document(page("", "", [curve]))


def test_curves_say_what_they_leave_out() -> None:
    points = [(1, 1.0), (2, float("nan")), (3, float("inf")), (4, 0.0), (5, 2.0)]
    for log, missing in ((False, 2), (True, 3)):
        found = drawn(Curve("C", "x", "y", {"one": points}, log_y=log))
        assert f"{missing} points are not drawn: no place on these axes." in found.texts["p"]
        assert len(found.all("circle")) == 1 + 5 - missing  # in the legend, and the points
        assert [text for text in found.texts["td"] if text != "\n"] == ["1", "nan", "inf", "0", "2"]
    assert "There are no points to draw." in drawn(Curve("C", "x", "y", {})).texts["p"]
    assert drawn(Curve("C", "x", "y", {"one": [(0, 0)]}, log_x=True)).all("circle") == []


def test_curves_are_where_their_points_are() -> None:
    """A straight line on logarithmic axes, on a path of two segments of equal length."""
    found = drawn(Curve("C", "x", "y", {"one": [(1, 100), (10, 1000), (100, 10000)]}, log_x=True, log_y=True))
    (path,) = [p["d"] for p in found.all("path") if p.get("class") == "line" and "L" in p["d"]]
    places = np.array([list(map(float, part.split())) for part in path[1:].split("L")])
    steps = np.diff(places, axis=0)
    assert np.abs(steps[0] - steps[1]).max() <= 0.2  # places are written with one decimal
    assert (steps[:, 0] > 0).all()
    assert (steps[:, 1] < 0).all()  # y of a drawing points down
    circles = [(float(c["cx"]), float(c["cy"])) for c in found.all("circle")][1:]
    assert circles == [tuple(place) for place in places]


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ([0.0, 1.0], False, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([3.0, 10.0], False, ["0", "2", "4", "6", "8", "10"]),
        ([98.0, 99.0], False, ["98", "98.2", "98.4", "98.6", "98.8", "99"]),
        ([-1.0, 1.0], False, ["-1", "-0.5", "0", "0.5", "1"]),
        ([5.0], False, ["2", "3", "4", "5", "6", "7", "8"]),
        ([0.0], False, ["-1", "-0.5", "0", "0.5", "1"]),
        ([1e-30, 3e-30], False, ["0", "5e-31", "1e-30", "1.5e-30", "2e-30", "2.5e-30", "3e-30"]),
        ([100.0, 100.01], False, ["100", "100.002", "100.004", "100.006", "100.008", "100.01"]),
        ([1.0, 1 + 2**-52], False, ["0.4", "0.6", "0.8", "1", "1.2", "1.4", "1.6"]),
        ([-9e299, 9e299], False, ["-1e+300", "-5e+299", "0", "5e+299", "1e+300"]),
        ([2e-300, 9e299], True, ["2e-300", "9e+299"]),
        ([4.0, 8.0, 1024.0], True, ["4", "8", "1024"]),
        ([7.0], True, ["7"]),
        (
            [*map(float, range(1, 1001))],
            True,
            ["1", "2", "3", "5", "10", "20", "30", "50", "100", "200", "300", "500", "1000"],
        ),
    ],
)
def test_ticks(values: List[float], log: bool, labels: List[str]) -> None:
    axis = Axis.of(values, log, 0, 1000)
    ticks = sorted(axis.ticks(20))
    assert [label for _, label in ticks] == labels
    assert all(0 <= place <= 1000 for place, _ in ticks)
    assert all(0 <= axis.place(value) <= 1000 for value in values)
    near = sorted(place for place, _ in axis.ticks(300))
    assert 1 <= len(near) <= 4
    assert min(np.diff(near), default=300) >= 300

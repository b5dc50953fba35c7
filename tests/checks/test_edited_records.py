"""Records that were edited by hand or mixed by a merge: nothing passes for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import pytest

from squeeze_patch.checks.baseline import read_baseline
from squeeze_patch.errors import ConfigError
from tests.held import Held

WEIGHT = "synthesis.b8.conv1.weight"
#: edits by hand and by merges, of the file's text and of its generator, and what is said of them
OF_TEXT: Dict[str, Any] = {
    "a table twice": (lambda text: text.replace('"plan"', '"tensors": {}, "plan"'), "tensors twice.*--ours"),
    "a tensor twice": (lambda text: text.replace('"tensors": {', f'"tensors": {{"{WEIGHT}": 1,'), "twice.*--ours"),
    "a schema that is true": (lambda text: text.replace('"schema": 1', '"schema": true'), "no baseline"),
    "a schema of never": (lambda text: text.replace('"schema": 1', '"schema": 0'), "no baseline"),
}
OF_GENERATOR: Dict[str, Any] = {
    "an infinite norm": (lambda G: G["tensors"][WEIGHT].update(norm=float("inf")), "no.* finite number"),
    "an infinite ratio": (lambda G: G.update(ratios={"memory": float("inf")}), "no.* finite number"),
    "no sums": (lambda G: G["tensors"][WEIGHT].update(sums=[]), "0 sums of a tensor, not 4"),
    "images lost": (lambda G: G["images"].pop("stored noise"), "no images.*, or not all"),
    "a true number": (lambda G: G.update(multiply_adds=True), "True where a number"),
    "a huge number": (lambda G: G.update(multiply_adds=10**400), "10000000000000000000 where a number"),
}


@pytest.mark.parametrize("name", [*OF_TEXT, *OF_GENERATOR])
def test_records_that_hide_something_are_refused(held: Held, name: str, tmp_path: Path) -> None:
    text = held.context.config.baseline.read_text()
    edit, words = {**OF_TEXT, **OF_GENERATOR}[name]
    if name in OF_TEXT:
        text = edit(text)
    else:
        data = json.loads(text)
        edit(data["generators"][""])
        text = json.dumps(data)
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(ConfigError, match=f"this baseline cannot be read .*{words}"):
        read_baseline(tmp_path / "b.json")


def test_numbers_that_were_exchanged(held: Held) -> None:
    """Where the random signs of both are the same, the sums are, too."""
    exchanged = replace(held.recorded.tensors[WEIGHT], sha256="0" * 16)
    answer = held.asked("weights", replace(held.recorded, tensors={**held.recorded.tensors, WEIGHT: exchanged}))
    assert (answer.state, answer.place) == ("short", WEIGHT)


@pytest.mark.parametrize(("name", "kind"), [("images", "images"), ("features", "features"), ("constants", "probes")])
def test_a_peak_that_is_too_high_lets_nothing_pass(held: Held, name: str, kind: str) -> None:
    samples = getattr(held.recorded, kind)
    wrong = {each: replace(one, peak=1e30, values=one.values + 0.1) for each, one in samples.items()}
    assert held.asked(name, replace(held.recorded, **{kind: wrong})).state == "short"


def test_images_of_a_call_that_is_not_made(held: Held) -> None:
    more = {**held.recorded.images, "of another day": next(iter(held.recorded.images.values()))}
    answer = held.asked("images", replace(held.recorded, images=more))
    assert (answer.state, answer.found) == ("short", "it makes no images (of another day)")

"""What each check holds a generator to: just within it, just beyond it, and where there is nothing to hold it to."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Dict, List, Mapping

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import sampler
from squeeze_patch.checks import copy_checks, cost_checks, parity_checks, structure_checks
from squeeze_patch.checks.baseline import Baseline
from squeeze_patch.checks.catalogue import BY_NAME
from squeeze_patch.checks.export_checks import fed
from squeeze_patch.checks.fixed_inputs import fixed_latents
from squeeze_patch.checks.tracing import Trace, trace
from squeeze_patch.errors import MissingPackageError
from tests.held import Held, dense, found, small


@pytest.mark.parametrize(
    ("names", "values"),
    [(["z"], "z"), (["latent"], "z"), (["c", "z"], "cz"), (["latent", "label"], "zc"), (["latent", "c"], "zc")],
)
def test_inputs_of_an_onnx_file(names: List[str], values: str) -> None:
    assert fed(names, {"z": "z", "c": "c"}) == dict(zip(names, values))


def test_an_onnx_file_that_wants_more() -> None:
    with pytest.raises(squeeze_patch.ConfigError, match="z, c, psi"):
        fed(["z", "c", "psi"], {"z": 0, "c": 0})


def test_state_without_a_record() -> None:
    outcome = found(dense, "state")
    assert (outcome.state, outcome.place, outcome.wanted) == ("short", "b4", "squeezed")


def test_reduction(held: Held) -> None:
    saved = held.recorded.plan.reduction
    assert held.asked("reduction").state == "holds"
    for least, state in ((saved + 0.002, "holds"), (saved + 0.004, "short")):  # the tolerance is 0.003
        assert held.asked("reduction", at_least=least).state == state
        left = round(held.recorded.plan.parameters_before * (1 - least))
        promised = replace(held.recorded.plan, parameters_after=left)
        assert held.asked("reduction", replace(held.recorded, plan=promised)).state == state
    assert held.asked("reduction", at_least=saved + 0.1, tolerance=0.11).state == "holds"


def test_names_say_what_became_of_them(held: Held) -> None:
    tensors = dict(held.recorded.tensors)
    bias, noise = "synthesis.b8.conv1.bias", "synthesis.b8.conv1.noise_const"
    gone = {name: record for name, record in tensors.items() if name != bias}
    other = {**tensors, bias: replace(tensors[bias], shape=(3,)), noise: replace(tensors[noise], dtype="float64")}
    turned = {**tensors, bias: replace(tensors[bias], kind="buffer")}
    for now, words, place in (
        (gone, f"1 new ({bias})", bias),
        ({**tensors, "old": tensors[bias]}, "1 lost (old)", "old"),
        (other, f"2 of another form ({bias}: [8] float32, was [3] float32)", bias),
        (turned, "1 turned into parameters", bias),
    ):
        answer = held.asked("names", replace(held.recorded, tensors=now))
        assert (answer.state, answer.found, answer.place) == ("short", words, place)
    of_before = {name: replace(record, kind="") for name, record in tensors.items()}
    assert held.asked("names", replace(held.recorded, tensors=of_before)).state == "holds"


def test_weights_name_the_worst(held: Held) -> None:
    tensors = dict(held.recorded.tensors)
    bias, weight = "synthesis.b8.conv1.bias", "synthesis.b8.conv1.weight"

    def off(name: str, share: float) -> Any:
        before = tensors[name]
        return replace(before, sha256="", sums=tuple(each + share * before.norm for each in before.sums))

    two = replace(held.recorded, tensors={**tensors, bias: off(bias, 1e-3), weight: off(weight, 1e-2)})
    answer = held.asked("weights", two)
    assert (answer.state, answer.place) == ("short", weight)
    assert answer.found == "1.0e-02 of its norm away from the recorded values, and 1 more tensors"
    assert held.asked("weights", two, tolerance=0.009).state == "short"
    assert held.asked("weights", two, tolerance=0.011).state == "holds"
    unlike = {**tensors, bias: replace(off(bias, 1.0), shape=(3,))}
    del unlike[weight]
    assert held.asked("weights", replace(held.recorded, tensors=unlike)).state == "holds"  # `names` tells of them


@pytest.mark.parametrize(
    ("near", "found"),
    [
        (0.4 * torch.eye(8), ""),
        (0.2 * torch.eye(8), "its channels have no like in G_ema's (cosine 0.20)"),
        (0.4 * torch.eye(8) + 0.47 * torch.eye(8)[[1, 0, *range(2, 8)]] * (torch.arange(8) < 2), ""),  # not clearly
        (
            0.4 * torch.eye(8) + 0.53 * torch.eye(8)[[1, 0, *range(2, 8)]] * (torch.arange(8) < 2),
            "2 of 8 channels are in another order than G_ema's (1 is its 0, 0 is its 1)",
        ),
    ],
)
def test_channels_by_their_cosines(near: torch.Tensor, found: str, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure_checks, "_similarities", lambda *_: near)
    subjects = {name: replace(held.subject, name=name) for name in ("G_ema", "G")}
    answer = structure_checks.channel_order(subjects["G_ema"], replace(held.context, subjects=subjects), {})
    assert (answer.state, answer.place) == (("short", "b4 of G") if found else ("holds", ""))
    assert not found or answer.found == found


def test_one_generator_has_nothing_to_be_in_order_with(held: Held) -> None:
    assert held.asked("channel_order").state == "skipped"


def test_channels_of_other_widths_are_not_compared() -> None:
    """`state` tells of them."""
    wider = {"widths": {4: 9, 8: 9, 16: 9}, "init": "random", "keep_original": False, "verify": False}
    pair = {"G": squeeze_patch.apply(dense(1), **wider), "G_ema": small()}
    assert found(lambda: copy.deepcopy(pair), "channel_order").state == "holds"


@pytest.mark.parametrize(("times", "state"), [(0.5, "holds"), (2.0, "short")])
def test_images_may_differ_by_float_error(
    held: Held, times: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two calls, between two makings, between batches, from the recorded ones."""
    first = trace(held.subject.found)
    share = times * held.context.tolerance(held.subject, 0.0)

    def off(images: torch.Tensor) -> torch.Tensor:
        return images + share * images.abs().max()

    other = Trace({call: off(images) for call, images in first.images.items()}, first.features, first.answers)
    held.context.traces[""] = first
    for again, anew in ((other, first), (first, other)):
        with monkeypatch.context() as patch:
            answers = {1: again, 0: anew}
            patch.setattr(parity_checks, "trace", lambda *_, seed=0, answers=answers: answers[seed])
            assert held.asked("reproducible").state == state
    call = next(iter(first.images))
    with monkeypatch.context() as patch:
        patch.setattr(parity_checks, "in_a_batch", lambda *_: off(first.images[call]))
        assert held.asked("reproducible").state == state
        patch.setattr(parity_checks, "default_batch", lambda *_: len(first.images[call]))
        assert held.asked("reproducible").state == "holds"  # no larger batch is usual at this size
    held.context.traces[""] = other
    try:
        assert held.asked("images").state == state
        assert held.asked("images", tolerance=1.1 * share).state == "holds"
    finally:
        del held.context.traces[""]


def test_finite_looks_at_as_many_as_it_says() -> None:
    assert found(small, "finite").figures == {"images": 1000, "styles": 10_000}
    assert found(small, "finite", samples=5, styles=0).figures == {"images": 5, "styles": 0}


def test_finite_names_the_latent_and_the_layer() -> None:
    G = small()
    z = fixed_latents(sampler(G), 40, seed=1)[0][37, 0]
    G.synthesis.b8.conv1.register_forward_pre_hook(lambda _, inputs: (inputs[0] + marked[0], *inputs[1:]))
    marked = [torch.zeros(1)]

    def mark(_module: Any, inputs: Any) -> None:
        marked[0] = torch.where(inputs[0][:, 0] == z, float("inf"), 0.0)[:, None, None, None]

    G.mapping.register_forward_pre_hook(mark)
    outcome = found(lambda: G, "finite", samples=40, styles=0)
    assert (outcome.state, outcome.figures) == ("short", {"latent": 37, "seed": 1})
    assert outcome.place == "synthesis.b8.conv1"
    assert not G.synthesis.b8.conv1._forward_hooks


def test_finite_sees_styles_that_no_image_had() -> None:
    G = small()
    most = float(fixed_latents(sampler(G), 1000, seed=1)[0][:, 0].max()) + 0.01
    G.mapping.register_forward_hook(
        lambda _, inputs, w: w + torch.where(inputs[0][:, 0] > most, torch.nan, 0)[:, None, None]
    )
    outcome = found(lambda: G, "finite")
    assert (outcome.state, outcome.place) == ("short", "the mapping network")
    assert " of 10000 is not finite" in outcome.found


def test_finite_sees_values_that_no_image_shows() -> None:
    G = small()
    G.mapping.w_avg[3] = torch.nan
    G.mapping.register_forward_hook(lambda _, inputs, w: w.nan_to_num())
    outcome = found(lambda: G, "finite", samples=1, styles=0)
    assert (outcome.state, outcome.place) == ("short", "mapping.w_avg")


FIDELITY = [
    ({}, {}, 30.0, 1.0, "skipped"),
    ({"psnr": 31.0}, {}, 30.0, 1.0, "short"),
    ({"psnr": 29.0}, {}, 30.0, 1.0, "holds"),
    ({}, {"psnr": 30.1, "frechet": 1.0}, 30.0, 1.0, "holds"),  # less margins of 0.2 dB and 0.1
    ({}, {"psnr": 30.3, "frechet": 1.0}, 30.0, 1.0, "short"),
    ({"psnr_margin": 0.4}, {"psnr": 30.3, "frechet": 1.0}, 30.0, 1.0, "holds"),
    ({"psnr": 29.0}, {"psnr": 40.0, "frechet": 1.0}, 30.0, 1.0, "holds"),
    ({}, {"psnr": 30.0, "frechet": 1.0}, 30.0, 1.05, "holds"),
    ({}, {"psnr": 30.0, "frechet": 1.0}, 30.0, 1.15, "short"),
    ({"frechet_margin": 0.2}, {"psnr": 30.0, "frechet": 1.0}, 30.0, 1.15, "holds"),
    ({}, {"frechet": 1.0}, 30.0, 1.15, "short"),  # of equal images once, whose PSNR is not recorded
]


@pytest.mark.parametrize(("settings", "before", "psnr", "frechet", "state"), FIDELITY)
def test_fidelity(
    held: Held,
    settings: Mapping[str, Any],
    before: Dict[str, float],
    psnr: float,
    frechet: float,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = SimpleNamespace(psnr=psnr, frechet=SimpleNamespace(value=frechet))
    monkeypatch.setitem(held.context.dense, "", dense())
    monkeypatch.setattr(parity_checks, "compare_with", lambda *_: compared)
    assert held.asked("fidelity", replace(held.recorded, fidelity=before), **settings).state == state


def test_fidelity_without_a_dense_generator(held: Held) -> None:
    assert held.asked("fidelity").state == "skipped"


def test_multiply_adds(held: Held) -> None:
    fewer = replace(held.recorded, multiply_adds=round(held.recorded.multiply_adds / 1.05))
    assert held.asked("multiply_adds").state == "holds"
    assert held.asked("multiply_adds", fewer).state == "short"
    assert held.asked("multiply_adds", fewer, tolerance=0.04).state == "short"
    assert held.asked("multiply_adds", fewer, tolerance=0.06).state == "holds"


@pytest.mark.parametrize(("name", "tolerance", "recorded"), [("latency", 0.15, 0.8), ("memory", 0.02, 0.5)])
def test_what_a_ratio_is_held_to(held: Held, name: str, tolerance: float, recorded: float) -> None:
    settings = BY_NAME[name].settings
    limit = cost_checks._limit(name, held.subject, held.context, settings)
    assert limit == pytest.approx(recorded * (1 + tolerance))
    assert cost_checks._limit(name, held.subject, held.context, {**settings, "ratio": 0.7}) == 0.7
    assert held.asked(name, replace(held.recorded, ratios={})).state == "skipped"
    other = held.asked(name, batch=8)
    assert (other.state, "at a batch of 1" in other.found) == ("unknown", True)
    at_eight = replace(held.recorded, ratios={name: 0.9, f"{name}_batch": 8.0})
    context = replace(held.context, baseline=Baseline({"": at_eight}, {}))
    assert cost_checks._limit(name, held.subject, context, {**settings, "batch": 8}) == 0.9 * (1 + tolerance)


def test_memory(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    base = dense()
    monkeypatch.setitem(held.context.dense, "", base)
    for peak, state in ((509, "holds"), (511, "short")):  # 0.5 was recorded, and 2 % more is allowed
        peaks = {True: SimpleNamespace(peak=1000), False: SimpleNamespace(peak=peak)}
        monkeypatch.setattr(cost_checks, "memory_of", lambda G, _batch, peaks=peaks: peaks[G is base])
        assert held.asked("memory").state == state


@pytest.mark.parametrize(
    "name", ["names", "weights", "images", "features", "constants", "multiply_adds", "latency", "memory"]
)
def test_what_was_not_recorded_is_not_green(held: Held, name: str) -> None:
    """Where there is a configuration; without one, a function is looked at as it is."""
    assert held.asked(name, recorded=False).state == "unknown"
    (held.context.config.path).unlink()
    try:
        assert held.asked(name, recorded=False).state == "skipped"
    finally:
        held.context.config.path.write_text("")


def test_chances() -> None:
    """Of two of four, or more, on one side: 11 of 16."""
    ratios = [1.0, 1.0, 2.0, 2.0]
    assert cost_checks._chance(ratios, 1.5, "greater") == cost_checks._chance(ratios, 1.5, "less") == 11 / 16
    assert cost_checks._chance(ratios, 0.5, "greater") == cost_checks._chance(ratios, 2.5, "less") == 1 / 16


@pytest.mark.parametrize(("times", "state"), [(0.5, "holds"), (2.0, "short")])
def test_copies_may_differ_by_float_error(
    held: Held, times: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.full([2, 3, 4, 4], 3.0)
    off = 3.0 * times * held.context.tolerance(held.subject, 0.0)
    made = iter([images, images + off])
    monkeypatch.setattr(copy_checks, "draw", lambda *_: next(made))
    assert held.asked("deepcopy").state == state


def test_what_a_state_dict_leaves_out_by_design_comes_from_the_constructor() -> None:
    def make() -> Any:
        G = small()
        G.synthesis.b8.conv1.register_buffer("gain", torch.tensor(1.5), persistent=False)
        G.synthesis.b8.conv1.register_forward_hook(lambda layer, _, made: made * layer.gain)
        return G

    assert found(make, "state_dict").state == "holds"


def test_torch_that_does_not_compile(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "compile", raising=False)
    with pytest.raises(MissingPackageError, match="needs torch 2.0 or newer"):  # of which the session makes "unknown"
        held.asked("compile")


@pytest.mark.skipif(not hasattr(getattr(torch, "compiler", None), "set_stance"), reason="torch has stances since 2.6")
def test_torch_that_is_told_not_to_compile(held: Held) -> None:
    """What was never compiled departs from nothing, which is no answer."""
    before = held.asked("compile")
    with torch.compiler.set_stance("force_eager"):
        now = held.asked("compile")
    assert (before.state, now.state) == ("holds", "unknown")
    assert "compiled nothing" in now.found

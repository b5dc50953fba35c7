"""The proof that apply makes: forks that compute something else are refused, and left as they were; none comes out
silently wrong."""

from __future__ import annotations

import functools
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.cli import main
from squeeze_patch.demo import trained_generator
from squeeze_patch.surgery import proof
from squeeze_patch.testing import trained
from squeeze_patch.testing.trained import float_error
from tests.helpers import HOSTS, squeezed_to
from tests.hosts import Host

Change = Callable[[Any], None]


def behind(path: str, change: Callable[[Any], Any]) -> Change:
    """What the module at ``path`` answers goes through ``change``."""

    def apply_to(G: Any) -> None:
        kind = type(G.get_submodule(path))
        if path == "":  # the whole generator: its class is one that pickles carry
            G.forward = lambda *args, forward=G.forward, **kwargs: change(forward(*args, **kwargs))
            return
        subclass(path, lambda self, *args, **kwargs: change(kind.forward(self, *args, **kwargs)))(G)

    return apply_to


def features(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Of block b16, behind conv1."""
    return behind("synthesis.b16", lambda answer: (change(answer[0]), answer[1]))


def image(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return behind("synthesis.b16", lambda answer: (answer[0], change(answer[1])))


def attribute(path: str, name: str, change: Callable[[Any], Any]) -> Change:
    def apply_to(G: Any) -> None:
        module = G.get_submodule(path)
        setattr(module, name, change(getattr(module, name)))

    return apply_to


def subclass(path: str, forward: Callable[..., Any]) -> Change:
    """A class of the user's own in the place of the module's, with another forward."""

    def apply_to(G: Any) -> None:
        module = G.get_submodule(path)
        module.__class__ = type(f"My{type(module).__name__}", (type(module),), {"forward": forward})

    return apply_to


def attention(G: Any) -> None:
    """A layer of its own in the block, ``x + attn(x)`` behind conv1."""
    block = G.synthesis.b16
    block.attn = torch.nn.Conv2d(32, 32, 1)
    features(lambda x: x + block.attn(x))(G)


def unused(G: Any) -> None:
    """Trained perhaps, and called by some other script of the user's."""
    G.synthesis.b16.head = torch.nn.Linear(3, 3)


def low_rank(G: Any) -> None:
    """An adapter wrapped around a layer's weights."""
    layer = G.synthesis.b16.conv1
    layer.lora = torch.nn.Parameter(torch.ones(32, 2))


def scaled(self: Any, forward: Any, *args: Any, gain: float, **kwargs: Any) -> Any:
    x, img = forward(self, *args, **kwargs)
    return x * gain, img


def further_argument(G: Any) -> None:
    """Every block wants something that its network hands on."""
    for name, block in G.synthesis.named_children():
        subclass(f"synthesis.{name}", functools.partialmethod(scaled, type(block).forward))(G)
    forward_of_network = G.synthesis.forward
    G.synthesis.forward = lambda ws, **kwargs: forward_of_network(ws, gain=0.9, **kwargs)


def read_from_outside(G: Any) -> None:
    """The whole generator has a layer that reads conv1's 32 channels."""
    G.reader = torch.nn.Linear(32, 1)
    forward = G.forward
    G.forward = lambda *args, **kwargs: forward(*args, **kwargs) + G.reader(G.synthesis.b16.conv1.bias)


def half_of_torgb(self: Any, x: torch.Tensor, w: torch.Tensor, **kwargs: Any) -> Any:
    return type(self).__mro__[1].forward(self, x, w, **kwargs) * 0.5  # type: ignore[attr-defined]


def in_bfloat16(self: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return type(self).__mro__[1].forward(self, *args, **kwargs)  # type: ignore[attr-defined]


def with_skip(answer: Tuple[torch.Tensor, torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
    return answer[0] + answer[0].mean(dim=(2, 3), keepdim=True), answer[1]


#: {variation: (how it is made, what the refusal names)}
REFUSED: Dict[str, Tuple[Change, str]] = {
    "an attention layer": (attention, r"b16 \(MySynthesisBlock\) holds attn.weight, attn.bias"),
    "a layer that nobody calls": (unused, r"in Generator b16 \(SynthesisBlock\) holds head.weight, head.bias: that"),
    "a low-rank adapter": (low_rank, r"b16.conv1 \(SynthesisLayer\) holds lora"),
    "features are mirrored": (features(lambda x: x.flip(3)), "block b16"),
    "features are resized": (features(lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1)), "block b16"),
    "features have a residual": (behind("synthesis.b16", with_skip), "block b16"),
    "the image is squashed": (image(torch.tanh), "block b16"),
    "the image is of another size": (behind("synthesis.b32", lambda a: (a[0], a[1][:, :, ::2])), "block b32"),
    "the last block's image is shifted": (behind("synthesis.b32", lambda a: (a[0], a[1] + 0.01)), "block b32"),
    "the first block's features": (behind("synthesis.b4", lambda a: (a[0] * 1.01, a[1])), "block b4"),
    "a further argument": (further_argument, "block b4"),
    "toRGB's gain is changed": (
        attribute("synthesis.b8.torgb", "weight_gain", lambda g: 2 * g),
        r"b8.torgb \(ToRGBLayer\) holds weight_gain = .* \(which depends on the width",
    ),
    "a layer reads conv1 from outside": (read_from_outside, "does not run with squeezed blocks"),
    "a buffer of the user's": (lambda G: G.synthesis.b8.torgb.register_buffer("mask", torch.ones(3)), "holds mask"),
}
#: variations whose squeezed generator computes the same at ratio 1
WORKING: Dict[str, Change] = {
    "nothing": lambda G: None,
    "the network's images are squashed": behind("synthesis", torch.tanh),
    "the whole generator's images are scaled": lambda G: behind("", lambda x: x * 0.5)(G),
    "a class of its own for toRGB": subclass("synthesis.b16.torgb", half_of_torgb),
    "no noise in conv1": attribute("synthesis.b16.conv1", "use_noise", lambda _: False),
    "another gain of the activation": attribute("synthesis.b16.conv1", "act_gain", lambda g: g * 0.8),
    "a clamp": attribute("synthesis.b16.conv1", "conv_clamp", lambda _: 0.5),
    "an affine's gain is changed": attribute("synthesis.b8.conv1.affine", "weight_gain", lambda g: 2 * g),
    "a class of its own for conv1": behind("synthesis.b16.conv1", lambda x: 0.5 * x),
    "conv0 is scaled": behind("synthesis.b16.conv0", lambda x: 0.5 * x),
    "styles in another order": behind("mapping", lambda ws: ws.flip(1)),
}


def state_of(G: Any) -> List[Any]:
    return [(name, id(module)) for name, module in G.named_modules()] + [id(p) for p in G.parameters()]


@pytest.mark.parametrize("name", REFUSED)
def test_forks_that_compute_something_else(name: str, draggan: Host) -> None:
    """Refused with the place, and left as they were: the same modules and parameters, the same bits."""
    change, words = REFUSED[name]
    G = trained(draggan.generator())
    change(G)
    z, c = draggan.latents(G)
    before, images, random = state_of(G), draggan.images(G, z, c), torch.get_rng_state()
    with pytest.raises(squeeze_patch.ProofError, match=words):
        squeeze_patch.apply(G, init="random")
    assert torch.equal(torch.get_rng_state(), random)
    assert state_of(G) == before
    assert torch.equal(draggan.images(G, z, c), images)
    assert squeeze_patch.status(G).state == "dense"


@pytest.mark.parametrize("name", WORKING)
def test_forks_that_compute_the_same(name: str, draggan: Host) -> None:
    G = trained(draggan.generator())
    WORKING[name](G)
    z, c = draggan.latents(G)
    images = draggan.images(G, z, c)
    with squeeze_patch.squeezed(G, ratio=1, init="weights"):
        assert (draggan.images(G, z, c) - images).abs().max() <= float_error(G, images)


def test_the_error_is_measured(draggan: Host) -> None:
    """An image that is shifted by 0.25 is off by 0.25."""
    G = trained(draggan.generator())
    behind("synthesis.b32", lambda answer: (answer[0], answer[1] + 0.25))(G)
    with pytest.raises(squeeze_patch.ProofError, match=r"replaced by an equal one images .* are off by 0.25, where"):
        squeeze_patch.apply(G, init="random")
    squeeze_patch.apply(G, init="random", verify=False)
    assert squeeze_patch.status(G).state == "squeezed"


def test_a_fault_has_the_hosts_own_words(draggan: Host) -> None:
    """Not those of a role that wraps them, whose cure is for another trouble."""

    def call() -> torch.Tensor:
        try:
            return torch.zeros(1 // 0)
        except ZeroDivisionError as error:
            raise squeeze_patch.UnsupportedModelError("it is called in another way. Save its state dict") from error

    trial = proof.Trial(locate(draggan.generator()), {"styles": call}, {}, 1.0)
    assert re.fullmatch("it stops with ZeroDivisionError: .* zero", trial.fault())


@pytest.mark.parametrize("name", HOSTS)
def test_float_error_is_far_below_the_bound(name: str) -> None:
    """Of every host at hand: the twins' images are off by less than a tenth of what is allowed."""
    host = HOSTS[name]
    with host.active():
        found = locate(trained(host.generator()))
        shapes = {spec.name: squeezed_to(spec, 1) for spec in found.specs}
        twins = proof.build_twins(found, shapes)
        trial = proof.prove(found, twins)
        assert trial is not None
        dense = {block: found.get_block(block) for block in shapes}
        with proof.exchanged(found, twins, dense):
            images = trial.run()
    assert len(images) == 2
    assert max(float((images[k] - trial.dense[k]).abs().max()) for k in images) < trial.tolerance / 10


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda G: G.to("meta"), "its parameters are on the meta device"),
        (
            lambda G: G.synthesis.b8.conv1.bias.data.fill_(float("nan")),
            "synthesis.b8.conv1.bias holds values that are not finite",
        ),
        (attribute("synthesis.b8.conv1", "act_gain", lambda _: float("inf")), "its images hold values that are not"),
        (
            lambda G: behind("synthesis", lambda x: 1 / 0)(G),
            "it does not run on latents or styles alone, ZeroDivisionError",
        ),
    ],
)
def test_no_proof(change: Change, why: str, draggan: Host) -> None:
    """It says so, and squeezes."""
    G = draggan.generator()
    change(G)
    with pytest.warns(squeeze_patch.UnprovedWarning, match=f"no proof was made that Generator can be squeezed: {why}"):
        squeeze_patch.apply(G, init="random")
    assert squeeze_patch.status(G).state == "squeezed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = draggan.generator()
        change(other)
        squeeze_patch.apply(other, init="random", verify=False)


@pytest.mark.parametrize("name", HOSTS)
def test_hooks_of_the_user_see_nothing_of_it(name: str) -> None:
    """And stay, in their order."""
    host = HOSTS[name]
    with host.active():
        G = trained(host.generator())
        seen: List[str] = []
        module = G.synthesis.b8
        module.register_forward_hook(lambda *_: seen.append("first"))
        module.register_forward_hook(functools.partial(lambda word, *_: seen.append(word), "second"))
        module.register_forward_pre_hook(lambda *_: seen.append("before"))
        squeeze_patch.apply(G, init="random")
        assert seen == []
        G(*host.latents(G))
        assert seen == ["before", "first", "second"]


def test_autocast_in_the_generators_own_code_is_the_cause() -> None:
    """Whatever is on outside of it, which the proof turns off."""
    G = trained_generator()
    subclass("synthesis", in_bfloat16)(G)
    cure = r"turns torch.autocast on in its own code .* bfloat16, .* \(torch.autocast\(..., enabled=False\)\)"
    with pytest.raises(squeeze_patch.ProofError, match=cure):
        squeeze_patch.apply(G, ratio=2, init="random")
    assert squeeze_patch.status(G).state == "dense"
    other = trained_generator()
    behind("synthesis.b16", with_skip)(other)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(squeeze_patch.ProofError, match="to the letter"):
        squeeze_patch.apply(other, ratio=2, init="random")


@pytest.mark.parametrize("answer", [lambda image: {"image": image}, lambda image: 1 / 0])
def test_a_generator_that_makes_no_image_of_a_latent_is_run_by_styles(answer: Change, draggan: Host) -> None:
    """As those that render by a camera: what is squeezed is proved, and a fork of it refused."""
    G = trained(draggan.generator())
    behind("", answer)(G)
    squeeze_patch.apply(G, init="random")
    changed = trained(draggan.generator())
    behind("", answer)(changed)
    features(lambda x: x.flip(3))(changed)
    with pytest.raises(squeeze_patch.ProofError, match="block b16"):
        squeeze_patch.apply(changed, init="random")


def test_a_synthesis_network_alone_is_run_on_any_styles(draggan: Host) -> None:
    network = draggan.generator().synthesis
    squeeze_patch.apply(network, init="random")
    changed = draggan.generator()
    features(lambda x: x.flip(3))(changed)
    with pytest.raises(squeeze_patch.ProofError, match="block b16"):
        squeeze_patch.apply(changed.synthesis, init="random")


@pytest.mark.filterwarnings("default::squeeze_patch.LostWarning")
def test_convert_refuses_and_writes_nothing(full_host: Host, tmp_path: Path) -> None:
    """A parameter that the host's layers do not have travels in its pickles."""
    G = trained(full_host.generator())
    G.synthesis.b16.conv1.lora = torch.nn.Parameter(torch.ones(2))
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    command = ["convert", str(tmp_path / "dense.pkl"), str(tmp_path / "out.pkl"), "--trust", "--init", "random"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "in Generator b16.conv1 (SynthesisLayer) holds lora: that would be lost" in done.output
    assert "--no-verify" in done.output
    assert not (tmp_path / "out.pkl").exists()
    done = CliRunner().invoke(main, [*command, "--no-verify"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Warning: lost by squeezing Generator: b16.conv1 (SynthesisLayer) holds lora\n" in done.output


@pytest.mark.filterwarnings("default::squeeze_patch.UnprovedWarning")
def test_the_command_says_that_nothing_was_proved(
    full_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_: Any) -> Any:
        raise proof.CannotRun("it wants a camera")

    monkeypatch.setattr(proof, "trial_of", cannot)
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps({"G_ema": full_host.generator()}))
    command = ["convert", str(tmp_path / "dense.pkl"), str(tmp_path / "out.pkl"), "--trust", "--init", "random"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert "Warning: no proof was made that Generator can be squeezed: it wants a camera\n" in done.output
    assert (tmp_path / "out.pkl").is_file()

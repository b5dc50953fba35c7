"""apply, remove, squeezed and status at their edges. The contract suite has what every host must do."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections import Counter
from typing import Any, Dict

import numpy as np
import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters.nvidia.adapter import NvidiaSurgery
from squeeze_patch.demo import trained_generator
from tests.helpers import latents
from tests.hosts import Host

NEEDS_FUSED_SGD = pytest.mark.skipif(
    "fused" not in inspect.signature(torch.optim.SGD).parameters, reason="this torch's SGD has no fused steps"
)


def test_status_lines() -> None:
    G = trained_generator()
    assert str(squeeze_patch.status(G)) == "dense: 263,531 parameters, 4 blocks"
    squeeze_patch.apply(G, ratio=2)
    after = sum(p.numel() for p in G.parameters())
    fewer = f"{1 - after / 263_531:.2%}".replace("%", " %")
    assert str(squeeze_patch.status(G)) == f"squeezed: 4 of 4 blocks, 263,531 -> {after:,} parameters ({fewer} fewer)"
    del G.synthesis.squeeze_plan
    assert str(squeeze_patch.status(G)) == "irregular: 4 of 4 blocks squeezed; no plan travels with it"
    for wish in ({"ratio": 1.5}, {"allocate": "spectral"}):
        with pytest.raises(squeeze_patch.StateError, match="half squeezed"):
            squeeze_patch.apply(G, **wish)


def test_status_sees_a_block_put_back_by_hand() -> None:
    G = trained_generator()
    dense = G.synthesis.b8
    squeeze_patch.apply(G, init="weights")
    G.synthesis.b8 = dense
    assert squeeze_patch.status(G).state == "irregular"
    assert squeeze_patch.status(G).squeezed_blocks == 3


def test_a_failing_apply_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    G = trained_generator()
    before = {name: id(module) for name, module in G.named_modules()}
    set_block = NvidiaSurgery.set_block
    calls = []

    def failing(self: Any, network: Any, name: str, block: Any) -> None:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        set_block(self, network, name, block)

    monkeypatch.setattr(NvidiaSurgery, "set_block", failing)
    with pytest.raises(KeyboardInterrupt):
        squeeze_patch.apply(G, init="weights")  # a calibrated start puts blocks into copies, too
    assert len(calls) > 3  # the blocks went back
    assert {name: id(module) for name, module in G.named_modules()} == before
    assert squeeze_patch.status(G).state == "dense"


def test_context_manager_restores_after_an_error() -> None:
    G = trained_generator()
    z, _ = latents(G)
    image = G(z, noise_mode="const")
    with squeeze_patch.squeezed(G) as inner:
        assert inner is G
        assert squeeze_patch.status(G).state == "squeezed"
    with pytest.raises(ZeroDivisionError), squeeze_patch.squeezed(G):
        raise ZeroDivisionError
    assert torch.equal(G(z, noise_mode="const"), image)
    squeeze_patch.apply(G, ratio=1.5)
    with pytest.raises(squeeze_patch.StateError, match="starts from a dense"), squeeze_patch.squeezed(G):
        pass
    assert squeeze_patch.status(G).state == "squeezed"


def test_remove_refuses_what_it_cannot_restore() -> None:
    G = trained_generator()
    assert squeeze_patch.remove(G) is G
    squeeze_patch.apply(G, init="weights", keep_original=False)
    with pytest.raises(squeeze_patch.StateError, match="keep_original"):
        squeeze_patch.remove(G)
    G = squeeze_patch.apply(trained_generator(), init="weights")
    with pytest.raises(squeeze_patch.StateError, match="copy"):
        squeeze_patch.remove(copy.deepcopy(G))
    with torch.no_grad():
        G.synthesis.b8.excite.weight.add_(1)  # its own layers may be trained
        G.synthesis.b8.conv0.bias.add_(1)  # what dense and squeezed share may not
    with pytest.raises(squeeze_patch.StateError, match=r"synthesis\.b8\.conv0\.bias"):
        squeeze_patch.remove(G)
    assert squeeze_patch.status(G).state == "squeezed"


@pytest.mark.parametrize("how", [pytest.param("fused", marks=NEEDS_FUSED_SGD), "data"])
def test_remove_sees_training_behind_autograds_back(how: str) -> None:
    """Neither raises the version counter of a tensor."""
    G = squeeze_patch.apply(trained_generator(), ratio=1.5).requires_grad_(True)
    if how == "fused":
        optimizer = torch.optim.SGD(G.parameters(), lr=1e-4, fused=True)
        G(latents(G)[0]).square().mean().backward()
        optimizer.step()
    else:
        G.mapping.fc1.bias.data[3] += 1e-3
    with pytest.raises(squeeze_patch.StateError, match="were changed since apply"):
        squeeze_patch.remove(G)
    assert squeeze_patch.status(G).state == "squeezed"


@pytest.mark.parametrize("there_and_back", [torch.float64, torch.float16, torch.bfloat16])
def test_remove_does_not_mistake_a_move_for_training(there_and_back: torch.dtype) -> None:
    G = squeeze_patch.apply(trained_generator(), ratio=1.5)
    G.to(there_and_back)
    squeeze_patch.remove(G)
    assert squeeze_patch.status(G).state == "dense"


def test_a_failing_remove_changes_nothing() -> None:
    G = squeeze_patch.apply(trained_generator(), ratio=1.5)
    G.synthesis.b16.torgb.register_forward_hook(lambda *_: None)
    before = {name: id(module) for name, module in G.named_modules()}
    with pytest.raises(squeeze_patch.StateError, match=r"b16\.torgb has hooks"):
        squeeze_patch.remove(G)
    assert {name: id(module) for name, module in G.named_modules()} == before


def test_context_manager_lets_the_users_error_through() -> None:
    G = trained_generator()

    def train_and_fail() -> None:
        with squeeze_patch.squeezed(G):
            G.synthesis.b8.conv0.bias.add_(1)  # so that remove would refuse
            raise KeyError("the user's own")

    with pytest.raises(KeyError):
        train_and_fail()


def test_inference_mode_leaves_trainable_parameters() -> None:
    G = trained_generator()
    with torch.inference_mode():
        squeeze_patch.apply(G, ratio=1.5)
    G.requires_grad_(True)
    G(latents(G)[0]).mean().backward()
    assert all(p.grad is not None for p in G.parameters())


@pytest.mark.parametrize(("layer", "name", "value"), [("conv1", "use_noise", False), ("conv1", "act_gain", 3.0)])
def test_attributes_changed_behind_the_constructor_count(layer: str, name: str, value: Any, host: Host) -> None:
    from squeeze_patch.testing import float_error, trained

    G = trained(host.generator())
    setattr(getattr(G.synthesis.b16, layer), name, value)
    z, c = latents(G)
    dense = G(z, c, noise_mode="const")
    squeeze_patch.apply(G, ratio=1)
    assert (G(z, c, noise_mode="const") - dense).abs().max() <= float_error(G, dense)


def test_copies_are_instances_of_the_hosts_class(host: Host) -> None:
    import importlib

    G = squeeze_patch.apply(host.generator())
    assert isinstance(copy.deepcopy(G), importlib.import_module(host.networks).Generator)


def test_copies_are_instances_also_after_a_squeezed_file_was_loaded(host: Host) -> None:
    """Unpickled first, as in a process that resumes, the file's source is known to the host under another module."""
    import importlib

    first = squeeze_patch.apply(host.generator(), init="random")
    stored = pickle.dumps(first)
    known = type(first).__reduce__.__globals__["_src_to_module_dict"]
    del known[first._orig_module_src]
    loaded = pickle.loads(stored)
    assert not isinstance(loaded, importlib.import_module(host.networks).Generator)
    G = squeeze_patch.apply(host.generator(), init="random")
    assert isinstance(copy.deepcopy(G), importlib.import_module(host.networks).Generator)
    again = copy.deepcopy(loaded)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_remove_follows_dtype_and_flags() -> None:
    G = squeeze_patch.apply(trained_generator(), ratio=1.5)
    G.double().train().requires_grad_(True)
    squeeze_patch.remove(G)
    assert {p.dtype for p in G.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in G.parameters())
    assert all(module.training for module in G.modules())


def test_the_random_stream_is_left_alone() -> None:
    G = trained_generator()
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    squeeze_patch.apply(G, ratio=1.5)
    assert torch.equal(torch.randn(4), expected)


def test_w_avg_stays_when_the_mapping_is_in_training_mode(draggan: Host) -> None:
    G = draggan.generator().train()
    before = G.mapping.w_avg.clone()
    squeeze_patch.apply(G, ratio=1.5)
    assert torch.equal(G.mapping.w_avg, before)
    assert G.mapping.training


def test_same_seed_same_result() -> None:
    """Also of numpy's whole numbers."""
    seeds = (3, np.int64(3))
    a, b = (squeeze_patch.apply(trained_generator(), ratio=1.5, seed=seed).state_dict() for seed in seeds)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_several_generators_are_told_apart() -> None:
    both = torch.nn.ModuleDict({"G": trained_generator(), "G_ema": trained_generator()})
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"2 generators \(G.synthesis, G_ema.synthesis\)"):
        squeeze_patch.apply(both)


def test_things_that_are_no_generator() -> None:
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"torch.nn.Module.*dict"):
        squeeze_patch.apply({})  # type: ignore[type-var]
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"Classes seen: Linear.*Families known: nvidia"):
        squeeze_patch.apply(torch.nn.Linear(2, 2))
    with pytest.raises(squeeze_patch.PlanError, match="init has to be one of"):
        squeeze_patch.apply(trained_generator(), init="magic")
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="no mapping network"):
        squeeze_patch.apply(trained_generator().synthesis)


@pytest.mark.parametrize(
    "name",
    [
        "synthesis.b8.conv1.weight",
        "synthesis.b16.conv0.noise_const",
        "synthesis.b8.resample_filter",
        "mapping.fc0.weight",
        "mapping.w_avg",
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_diverged_generator_is_refused(name: str, value: float) -> None:
    """By the name of what a start reads."""
    G = trained_generator()
    dict([*G.named_parameters(), *G.named_buffers()])[name].data.flatten()[0] = value
    for init in ("calibrated", "weights"):
        with pytest.raises(squeeze_patch.SqueezeError, match=f"{name} holds values that are not finite"):
            squeeze_patch.apply(G, init=init)
    assert squeeze_patch.status(G).state == "dense"


def test_only_the_generator_counts() -> None:
    """A decoder beside an encoder that is a hundred times as large is squeezed as it is alone; the encoder's NaN is
    nobody's business."""
    alone = squeeze_patch.plan(trained_generator(), init="weights")
    whole = torch.nn.Module()
    whole.encoder = torch.nn.Linear(1000, 30000)
    whole.encoder.weight.data[0, 0] = float("nan")
    whole.decoder = trained_generator()
    assert squeeze_patch.plan(whole, init="weights") == alone
    assert str(squeeze_patch.status(whole)) == "dense: 263,531 parameters, 4 blocks, in decoder"
    squeeze_patch.apply(whole, init="weights")
    now = squeeze_patch.status(whole)
    assert (now.plan, now.parameters_after, now.place) == (alone, alone.parameters_after, "decoder")
    assert str(now).endswith("in decoder")
    assert squeeze_patch.status(whole.decoder).place == ""
    assert squeeze_patch.status(squeeze_patch.remove(whole)).state == "dense"


@pytest.mark.parametrize("layer", ["conv1", "torgb"])
def test_parametrizations_are_refused(layer: str) -> None:
    G = trained_generator().requires_grad_(True)
    torch.nn.utils.parametrizations.spectral_norm(getattr(G.synthesis.b8, layer).affine)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="block b8 computes its weights from others"):
        squeeze_patch.apply(G, ratio=1.5)


def test_stylegan3_generators_are_refused() -> None:
    class SynthesisNetwork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = torch.nn.Identity()  # what hosts tell StyleGAN3 by

    with pytest.raises(squeeze_patch.UnsupportedModelError, match="StyleGAN3"):
        squeeze_patch.apply(torch.nn.ModuleDict({"synthesis": SynthesisNetwork()}))


@pytest.mark.parametrize("wish", [{}, {"allocate": "spectral"}], ids=["uniform", "spectral"])
def test_a_generator_is_located_once(wish: Dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And its blocks are asked for once: what was found is passed on."""
    calls: Counter[str] = Counter()
    for name in ("find", "specs"):
        work = getattr(NvidiaSurgery, name)

        def counted(self: Any, module: Any, work: Any = work, name: str = name) -> Any:
            calls[name] += 1
            return work(self, module)

        monkeypatch.setattr(NvidiaSurgery, name, counted)
    squeeze_patch.apply(trained_generator(), init="weights", **wish)
    assert calls == {"find": 1, "specs": 1}

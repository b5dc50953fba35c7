"""What has to hold for every family of generators: the contract suite of adapters, as a base class for pytest.

    from squeeze_patch.testing import AdapterContract

    class TestMyFamily(AdapterContract):
        family = "mine"

        def make_generator(self):
            return MyGenerator(resolution=32, channels=32)

        def images(self, G, z, c):
            return G(z, noise="fixed")

The adapter is found as `squeeze_patch.apply` finds it: by the entry point of the installed distribution, or because the
test file calls `squeeze_patch.adapters.register`.
"""

from __future__ import annotations

import abc
import copy
import pickle
from typing import Any, Dict, List, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.layers import HOOKS
from squeeze_patch.planning.plans import Plan
from squeeze_patch.testing.shapes_contract import ShapesContract
from squeeze_patch.testing.trained import float_error, trained


class AdapterContract(ShapesContract, abc.ABC):
    """Subclass it as ``Test...`` in a pytest file; `make_generator` and `images` are needed, the rest is optional.

    Generators are best small: some 32x32 pixels and 32 channels test as much as large ones, in seconds.

    Attributes:
        family: name of the adapter that has to be found; "" = any.
        cannot_pickle: why the family's dense generators cannot be pickled; "" = they can. The suite then demands that
            squeezed ones can too, and otherwise that dense ones really cannot.
        shapes: whether the adapter builds blocks of other shapes (`ShapesContract`); where not, it has to refuse them.
    """

    family: str = ""
    cannot_pickle: str = ""

    @abc.abstractmethod
    def make_generator(self) -> Any:
        """A new dense generator on the CPU, float32, of the same sizes every time; its weights may be random."""

    @abc.abstractmethod
    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Images [n, img_channels, R, R] of latents, with the stored noise: the same bits every time."""

    def latents(self, G: Any) -> Tuple[torch.Tensor, torch.Tensor]:
        """(z [3, z_dim], c [3, c_dim] one-hot), by the attributes ``z_dim`` and ``c_dim`` of G (none = 0)."""
        random = torch.Generator().manual_seed(2)
        c = torch.zeros(3, getattr(G, "c_dim", 0))
        if c.shape[1]:
            c[torch.arange(3), torch.arange(3) % c.shape[1]] = 1
        return torch.randn(3, G.z_dim, generator=random), c

    def calls(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Dict[str, torch.Tensor]:
        """{name: what one way of calling G answers} (truncation, mixing, random noise, ...); torch is seeded before."""
        return {"images": self.images(G, z, c)}

    def styles_and_images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """(styles, images made of them), for second derivatives; unless it is overridden, z is in the styles' place."""
        z = z.clone().requires_grad_(True)
        return z, self.images(G, z, c)

    # What a squeezed generator is

    def test_it_is_found(self) -> None:
        """By one adapter, which describes the blocks in the order in which they run."""
        G = self.make_generator()
        found = locate(G)
        assert self.family in ("", found.adapter.name)
        assert squeeze_patch.status(G).state == "dense"
        specs = found.specs
        assert len({spec.name for spec in specs}) == len(specs)
        assert [spec.resolution for spec in specs] == [specs[0].resolution * 2**k for k in range(len(specs))]
        assert [spec.in_channels for spec in specs] == [0, *(spec.channels for spec in specs[:-1])]
        assert [spec.is_last for spec in specs] == [False] * (len(specs) - 1) + [True]
        assert all(spec.width is None for spec in specs)

    @pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0, 4.0])
    def test_parameters_are_the_plans(self, ratio: float) -> None:
        G = self.make_generator()
        before = _count(G)
        plan = squeeze_patch.plan(G, ratio=ratio)
        assert plan.parameters_before == before
        assert squeeze_patch.apply(G, plan=Plan.from_json(plan.to_json()), init="random") is G
        status = squeeze_patch.status(G)
        assert (status.state, status.plan) == ("squeezed", plan)
        assert _count(G) == plan.parameters_after == status.parameters_after
        assert status.parameters_before == before
        assert {spec.resolution: spec.width for spec in locate(G).specs} == plan.widths

    def test_some_blocks_alone(self) -> None:
        """Blocks that a plan does not name stay the same objects."""
        G = self.make_generator()
        found = locate(G)
        first, *others = found.specs
        parts = [_parts(found.get_block(spec.name)) for spec in others]
        squeeze_patch.apply(G, widths={first.resolution: 1}, init="random")
        assert [spec.width for spec in found.again().specs] == [1] + [None] * len(others)
        assert [_parts(found.get_block(spec.name)) for spec in others] == parts
        assert self.images(G, *self.latents(G)).isfinite().all()

    @pytest.mark.parametrize("init", ["calibrated", "weights"])
    def test_ratio_1_changes_no_image(self, init: str) -> None:
        G = trained(self.make_generator())
        z, c = self.latents(G)
        torch.manual_seed(5)
        dense = self.calls(G, z, c)
        with squeeze_patch.squeezed(G, ratio=1.0, init=init):
            torch.manual_seed(5)
            squeezed = self.calls(G, z, c)
        for name, answer in dense.items():
            assert (answer - squeezed[name]).abs().max() <= float_error(G, answer), name

    def test_ways_of_calling_differ(self) -> None:
        """A way of calling that answers what another one does would test nothing."""
        G = trained(self.make_generator())
        z, c = self.latents(G)
        answers = list(self.calls(squeeze_patch.apply(G, ratio=2, init="weights"), z, c).values())
        assert torch.equal(self.images(G, z, c), self.images(G, z, c))
        assert not torch.equal(self.images(G, z, c)[0], self.images(G, z, c)[1])
        for index, answer in enumerate(answers):
            assert not any(torch.equal(answer, other) for other in answers[:index])

    def test_trained_starts_beat_a_random_one(self) -> None:
        """Kept and refitted weights make images nearer to the dense ones than fresh layers do."""
        dense = trained(self.make_generator())
        z, c = self.latents(dense)
        images = self.images(dense, z, c)
        errors = {}
        for init in ("calibrated", "weights", "random"):
            G = squeeze_patch.apply(copy.deepcopy(dense), ratio=1.5, init=init)
            errors[init] = (self.images(G, z, c) - images).square().mean().item()
        assert max(errors["calibrated"], errors["weights"]) < errors["random"]

    def test_every_parameter_is_used_twice_differentiably(self) -> None:
        """Path length regularisation differentiates through a gradient; DDP wants no parameter without one."""
        G = squeeze_patch.apply(trained(self.make_generator()), init="weights").train().requires_grad_(True)
        styles, images = self.styles_and_images(G, *self.latents(G))
        (gradient,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), styles, create_graph=True)
        penalty = gradient.flatten(1).square().sum(1).sqrt().mean()
        torch.autograd.backward(penalty + images.square().mean())
        missing = [name for name, p in G.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        unmoved = [name for name, p in G.named_parameters() if p.grad is not None and not p.grad.abs().max() > 0]
        assert missing == []
        assert unmoved == []

    def test_flags_carry_over(self) -> None:
        for training in (True, False):
            G = self.make_generator().train(training).requires_grad_(False)
            squeeze_patch.apply(G, init="random")
            assert {module.training for module in G.modules()} == {training}
            assert [name for name, parameter in G.named_parameters() if parameter.requires_grad] == []

    # What applying and removing do

    def test_apply_then_remove_restores_identity(self) -> None:
        G = trained(self.make_generator())
        z, c = self.latents(G)
        before, images = _snapshot(G), self.images(G, z, c)
        assert squeeze_patch.apply(G) is G
        assert squeeze_patch.status(G).state == "squeezed"
        assert _count(G) < squeeze_patch.status(G).parameters_before
        assert not torch.equal(self.images(G, z, c), images)

        assert squeeze_patch.remove(G) is G
        _check_dense(G, before)
        assert torch.equal(self.images(G, z, c), images)
        assert squeeze_patch.remove(G) is G

    def test_second_apply(self) -> None:
        G = squeeze_patch.apply(trained(self.make_generator()), init="weights")
        before = _snapshot(G)
        assert squeeze_patch.apply(G) is G
        _check_same(G, before)
        with pytest.raises(squeeze_patch.StateError, match="remove"):
            squeeze_patch.apply(G, ratio=3)
        _check_same(G, before)

    def test_random_numbers_are_left_alone(self) -> None:
        """A trained start moves neither torch's random stream nor, through the mapping network, w_avg."""
        G = trained(self.make_generator()).train()
        buffers = {name: buffer.clone() for name, buffer in G.named_buffers()}
        state = torch.get_rng_state()
        squeeze_patch.apply(G)
        assert torch.equal(torch.get_rng_state(), state)
        moved = [name for name, now in G.named_buffers() if name in buffers and not torch.equal(now, buffers[name])]
        assert moved == []

    def test_a_refused_request_changes_nothing(self) -> None:
        G = trained(self.make_generator())
        found = locate(G)
        first = found.specs[0]
        before = _snapshot(G)
        for request in ({"widths": {first.resolution: first.channels + 1}}, {"ratio": 0.5}, {"init": "other"}):
            with pytest.raises(squeeze_patch.PlanError):
                squeeze_patch.apply(G, **request)
            _check_dense(G, before)
        with pytest.raises(squeeze_patch.UnsupportedModelError, match="wrapping"):
            squeeze_patch.apply(torch.nn.DataParallel(G))
        _check_dense(G, before)
        with torch.no_grad():
            next(found.network.parameters()).fill_(float("nan"))
        with pytest.raises(squeeze_patch.SqueezeError, match="not finite"):
            squeeze_patch.apply(G)
        _check_dense(G, before)

    @pytest.mark.parametrize("step", ["build", "load_start", "set_block", "attach_plan"])
    def test_an_interrupted_apply_changes_nothing(self, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """At whatever block it happens: here at the second one, or where the plan is stored."""
        G = trained(self.make_generator())
        z, c = self.latents(G)
        before, images = _snapshot(G), self.images(G, z, c)
        role = type(locate(G).surgery)
        work = getattr(role, step)
        calls: List[str] = []

        def interrupted(*args: Any) -> Any:
            calls.append(step)
            if len(calls) == (1 if step == "attach_plan" else 2):
                raise KeyboardInterrupt
            return work(*args)

        with monkeypatch.context() as patched:
            patched.setattr(role, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                squeeze_patch.apply(G, init="weights")
        _check_dense(G, before)
        assert torch.equal(self.images(G, z, c), images)
        assert squeeze_patch.status(squeeze_patch.apply(G, init="weights")).state == "squeezed"

    def test_no_hook_is_lost(self) -> None:
        """One on a module that squeezing replaces goes on working, or the generator is refused and left as it was."""
        dense = self.make_generator().eval()
        G = copy.deepcopy(dense)
        modules = dict(G.named_modules())
        now = dict(squeeze_patch.apply(G, init="random").named_modules())
        gone = [name for name, module in modules.items() if now.get(name) is not module]
        assert gone != []
        for name in gone:
            G = copy.deepcopy(dense)
            seen: List[str] = []
            G.get_submodule(name).register_forward_hook(lambda *_, seen=seen, name=name: seen.append(name))
            self.images(G, *self.latents(G))
            if not seen:  # one that is not called, such as a list, has no hooks to lose
                continue
            before, refusal = _snapshot(G), ""
            try:
                squeeze_patch.apply(G, init="random")
            except squeeze_patch.StateError as error:
                refusal = str(error)
            if refusal:
                assert "hooks" in refusal
                _check_dense(G, before)
            else:
                seen.clear()
                self.images(G, *self.latents(G))
                assert seen != [], f"the hook on {name} is lost"

    # What travels

    def test_copies(self) -> None:
        G = squeeze_patch.apply(trained(self.make_generator()), init="weights")
        z, c = self.latents(G)
        images = self.images(G, z, c)
        ema = copy.deepcopy(G)
        assert squeeze_patch.status(ema) == squeeze_patch.status(G)
        assert torch.equal(self.images(ema, z, c), images)
        with torch.no_grad():
            for parameter in ema.parameters():
                parameter.zero_()
        assert torch.equal(self.images(G, z, c), images)
        ema.load_state_dict(G.state_dict(), strict=True)
        assert torch.equal(self.images(ema, z, c), images)

    def test_state_dicts(self) -> None:
        """They load into a generator squeezed by the same plan, and into no dense one."""
        G = squeeze_patch.apply(trained(self.make_generator()), init="weights")
        z, c = self.latents(G)
        plan = squeeze_patch.status(G).plan
        fresh = squeeze_patch.apply(self.make_generator().eval(), plan=plan, init="random")
        fresh.load_state_dict(G.state_dict(), strict=True)
        assert torch.equal(self.images(fresh, z, c), self.images(G, z, c))
        dense = self.make_generator()
        with pytest.raises(RuntimeError, match=r"size mismatch|Unexpected"):
            dense.load_state_dict(G.state_dict())

    def test_pickles(self) -> None:
        dense = trained(self.make_generator())
        if self.cannot_pickle:
            with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
                pickle.dumps(dense)
            pytest.skip(f"dense generators cannot be pickled either: {self.cannot_pickle}")
        G = squeeze_patch.apply(copy.deepcopy(dense), init="weights")
        z, c = self.latents(G)
        images = self.images(G, z, c)
        loaded = pickle.loads(pickle.dumps(G))
        assert squeeze_patch.status(loaded) == squeeze_patch.status(G)
        assert torch.equal(self.images(loaded, z, c), images)
        assert torch.equal(self.images(copy.deepcopy(loaded), z, c), images)
        again = pickle.loads(pickle.dumps(loaded))
        assert torch.equal(self.images(again, z, c), images)
        removed = squeeze_patch.remove(squeeze_patch.apply(dense, init="weights"))
        assert type(pickle.loads(pickle.dumps(removed))).__name__ == type(dense).__name__


def _count(G: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in G.parameters())


def _parts(block: torch.nn.Module) -> Dict[str, int]:
    """Modules inside a block, as objects; the one that gathers them may be made on demand."""
    return {name: id(module) for name, module in block.named_modules() if name}


def _snapshot(G: torch.nn.Module) -> Dict[str, List[Any]]:
    """Modules, parameters and buffers of G as objects, in order; hooks and attributes of every module."""
    ours = vars(torch.nn.Module())
    return {
        "modules": [(name, id(module), type(module)) for name, module in G.named_modules()],
        "tensors": [(name, id(tensor)) for name, tensor in [*G.named_parameters(), *G.named_buffers()]],
        "hooks": [len(getattr(module, hooks, ())) for module in G.modules() for hooks in HOOKS],
        "attributes": [(k, repr(v)) for m in G.modules() for k, v in vars(m).items() if k not in ours],
        "state": list(G.state_dict()),
    }


def _check_same(G: torch.nn.Module, before: Dict[str, List[Any]]) -> None:
    for what, now in _snapshot(G).items():
        assert now == before[what], what


def _check_dense(G: torch.nn.Module, before: Dict[str, List[Any]]) -> None:
    _check_same(G, before)
    assert squeeze_patch.status(G).state == "dense"
    found = locate(G)
    assert found.surgery.plan_of(found.network) is None

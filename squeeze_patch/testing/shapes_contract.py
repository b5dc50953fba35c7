"""The part of the contract suite about blocks of other shapes than the paper's: narrower inside, or narrowed."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.planning.plans import BlockPlan, Plan
from squeeze_patch.planning.shapes import plan_of_blocks, shapes_of
from squeeze_patch.testing.trained import float_error, trained

#: "inner" = squeezed, and narrower behind conv0 as well; "narrow" = no excite; "mixed" = a block without beside others
KINDS = ["inner", "narrow", "mixed"]
#: what takes long: a mixed generator's blocks are squeezed and narrower inside, but for one or two
ALL_PATHS = ["narrow", "mixed"]


def plan_of_kind(G: torch.nn.Module, kind: str, share: float = 0.5) -> Plan:
    """A Plan in which ``share`` of all channels stay, or all but one block's."""
    found = locate(G)
    blocks = []
    for index, spec in enumerate(found.specs):
        width = max(round(share * spec.channels), 1)
        excite = kind == "inner" or (kind == "mixed" and index != 1)
        inner = max(width - 1, 1) if share < 1 else width  # another number than conv1's
        full = kind == "mixed" and index == 2  # dense but for what it reads
        width, inner = (spec.channels, spec.channels) if full else (width, inner)
        blocks.append(
            BlockPlan(spec.name, spec.resolution, spec.channels, width, inner=inner, excite=excite and not full)
        )
    before = sum(parameter.numel() for parameter in found.generator.parameters())
    return plan_of_blocks(found.specs, before, found.adapter.name, blocks)


class ShapesContract:
    """Part of `AdapterContract`.

    Attributes:
        shapes: whether the adapter builds other shapes; where not, it has to refuse them.
    """

    shapes: bool = True
    cannot_pickle: str = ""
    make_generator: Any
    images: Any
    latents: Any
    styles_and_images: Any

    @pytest.fixture
    def needs_shapes(self) -> None:
        if not self.shapes:
            pytest.skip("the family has squeezed blocks only; test_other_shapes_are_refused")

    def test_other_shapes_are_refused(self) -> None:
        """By families that do not have them; the generator stays as it was."""
        if self.shapes:
            return
        G = trained(self.make_generator())
        before = {name: value.clone() for name, value in G.state_dict().items()}
        for kind in KINDS:
            with pytest.raises(squeeze_patch.UnsupportedModelError, match="squeeze"):
                squeeze_patch.apply(G, plan=plan_of_kind(G, kind))
        assert squeeze_patch.status(G).state == "dense"
        assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())

    @pytest.mark.parametrize("kind", KINDS)
    def test_shapes_are_the_plans(self, kind: str, needs_shapes: None) -> None:
        G = self.make_generator()
        plan = plan_of_kind(G, kind)
        assert squeeze_patch.apply(G, plan=Plan.from_json(plan.to_json()), init="random") is G
        status = squeeze_patch.status(G)
        assert (status.state, status.plan, status.detail) == ("squeezed", plan, "")
        assert sum(p.numel() for p in G.parameters()) == plan.parameters_after == status.parameters_after
        assert status.parameters_before == plan.parameters_before
        specs = locate(G).specs
        assert {spec.name: spec.shape for spec in specs if spec.shape is not None} == shapes_of(specs, plan.blocks)
        assert self.images(G, *self.latents(G)).isfinite().all()

    @pytest.mark.parametrize("init", ["calibrated", "weights"])
    def test_all_channels_change_no_image(self, init: str, needs_shapes: None) -> None:
        G = trained(self.make_generator())
        z, c = self.latents(G)
        dense = self.images(G, z, c)
        squeeze_patch.apply(G, plan=plan_of_kind(G, "mixed", share=1.0), init=init)
        assert (self.images(G, z, c) - dense).abs().max() <= float_error(G, dense)

    @pytest.mark.parametrize("kind", ALL_PATHS)
    def test_starts_of_shapes_beat_a_random_one(self, kind: str, needs_shapes: None) -> None:
        dense = trained(self.make_generator())
        z, c = self.latents(dense)
        images = self.images(dense, z, c)
        errors = {}
        for init in ("calibrated", "weights", "random"):
            G = squeeze_patch.apply(copy.deepcopy(dense), plan=plan_of_kind(dense, kind, share=0.75), init=init)
            errors[init] = (self.images(G, z, c) - images).square().mean().item()
        assert max(errors["calibrated"], errors["weights"]) < errors["random"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_parameter_of_shapes_is_used(self, kind: str, needs_shapes: None) -> None:
        """Twice differentiably, as path length regularisation wants it."""
        dense = trained(self.make_generator())
        G = squeeze_patch.apply(dense, plan=plan_of_kind(dense, kind), init="weights").train().requires_grad_(True)
        styles, images = self.styles_and_images(G, *self.latents(G))
        (gradient,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), styles, create_graph=True)
        torch.autograd.backward(gradient.square().mean() + images.square().mean())
        unmoved = [name for name, p in G.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert unmoved == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_shapes_come_and_go(self, kind: str, needs_shapes: None) -> None:
        """Removed, copied, pickled, as a state dict, and applied again."""
        G = trained(self.make_generator())
        z, c = self.latents(G)
        dense, parts = self.images(G, z, c), [id(parameter) for parameter in G.parameters()]
        plan = plan_of_kind(G, kind)
        fresh = squeeze_patch.apply(copy.deepcopy(G), plan=plan, init="random")
        squeeze_patch.apply(G, plan=plan, init="weights")
        images = self.images(G, z, c)
        assert not torch.equal(images, dense)
        record = squeeze_patch.status(G).plan
        assert record is not None
        assert record.kept_inner != {}
        assert squeeze_patch.apply(G, plan=plan) is G
        for twin in self._twins(G):
            assert squeeze_patch.status(twin) == squeeze_patch.status(G)
            assert torch.equal(self.images(twin, z, c), images)
        fresh.load_state_dict(G.state_dict(), strict=True)
        assert torch.equal(self.images(fresh, z, c), images)
        squeeze_patch.remove(G)
        assert squeeze_patch.status(G).state == "dense"
        assert [id(parameter) for parameter in G.parameters()] == parts
        assert torch.equal(self.images(G, z, c), dense)

    def _twins(self, G: Any) -> Tuple[Any, ...]:
        copies = (copy.deepcopy(G),)
        return copies if self.cannot_pickle else (*copies, pickle.loads(pickle.dumps(G)))

    @pytest.mark.parametrize("kind", ALL_PATHS)
    def test_a_relative_of_another_shape(self, kind: str, needs_shapes: None) -> None:
        """like= keeps the same channels behind both convolutions; other weights are refitted on their own."""
        a = trained(self.make_generator())
        b = trained(copy.deepcopy(a), seed=3)
        squeeze_patch.apply(a, plan=plan_of_kind(a, kind), init="weights")
        squeeze_patch.apply(b, like=a)
        mine, theirs = squeeze_patch.status(a).plan, squeeze_patch.status(b).plan
        assert mine is not None
        assert theirs is not None
        assert mine.same_channels(theirs)
        assert mine.fingerprint == theirs.fingerprint != ""

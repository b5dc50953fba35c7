"""The rosinality family in shapes other than the paper's: what is replaced in a flat list, its files, and fused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.bodies import stand_in
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.evaluation.measure import pair
from squeeze_patch.planning.plans import BlockPlan, Plan
from squeeze_patch.planning.shapes import plan_of_blocks
from squeeze_patch.recovery.distillation import recover
from squeeze_patch.surgery.originals import KEPT
from squeeze_patch.testing import float_error, trained
from squeeze_patch.testing.shapes_contract import KINDS, plan_of_kind
from tests.fusing import assert_same, folds_of
from tests.helpers import QUICK, Snapshot
from tests.hosts.flat import FlatHost


def convs_of(G: Any) -> Any:
    return G.convs if hasattr(G, "convs") else G.style_convs


def constant_of(G: Any) -> Any:
    return G.input if hasattr(G, "input") else G.constant_input


def modules(G: Any) -> List[Tuple[str, int]]:
    return [(name, id(module)) for name, module in G.named_modules()]


def hooks(G: Any) -> List[Any]:
    return [(name, list(module._forward_pre_hooks)) for name, module in G.named_modules()]


def plan_of(G: Any, *rows: Tuple[int, int, bool]) -> Plan:
    """(p, q, excite) of the blocks, first to last; behind them, dense."""
    found = locate(G)
    blocks = [
        BlockPlan(s.name, s.resolution, s.channels, q, inner=p, excite=excite)
        for s, (p, q, excite) in zip(found.specs, rows)
    ]
    before = sum(parameter.numel() for parameter in G.parameters())
    return plan_of_blocks(found.specs, before, found.adapter.name, blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_the_hosts_own(flat_host: FlatHost, kind: str) -> None:
    """Their classes, their filters and the names of everything stay; only excite is new."""
    G = trained(flat_host.generator())
    types = {name: type(module) for name, module in G.named_modules()}
    names = list(G.state_dict())
    squeeze_patch.apply(G, plan=plan_of_kind(G, kind), init="weights")
    assert {name: type(module) for name, module in G.named_modules() if "excite" not in name} == types
    assert [name for name in G.state_dict() if "excite" not in name] == names
    excites = [name for name, _ in G.named_modules() if name.endswith("excite")]
    assert len(excites) == {"inner": 3, "narrow": 0, "mixed": 1}[kind]
    assert all(list(convs_of(G)[k]._modules)[-1] == "excite" for k in (0, 2, 4) if kind == "inner")


def test_what_keeps_its_size_is_shared(flat_host: FlatHost) -> None:
    G = trained(flat_host.generator())
    dense, constant = list(convs_of(G)), constant_of(G)
    squeeze_patch.apply(G, plan=plan_of(G, (32, 16, True), (20, 16, True), (32, 16, True)), init="weights")
    assert constant_of(G) is constant
    assert [now is then for now, then in zip(convs_of(G), dense)] == [False, False, True, False, True, True]


@pytest.mark.parametrize("backwards", [False, True])
def test_blocks_come_and_go_in_any_order(flat_host: FlatHost, backwards: bool) -> None:
    """excite goes with the place of the up-convolution that reads it, not with the layer."""
    G = trained(flat_host.generator())
    z, c = flat_host.latents(G)
    before, dense, hooked = modules(G), flat_host.images(G, z, c), hooks(G)
    squeeze_patch.apply(G, plan=plan_of_kind(G, "inner"), init="weights")
    after, images, new_hooks = modules(G), flat_host.images(G, z, c), hooks(G)
    found = locate(G)
    old = dict(KEPT[G].blocks)
    new = {name: found.get_block(name) for name in old}
    names = list(old)[:: -1 if backwards else 1]
    for name in names:
        found.set_block(name, old[name])
    assert modules(G) == before
    assert hooks(G) == hooked
    assert torch.equal(flat_host.images(G, z, c), dense)
    for name in names:
        found.set_block(name, new[name])
    assert modules(G) == after
    assert hooks(G) == new_hooks
    assert torch.equal(flat_host.images(G, z, c), images)
    squeeze_patch.remove(G)
    assert modules(G) == before
    assert hooks(G) == hooked


def test_hooks_of_the_users(flat_host: FlatHost) -> None:
    """Refused on an up-convolution that is replaced, or that would go; they see what it reads on one that stays."""
    for part in ("", "modulation"):
        G = trained(flat_host.generator())
        layer = next(m for n, m in convs_of(G)[2].named_modules() if n.endswith(part))
        layer.register_forward_hook(lambda *_: None)
        before = modules(G)
        with pytest.raises(squeeze_patch.StateError, match=r"convs\.2(\.\w+)* has hooks"):
            squeeze_patch.apply(G, plan=plan_of_kind(G, "inner"), init="weights")
        assert modules(G) == before
    G = trained(flat_host.generator())
    seen: List[int] = []
    constant_of(G).register_forward_hook(lambda _m, _i, out: seen.append(out.shape[1]))
    squeeze_patch.apply(G, plan=plan_of_kind(G, "inner"), init="weights")
    handle = convs_of(G)[2].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape[1]))
    flat_host.images(G, *flat_host.latents(G))
    assert seen == [15, 32]
    with pytest.raises(squeeze_patch.StateError, match=r"convs\.2 has hooks"):
        squeeze_patch.remove(G)
    handle.remove()
    squeeze_patch.remove(G)
    flat_host.images(G, *flat_host.latents(G))
    assert seen == [15, 32, 32]


def test_what_is_the_users_is_not_lost(flat_host: FlatHost) -> None:
    """Attributes and layers on an up-convolution, which a new one would not have."""
    changes = {"forward": lambda *a, **k: 0, "note": "mine", "more": torch.nn.Identity(), "lora": torch.nn.Linear(1, 1)}
    for name, value in changes.items():
        G = trained(flat_host.generator())
        setattr(convs_of(G)[2], name, value)
        before = modules(G)
        with pytest.raises((squeeze_patch.StateError, squeeze_patch.UnsupportedModelError), match=r"convs\.2"):
            squeeze_patch.apply(G, plan=plan_of_kind(G, "inner"), init="weights")
        assert modules(G) == before


def test_other_constructors_are_refused(flat_host: FlatHost) -> None:
    """Where nothing says how an up-convolution is built, it is not replaced; blocks that leave it are built."""
    G = trained(flat_host.generator())
    up = convs_of(G)[2]

    class Other(type(up)):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)

    up.__class__ = Other
    before = modules(G)
    with pytest.raises(
        squeeze_patch.UnsupportedModelError, match=r"convs\.2: Other has no upsample and no sample_mode"
    ):
        squeeze_patch.apply(G, plan=plan_of_kind(G, "inner"), init="weights")
    assert modules(G) == before
    squeeze_patch.apply(G, ratio=2, init="weights")


@pytest.mark.parametrize("kind", KINDS)
def test_a_dense_generator_like_it(flat_host: FlatHost, kind: str) -> None:
    """As measure makes one."""
    G = trained(flat_host.generator()).eval()
    wanted = {name: tensor.shape for name, tensor in G.state_dict().items()}
    squeeze_patch.apply(G, plan=plan_of_kind(G, kind), init="weights", keep_original=False)
    dense, squeezed = pair(G)
    assert squeezed is G
    assert {name: tensor.shape for name, tensor in dense.state_dict().items()} == wanted
    assert squeeze_patch.status(dense).state == "dense"
    assert flat_host.images(dense, *flat_host.latents(dense)).isfinite().all()
    assert squeeze_patch.status(G).state == "squeezed"


def test_there_is_nothing_to_fuse_where_all_is_narrowed(flat_host: FlatHost) -> None:
    G = flat_host.generator()
    squeeze_patch.apply(G, plan=plan_of_kind(G, "narrow"), init="weights").eval()
    with pytest.raises(squeeze_patch.StateError, match="has no block with excite to run fused"):
        squeeze_patch.fuse(G)
    assert squeeze_patch.status(G).fused_blocks == 0


@pytest.mark.parametrize("kind", ["inner", "mixed"])
def test_fused(flat_host: FlatHost, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    G = squeeze_patch.apply(trained(flat_host.generator()), plan=plan_of_kind(flat_host.generator(), kind)).eval()
    z, c = flat_host.latents(G)
    with torch.no_grad():
        images = flat_host.images(G, z, c)
        squeeze_patch.fuse(G)
        assert squeeze_patch.status(G).fused_blocks == {"inner": 4, "mixed": 2}[kind]
        folds = folds_of(monkeypatch)
        assert_same(flat_host.images(G, z, c), images)
        assert (len(folds) > 0) == (kind == "inner")
        squeeze_patch.unfuse(G)
        assert torch.equal(flat_host.images(G, z, c), images)


class TestFiles:
    """Without the host: a file's generators get bodies of our own."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_there_and_back(self, flat_host: FlatHost, tmp_path: Path, kind: str) -> None:
        dense = trained(flat_host.generator(resolution=16))
        torch.save({"params_ema": dense.state_dict()}, tmp_path / "dense.pth")
        plan = plan_of_kind(dense, kind)
        done = squeeze_patch.convert(tmp_path / "dense.pth", tmp_path / "new.pth", plan=plan, init="weights")
        assert done.plan == plan
        G = squeeze_patch.load(flat_host.generator(resolution=16), tmp_path / "new.pth").eval()
        assert squeeze_patch.status(G).plan == plan
        expected = squeeze_patch.apply(dense, plan=plan, init="weights")
        z, c = flat_host.latents(G)
        assert torch.equal(flat_host.images(G, z, c), flat_host.images(expected, z, c))
        data = read_entries(tmp_path / "new.pth", trust=False)
        body: Any = stand_in(data["params_ema"], Plan.from_dict(data["squeeze_plan"]))
        status = squeeze_patch.status(body)
        assert (status.state, status.plan) == ("squeezed", plan)
        assert status.plan is not None
        assert status.plan.same_channels(done.plan)
        images = flat_host.images(G, z, c)
        made = locate(body).sampler().images(z, c, "const", 1.0)
        assert (made - images).abs().max() <= float_error(G, images)

    def test_without_a_plan(self, flat_host: FlatHost) -> None:
        """As training scripts write them on: shapes tell as much as they can, and images are the same."""
        rows: Dict[str, Any] = {
            "inner": [(20, 16, True), (20, 24, True), (32, 16, True), (12, 8, True)],
            "narrow": [(20, 16, False), (12, 24, False), (24, 24, False), (16, 8, False)],
            "mixed": [(20, 16, True), (12, 24, False), (24, 16, True), (12, 8, True)],
        }
        for kind, shapes in rows.items():
            G = trained(flat_host.generator())
            squeeze_patch.apply(G, plan=plan_of(G, *shapes), init="weights")
            body: Any = stand_in(G.state_dict())
            status = squeeze_patch.status(body)
            assert status.state == "squeezed"
            assert status.plan is not None
            told = {block.resolution: (block.inner_width, block.width, block.excite) for block in status.plan.blocks}
            sizes = [spec.resolution for spec in locate(G).specs]
            assert told == {size: row for size, row in zip(sizes, shapes) if row != (24, 24, False)}, kind
            z, c = flat_host.latents(G)
            images = flat_host.images(G, z, c)
            made = locate(body).sampler().images(z, c, "const", 1.0)
            assert (made - images).abs().max() <= float_error(G, images)

            fresh, plan = flat_host.generator().eval(), squeeze_patch.status(G).plan
            assert plan is not None
            for _ in ("dense", "squeezed"):
                squeeze_patch.load(fresh, G.state_dict())  # beside a dense one the sizes tell the rest
                assert torch.equal(flat_host.images(fresh, z, c), images)
            now = squeeze_patch.status(fresh).plan
            assert now is not None
            assert (now.parameters_before, now.parameters_after) == (plan.parameters_before, plan.parameters_after)
        G = trained(flat_host.generator())
        squeeze_patch.apply(G, plan=plan_of(G, *[(16, 16, False)] * 4), init="weights")  # as a smaller generator's
        with pytest.raises(squeeze_patch.CheckpointError, match="or it is narrowed .* no squeeze_plan: load"):
            squeeze_patch.load(flat_host.generator(), G.state_dict())

    def test_excite_that_was_dropped(self, flat_host: FlatHost) -> None:
        G = trained(flat_host.generator())
        squeeze_patch.apply(G, plan=plan_of_kind(G, "inner"), init="weights")
        state = {name: tensor for name, tensor in G.state_dict().items() if ".2.excite" not in name}
        with pytest.raises(
            squeeze_patch.UnsupportedModelError, match=r"from 32 to 16 channels, but there is no \w+\.2"
        ):
            stand_in(state)

    @pytest.mark.parametrize("kind", KINDS)
    def test_moments_follow(self, rosinality: FlatHost, tmp_path: Path, kind: str) -> None:
        snapshot = Snapshot(rosinality, tmp_path / "dense.pt")
        plan = plan_of_kind(snapshot.g, kind)
        done = squeeze_patch.convert(tmp_path / "dense.pt", tmp_path / "new.pt", plan=plan, init="weights")
        data = read_entries(tmp_path / "new.pt", trust=False)
        G = squeeze_patch.load(rosinality.generator(), tmp_path / "new.pt", entry="g")
        before = {name: snapshot.g_optim.state[p]["exp_avg"] for name, p in snapshot.g.named_parameters()}
        numbers = {name: number for number, (name, _) in enumerate(G.named_parameters())}
        now = {name: data["g_optim"]["state"].get(number) for name, number in numbers.items()}
        assert [name for name, entry in now.items() if entry is None] == [n for n in numbers if "excite" in n]
        shapes = {name: tuple(entry["exp_avg"].shape) for name, entry in now.items() if entry is not None}
        assert shapes == {name: tuple(p.shape) for name, p in G.named_parameters() if name in shapes}

        kept = {block.name: torch.tensor(block.kept) for block in done.plan.blocks}
        inner = {name: torch.tensor(channels) for name, channels in done.plan.kept_inner.items()}
        every = torch.arange(32)
        reads = kept["convs.1"] if kind != "inner" else every  # what the third block reads
        p, q = inner.get("convs.3", every), kept["convs.3"]
        for name, (dense, dims) in {
            "input.input": (before["input.input"], {1: inner["conv1"]}),
            "convs.2.conv.weight": (before["convs.2.conv.weight"], {1: p, 2: reads}),
            "convs.2.conv.modulation.weight": (before["convs.2.conv.modulation.weight"], {0: reads}),
            "convs.2.activate.bias": (before["convs.2.activate.bias"], {0: p}),
            "convs.3.conv.weight": (before["convs.3.conv.weight"], {1: q, 2: p}),
            "convs.3.conv.modulation.bias": (before["convs.3.conv.modulation.bias"], {0: p}),
            "to_rgbs.1.conv.weight": (before["to_rgbs.1.conv.weight"], {2: q}),
            "style.1.weight": (before["style.1.weight"], {}),
        }.items():
            for dim, indices in dims.items():
                dense = dense.index_select(dim, indices)
            assert torch.equal(now[name]["exp_avg"], dense), name

    @pytest.mark.parametrize("kind", ["inner", "narrow"])
    def test_recover(self, flat_host: FlatHost, kind: str) -> None:
        dense = trained(flat_host.generator(resolution=8))
        body: Any = stand_in(dense.state_dict())
        squeeze_patch.apply(body, plan=plan_of_kind(body, kind, share=0.75), init="weights")
        done = recover(body, dense, **QUICK)
        assert done.psnr_after >= done.psnr_before

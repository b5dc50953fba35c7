"""Plans: widths, targets, JSON, and what cannot be had."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Dict, Optional, Tuple

import numpy as np
import pytest

import squeeze_patch
from squeeze_patch.demo.network import Generator
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.solver import _ratios, width_for


def generator(channel_max: int = 64, resolution: int = 32) -> Generator:
    kwargs = {"channel_base": 32 * channel_max, "channel_max": channel_max}
    return Generator(32, 0, 32, resolution, 3, synthesis_kwargs=kwargs)


@pytest.mark.parametrize(
    ("channels", "ratio", "width"),
    [
        *[(512, 1.5, 344), (256, 1.5, 168), (128, 1.5, 88), (64, 1.5, 40), (32, 1.5, 24)],  # the design's table
        *[(512, 1, 512), (512, 1000, 8), (16, 1.5, 11), (16, 1000, 1), (1, 3, 1), (40, 1, 40), (36, 1, 36)],
    ],
)
def test_widths(channels: int, ratio: float, width: int) -> None:
    assert width_for(channels, ratio) == width


@pytest.mark.parametrize("multiple", [None, 8, 3, 1])
def test_every_set_of_widths_is_tried(multiple: Optional[int]) -> None:
    """Against a fine comb of ratios, up to where all blocks have their narrowest width."""
    for channels in ((512, 64), (40, 16), (31, 32, 33), (5,)):

        def widths(ratio: float, channels: Tuple[int, ...] = channels) -> Tuple[int, ...]:
            return tuple(width_for(c, ratio, multiple) for c in channels)

        tried = set(map(widths, _ratios(channels, multiple)))
        assert {widths(ratio) for ratio in np.geomspace(1, 1100, 20_000)} <= tried


@pytest.mark.parametrize("target", [0.05, 0.121, 0.2, 0.3])
def test_target_is_met_and_the_count_is_real(target: float) -> None:
    G = generator()
    before = sum(p.numel() for p in G.parameters())
    plan = squeeze_patch.plan(G, reduction=target, allocate="uniform")
    # one channel more or less in all four blocks at once is the finest stair
    stair = plan.reduction - squeeze_patch.plan(G, widths={r: q + 1 for r, q in plan.widths.items()}).reduction
    assert abs(plan.reduction - target) <= max(0.003, stair / 2)
    squeeze_patch.apply(G, plan=plan, init="random")
    after = sum(p.numel() for p in G.parameters())
    assert (plan.parameters_before, plan.parameters_after) == (before, after)


@pytest.mark.parametrize("ratio", [1, 1.25, 2, 4, 100])
def test_counts_of_any_ratio(ratio: float) -> None:
    G = generator()
    plan = squeeze_patch.plan(G, ratio=ratio)
    squeeze_patch.apply(G, plan=plan, init="random")
    assert sum(p.numel() for p in G.parameters()) == plan.parameters_after


@pytest.mark.parametrize("target", [0.9, 0.75, -0.1, 0.0])
def test_impossible_targets_name_the_range(target: float) -> None:
    with pytest.raises(squeeze_patch.PlanError, match=r"can be made \d+\.\d% to \d+\.\d% smaller"):
        squeeze_patch.plan(generator(), reduction=target, allocate="uniform")


def test_a_generator_that_cannot_shrink() -> None:
    G = Generator(4, 0, 4, 8, 1, synthesis_kwargs={"channel_base": 8, "channel_max": 1})
    with pytest.raises(squeeze_patch.PlanError, match="too few channels"):
        squeeze_patch.plan(G)


def test_what_an_allocation_cannot_reach_is_told_where_one_ratio_can() -> None:
    """An allocation leaves three channels or more, one ratio for all blocks one."""
    narrow = Generator(4, 0, 4, 8, 1, synthesis_kwargs={"channel_base": 8 * 6, "channel_max": 6})
    assert squeeze_patch.plan(narrow, reduction=0.8, method="narrow", allocate="uniform").reduction > 0.8
    with pytest.raises(
        squeeze_patch.PlanError, match=r"80\.0% is out of reach: .* or for one ratio .*--allocate uniform"
    ):
        squeeze_patch.plan(narrow, reduction=0.8, method="narrow")
    three = Generator(4, 0, 4, 8, 1, synthesis_kwargs={"channel_base": 8 * 3, "channel_max": 3})
    assert squeeze_patch.plan(three, ratio=1.6).reduction > 0
    with pytest.raises(squeeze_patch.PlanError, match=r"too few channels, of which it leaves 3.*--allocate uniform"):
        squeeze_patch.plan(three)


def test_widths_by_resolution_leave_the_others_dense() -> None:
    G = generator()
    squeeze_patch.apply(G, widths={8: 10, 32: 64}, init="random")
    status = squeeze_patch.status(G)
    assert (status.state, status.squeezed_blocks, status.blocks) == ("squeezed", 2, 4)
    assert status.plan is not None
    assert status.plan.widths == {8: 10, 32: 64}
    assert type(G.synthesis.b16).__name__ == "SynthesisBlock"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"ratio": 0.5}, "from 1"),
        ({"ratio": float("nan")}, "from 1"),
        ({"ratio": 2, "reduction": 0.1}, "one of"),
        ({"widths": {}}, "empty"),
        ({"widths": {7: 8}}, "resolution 7"),
        ({"widths": {8: 65}}, "1 to 64"),
        ({"widths": {8: 0}}, "1 to 64"),
        ({"widths": {8: 10.5}}, "width 10.5 at resolution 8"),
        ({"multiple": 0}, "positive"),
        ({"ratio": "2"}, "ratio has to be a number, not '2'"),
        ({"reduction": "a lot"}, "reduction has to be a number"),
        ({"widths": {"b4": 10}}, "in whole numbers, not 'b4': 10"),
        ({"widths": {4: float("nan")}}, "in whole numbers, not 4: nan"),
        ({"widths": {4: True}}, "in whole numbers, not 4: True"),
        ({"widths": [4]}, "a dict, not list"),
        ({"ratio": True}, "ratio has to be a number, not True"),
        ({"multiple": 1.5}, "multiple has to be a positive whole number, not 1.5"),
        ({"multiple": "8"}, "not '8'"),
        ({"seed": "0"}, "seed has to be a whole number of at most 64 bits, not '0'"),
        ({"seed": 1 << 64}, "at most 64 bits"),
    ],
)
def test_bad_wishes(wish: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(squeeze_patch.PlanError, match=message):
        squeeze_patch.plan(generator(), **wish)


def test_json_round_trip() -> None:
    plan = squeeze_patch.plan(generator(), ratio=1.5)
    assert Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["schema"] == 1
    assert Plan.from_dict(plan.to_dict()) == plan
    widths = squeeze_patch.plan(generator(), widths={8: 9})
    assert Plan.from_json(widths.to_json()) == widths


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "blocks": 3}'])
def test_damaged_json(text: str) -> None:
    with pytest.raises(squeeze_patch.PlanError):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("place", "value"),
    [("width", 9.7), ("width", "9"), ("width", True), ("channels", None), ("inner", 3.5), ("kept", [0.5])],
)
def test_edited_numbers_are_not_rounded(place: str, value: object) -> None:
    data = squeeze_patch.plan(generator(), ratio=2).to_dict()
    for broken in ({**data, "blocks": [{**data["blocks"][0], place: value}]}, {**data, "ratio": float("nan")}):
        with pytest.raises(squeeze_patch.PlanError, match="damaged"):
            Plan.from_dict(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "has schema 99, this squeeze_patch knows 1"),
        *[({"schema": schema}, "no schema number") for schema in (0, -1, True, "1", None)],
        *[({"ratio": ratio}, "is not 1 or more") for ratio in (0.5, float("inf"))],
        *[({name: 0}, "no parameters") for name in ("parameters_before", "parameters_after")],
        *[({"block": {"channels": channels}}, "impossible channels") for channels in (0, 3, (1 << 20) + 1)],
        *[({"block": {place: width}}, "impossible channels") for place in ("width", "inner") for width in (0, 65)],
        ({"block": {"excite": 1}}, "impossible channels"),
        *[
            ({"block": {"width": 3, "inner": 3, place: kept}}, "kept channels of b4 are not 3 of 64")
            for place in ("kept", "kept_inner")
            for kept in ([0, 1], [0, 1, 1], [2, 1, 0], [-1, 0, 1], [0, 1, 64])
        ],
    ],
)
def test_impossible_plans(changes: Dict[str, Any], message: str) -> None:
    plan = squeeze_patch.plan(generator(), ratio=2).to_dict()
    (first, *others), block = plan["blocks"], changes.get("block", {})
    edited = {**plan, **{name: changes[name] for name in changes if name in plan}}
    with pytest.raises(squeeze_patch.PlanError, match=message):
        Plan.from_dict({**edited, "blocks": [{**first, **block}, *others]})


def test_extreme_plans_are_read() -> None:
    plan = squeeze_patch.plan(generator(), ratio=1).to_dict()
    block = {"name": "b4", "resolution": 4, "channels": 1 << 20, "width": 1, "kept": [(1 << 20) - 1]}
    read = Plan.from_dict({**plan, "ratio": 1.0, "blocks": [block]})
    assert read.blocks[0].to_dict() == block
    narrow = Plan.from_dict({**plan, "blocks": [{**block, "inner": 2, "kept_inner": [0, 3], "excite": False}]})
    assert (narrow.method, narrow.is_told_by_shapes, read.is_told_by_shapes) == ("narrow", False, True)
    inner = Plan.from_dict({**plan, "blocks": [{**block, "inner": 2}]})
    assert (inner.method, inner.is_told_by_shapes) == ("squeeze", False)
    assert not read.same_widths(replace(read, family="another"))
    assert not read.same_widths(inner)
    assert str(read).startswith("ratio 1, ")
    assert str(replace(read, ratio=None)).startswith(f"{read.parameters_before:,} -> ")


def test_counts_of_an_edited_plan_are_the_generators() -> None:
    G = generator()
    data = json.loads(squeeze_patch.plan(G, ratio=2).to_json())
    data["blocks"][1].update(width=5, resolution=64)
    data.update(parameters_after=7)
    squeeze_patch.apply(G, plan=Plan.from_dict(data), init="random")
    now = squeeze_patch.status(G)
    assert now.plan is not None
    assert (now.plan.parameters_before, now.plan.parameters_after) == (now.parameters_before, now.parameters_after)
    assert now.parameters_after == sum(p.numel() for p in G.parameters())
    assert (now.plan.ratio, now.plan.widths[8]) == (None, 5)
    squeeze_patch.apply(G, plan=Plan.from_dict(data), init="random")  # the same wish once more


def test_blocks_are_named_once_and_in_order() -> None:
    G = generator()
    plan = squeeze_patch.plan(G, ratio=2)
    for blocks in (plan.blocks[::-1], (*plan.blocks, plan.blocks[-1])):
        with pytest.raises(squeeze_patch.PlanError, match="named once, in the order b4, b8, b16, b32"):
            squeeze_patch.apply(G, plan=replace(plan, blocks=blocks), init="random")
    assert squeeze_patch.status(G).state == "dense"


def test_like_is_no_path() -> None:
    with pytest.raises(squeeze_patch.PlanError, match="a squeezed generator or its Plan, not str"):
        squeeze_patch.apply(generator(), like="squeezed.pkl")  # type: ignore[arg-type]


def test_plan_of_another_generator_does_not_fit() -> None:
    plan = squeeze_patch.plan(generator(64), ratio=2)
    G = generator(48)
    with pytest.raises(squeeze_patch.PlanError, match="b4 should go from 64 to 32"):
        squeeze_patch.apply(G, plan=plan)
    with pytest.raises(squeeze_patch.PlanError, match="family"):
        squeeze_patch.apply(generator(64), plan=replace(plan, family="other"))
    with pytest.raises(squeeze_patch.PlanError, match="not both"):
        squeeze_patch.apply(generator(64), plan=plan, ratio=2)
    assert squeeze_patch.status(G).state == "dense"


@pytest.mark.parametrize("method", ["squeeze", "narrow"])
def test_plans_of_dense_and_squeezed_agree(method: str) -> None:
    """By one ratio for all blocks: of what was squeezed already, no activations say what else its images need."""
    G = generator()
    wishes = ({"ratio": 2}, {"reduction": 0.2}, {"multiply_adds": 0.8, "method": "narrow"}, {})
    dense = [squeeze_patch.plan(G, allocate="uniform", **wish) for wish in wishes]
    squeeze_patch.apply(G, ratio=3, method=method, init="random")
    assert [squeeze_patch.plan(G, **wish) for wish in wishes] == dense
    with pytest.raises(squeeze_patch.PlanError, match="squeezed already"):
        squeeze_patch.plan(G, allocate="spectral")


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(reduction=0.2, allocate="spectral"),
        Request(ratio=np.float32(2)),
        Request(milliseconds=12),
        Request(widths={8: np.int64(16), 4: 8}),
        Request(plan=Plan("demo", (), 10, 9)),
    ],
)
def test_a_request_survives_json(request_: Request) -> None:
    """Processes hand it to each other as plain values."""
    again = Request.from_dict(json.loads(json.dumps(request_.to_dict())))
    assert again == request_


def test_a_request_is_its_own() -> None:
    widths = {8: 16}
    request = Request(widths=widths)
    widths[8] = 99
    assert request.widths == {8: 16}
    with pytest.raises(squeeze_patch.PlanError, match=r"squeeze_patch\.Plan, not dict"):
        Request(plan={"schema": 1})  # type: ignore[arg-type]
    for other in ({"ratio": 0.5}, {"allocate": "spectral"}, {"widths": {8: 16}}):
        with pytest.raises(squeeze_patch.PlanError, match="give a plan, or a reduction"):
            Request(plan=Plan("demo", (), 10, 9), **other)  # type: ignore[arg-type]

"""apply and remove are one step each: an interruption at any line, and threads."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import types
from typing import Any, Callable, Dict, List, Set, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.testing import trained
from tests.hosts import Host
from tests.hosts.lucidrains import LucidrainsHost


def state_of(G: Any) -> List[Any]:
    """Which modules and parameters these are."""
    return [(name, id(module)) for name, module in G.named_modules()] + [id(p) for p in G.parameters()]


#: rooms whose lines are stopped at
ROOMS = ("squeeze_patch/surgery/", "adapters/nvidia/adapter", "adapters/lucidrains/", "connection.py")


class _Stop(BaseException):
    pass


def lines_of(action: Callable[[], Any], stop_at: Tuple[str, int] = ("", 0)) -> Set[Tuple[str, int]]:
    """Lines of squeeze_patch that ``action`` runs through; at ``stop_at`` it is interrupted, once."""
    seen: Set[Tuple[str, int]] = set()
    armed = [True]

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if not any(room in file for room in ROOMS):
            return None
        if event == "line":
            seen.add((file, frame.f_lineno))
            if (file, frame.f_lineno) == stop_at and armed[0]:
                armed[0] = False
                raise _Stop
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return seen


def users_hook(*_: Any) -> None:
    """In pickles by its name."""


def hooks_in(G: Any) -> List[Any]:
    return [list(module._forward_hooks.values()) for module in G.modules()]


def test_an_interruption_at_any_line(full_host: Host) -> None:
    """Leaves the generator dense as it was, hooks included, or squeezed whole with its dense blocks at hand."""
    G = full_host.generator(resolution=8, channel_base=64)
    G.synthesis.b4.register_forward_hook(users_hook)
    hooks = hooks_in(G)
    z, c = full_host.latents(G)
    before, images = state_of(G), full_host.images(G, z, c)

    def squeeze() -> None:
        squeeze_patch.apply(G, init="random")

    lines = lines_of(squeeze)
    squeeze_patch.remove(G)
    assert len(lines) > 150
    chosen = sorted(lines)[:: 1 if os.environ.get("SQUEEZE_SLOW") else 6]
    stopped = 0
    for line in chosen:
        try:
            lines_of(squeeze, line)
        except _Stop:
            stopped += 1
        if squeeze_patch.status(G).state == "squeezed":
            squeeze_patch.remove(G)
        assert state_of(G) == before, line
        assert torch.equal(full_host.images(G, z, c), images), line
        assert "squeeze_plan" not in vars(G.synthesis), line
        assert hooks_in(G) == hooks, line
        assert pickle.loads(pickle.dumps(G)) is not None, line
    assert stopped > 150 * len(chosen) / len(lines)


def test_an_interruption_of_fuse(draggan: Host) -> None:
    """Leaves it as it was, hooks included, or fused whole."""
    G = squeeze_patch.apply(draggan.generator(resolution=8, channel_base=64), ratio=2, init="random").eval()
    G.synthesis.b4.register_forward_hook(users_hook)
    hooks = hooks_in(G)
    lines = sorted(lines_of(lambda: squeeze_patch.fuse(G)))
    whole = squeeze_patch.status(G).fused_blocks
    for line in lines[:: 1 if os.environ.get("SQUEEZE_SLOW") else 5]:
        squeeze_patch.unfuse(G)
        with contextlib.suppress(_Stop):
            lines_of(lambda: squeeze_patch.fuse(G), line)
        assert squeeze_patch.status(G).fused_blocks in (0, whole), line
        assert hooks_in(G) == hooks, line


@pytest.mark.parametrize("kind", ["generator", "wrapper"])
def test_an_interruption_of_remove(kind: str, draggan: Host, lucidrains: LucidrainsHost) -> None:
    """Leaves it squeezed as it was, fused too, or dense; of a wrapper both of its generators, and its optimiser."""
    G = draggan.generator(resolution=8, channel_base=64).eval() if kind == "generator" else lucidrains.wrapper()

    def again() -> None:
        if squeeze_patch.status(G).state == "dense":
            squeeze_patch.apply(G, ratio=2, init="random", verify=False)
        if kind == "generator" and not squeeze_patch.status(G).fused_blocks:
            squeeze_patch.fuse(G, verify=False)

    dense = state_of(G)
    again()
    lines = sorted(lines_of(lambda: squeeze_patch.remove(G)))
    assert len(lines) > 150
    stopped = 0
    for line in lines[:: 1 if os.environ.get("SQUEEZE_SLOW") else 5 if kind == "generator" else 20]:
        again()
        before = (state_of(G), squeeze_patch.status(G))
        try:
            lines_of(lambda: squeeze_patch.remove(G), line)
        except _Stop:
            stopped += 1
        now = (state_of(G), squeeze_patch.status(G))
        assert now == before or (now[0], now[1].state) == (dense, "dense"), line
        if kind == "generator":
            assert pickle.loads(pickle.dumps(G)) is not None, line
        else:
            known = {id(parameter) for group in G.G_opt.param_groups for parameter in group["params"]}
            assert known == {id(parameter) for part in (G.G, G.S) for parameter in part.parameters()}, line
    assert stopped > 10


def test_threads(draggan: Host) -> None:
    """Two generators in two threads get the bits that they get one after the other; of two wishes for one generator one
    is granted, the other an error."""

    def squeezed_bits(seed: int, results: Dict[int, Any]) -> None:
        G = generators[seed]
        results[seed] = squeeze_patch.apply(G, ratio=2, init="weights").state_dict()

    def together(action: Callable[..., None], *arguments: Tuple[Any, ...]) -> None:
        threads = [threading.Thread(target=action, args=each) for each in arguments]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found: List[Dict[int, Any]] = []
    for run in (lambda: together(squeezed_bits, (0, found[-1]), (1, found[-1])), None):
        torch.manual_seed(0)
        generators = {seed: trained(draggan.generator(), seed) for seed in (0, 1)}
        found.append({})
        random = torch.get_rng_state()
        if run is None:
            for seed in (0, 1):
                squeezed_bits(seed, found[-1])
        else:
            run()
        assert torch.equal(torch.get_rng_state(), random)
    for seed in (0, 1):
        assert all(torch.equal(value, found[1][seed][key]) for key, value in found[0][seed].items())

    G = trained(draggan.generator())
    errors: List[Exception] = []

    def wish(ratio: float) -> None:
        try:
            squeeze_patch.apply(G, ratio=ratio, init="weights")
        except squeeze_patch.StateError as error:
            errors.append(error)

    together(wish, (2.0,), (4.0,))
    assert len(errors) == 1
    assert squeeze_patch.status(G).state == "squeezed"

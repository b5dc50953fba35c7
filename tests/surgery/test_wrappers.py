"""Generators within other modules: looked through, refused, or squeezed where they are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

import squeeze_patch
from squeeze_patch.demo import trained_generator
from tests.hosts import Host


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, torch.nn.Sequential])
def test_wrappers(wrap: Any) -> None:
    wrapped = wrap(trained_generator())
    if wrap is torch.nn.Sequential:  # a module that holds one generator is fine
        assert squeeze_patch.apply(wrapped) is wrapped
        assert squeeze_patch.status(wrapped[0]).state == "squeezed"
    else:
        for change in (squeeze_patch.apply, squeeze_patch.remove):
            with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"wrapped in DataParallel.*before wrapping"):
                change(wrapped)


class Answering(torch.nn.Module):
    """Answers with what it holds, as the module that torch.compile returns does."""

    def __init__(self, G: torch.nn.Module) -> None:
        super().__init__()
        self.held = G

    def __getattr__(self, name: str) -> Any:
        return self._modules["held"] if name == "held" else getattr(self._modules["held"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.held(*args, **kwargs)


def test_wrappers_that_answer_with_what_they_hold(draggan: Host) -> None:
    G = draggan.generator()
    before = {name: value.clone() for name, value in G.state_dict().items()}
    wrapped = squeeze_patch.apply(Answering(G), ratio=2, init="weights")
    assert squeeze_patch.status(G).state == "squeezed"
    assert pickle.loads(pickle.dumps(G)).init_kwargs["squeeze"] == G.init_kwargs["squeeze"]
    squeeze_patch.remove(wrapped)
    after = G.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_wrappers_are_looked_through_where_no_parameter_changes() -> None:
    dense, G = trained_generator(), squeeze_patch.apply(trained_generator(), ratio=2, init="weights").eval()
    wrapped = torch.nn.DataParallel(G)
    assert squeeze_patch.status(wrapped) == squeeze_patch.status(G)
    assert squeeze_patch.kept_channels(wrapped).keys() == squeeze_patch.kept_channels(G).keys()
    assert squeeze_patch.plan(torch.nn.DataParallel(dense), ratio=2) == squeeze_patch.plan(dense, ratio=2)
    assert squeeze_patch.compare(dense, wrapped, samples=2) == squeeze_patch.compare(dense, G, samples=2)
    assert squeeze_patch.fuse(wrapped) is wrapped
    assert squeeze_patch.status(G).fused_blocks == 4
    squeeze_patch.unfuse(wrapped)
    assert squeeze_patch.status(G).fused_blocks == 0


def test_distributed_wrappers_are_refused_inside(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        G = trained_generator().requires_grad_(True)
        G.synthesis = torch.nn.parallel.DistributedDataParallel(G.synthesis)  # type: ignore[assignment]
        with pytest.raises(
            squeeze_patch.UnsupportedModelError, match=r"synthesis is wrapped in DistributedDataParallel"
        ):
            squeeze_patch.apply(G, ratio=1.5)
    finally:
        torch.distributed.destroy_process_group()

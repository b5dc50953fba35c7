"""Ways of calling one network faster that need nothing but torch: compiled, and as a CUDA graph."""

from __future__ import annotations

import warnings
from typing import Any, Callable

import torch

#: versions of one function that torch.compile makes before it gives up; a block is one for each of its resolutions
VERSIONS = 64
#: calls before a capture, in which kernels are chosen and workspaces made
BEFORE_CAPTURE = 3

Call = Callable[[], torch.Tensor]


def compiled(network: Any, backend: str) -> Any:
    """``network`` under torch.compile, compiled at its first call."""
    torch._dynamo.reset()
    config: Any = torch._dynamo.config
    setattr(config, "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit", VERSIONS)
    return torch.compile(network, backend=backend)


def captured(run: Call, device: torch.device) -> Call:
    """What replays the CUDA graph of ``run`` and returns its images; torch's errors where it cannot be captured."""
    stream, now = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(now)
    with torch.cuda.stream(stream), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(BEFORE_CAPTURE):
            run()
    now.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        images = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return images

    return replay

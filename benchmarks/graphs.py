"""CUDA graphs: thousands of small kernels of a training step launched at once, rather than from Python one by one."""

from __future__ import annotations

from typing import Any, Callable, List

import torch

#: calls before the capture, in which lazy state comes to be and cuDNN chooses its algorithms
WARM = 2


class Graphed:
    """Calls a function of tensors that changes others in place; after `WARM` calls its kernels are captured, and from
    then on replayed.

    The function must not wait for the GPU, nor do what depends on more than its arguments and those tensors.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.calls = 0
        self.inputs: List[torch.Tensor] = []
        self.graph: Any = None

    def __call__(self, *inputs: torch.Tensor) -> None:
        self.calls += 1
        if self.calls <= WARM:
            return self.function(*inputs)
        if self.graph is None:
            self.inputs = [given.clone() for given in inputs]
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=torch.cuda.current_stream()):  # records, and does not run
                self.function(*self.inputs)
        for place, given in zip(self.inputs, inputs):
            place.copy_(given)
        self.graph.replay()


def use_stream() -> None:
    """From now on another stream than the default one, which cannot be captured."""
    torch.cuda.set_stream(torch.cuda.Stream())

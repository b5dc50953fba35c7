"""What happens inside a generator when it runs: conv1's activations, and what the image makes of a change in them.

Works on copies, through the adapter's `conv1` and `synthesize`; the user's generator is neither hooked nor moved.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Iterator, List, Sequence

import torch

from squeeze_patch.adapters.base import Adapter


class Probe:
    """A private copy of a network, frozen and in evaluation mode.

    Args:
        adapter: of the network's family.
        network: dense or squeezed; left as it is.
    """

    def __init__(self, adapter: Adapter, network: torch.nn.Module) -> None:
        self.adapter = adapter
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        for module in self.network.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                # The user's observers, which have numbers, are not to see these runs; an adapter's hooks have words.
                for key in [key for key in hooks if isinstance(key, int)]:
                    del hooks[key]
        self.device = next(self.network.parameters()).device

    def activations(self, names: Sequence[str], ws: torch.Tensor, seed: int) -> List[torch.Tensor]:
        """conv1's output [n, channels, R, R] of the blocks ``names``, which run first and in this order.

        The network runs only so far. The same ``seed`` gives the same noise inputs, also in another network.

        Args:
            ws: style vectors [n, w_dim], one a sample for all layers.
        """
        with torch.no_grad(), self._recorded(names, stop=True) as found:
            self._run(ws, seed)
        return found

    def gradients(self, names: Sequence[str], ws: torch.Tensor, seed: int) -> List[torch.Tensor]:
        """Gradient of a random projection of the image to conv1's output of each block, shaped as `activations`.

        With a projection of independent standard normals, the expected product of two gradients is the Gauss-Newton
        matrix of the image's squared error.
        """
        with torch.enable_grad(), self._recorded(names, stop=False) as found:
            image = self._run(ws.detach().requires_grad_(), seed)
            random = torch.Generator().manual_seed(seed)
            direction = torch.randn(image.shape, generator=random).to(image)
            return list(torch.autograd.grad((image * direction).sum(), found))

    def _run(self, ws: torch.Tensor, seed: int) -> Any:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), contextlib.suppress(_Enough):
            torch.manual_seed(seed)
            return self.adapter.synthesize(self.network, ws.to(self.device))

    @contextlib.contextmanager
    def _recorded(self, names: Sequence[str], stop: bool) -> Iterator[List[torch.Tensor]]:
        found: List[torch.Tensor] = []

        def record(module: Any, inputs: Any, output: torch.Tensor) -> None:
            found.append(output)
            if stop and len(found) == len(names):
                raise _Enough

        handles = [self.adapter.conv1(self.network, name).register_forward_hook(record) for name in names]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


class _Enough(Exception):
    """Everything asked for has been computed."""

"""How much memory a generator takes: its weights, and what one call needs on top."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from squeeze_patch.adapters import sampler
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.sampling import draw, evaluation, latents

CUDA_METHOD = "torch.cuda.max_memory_allocated"
CPU_METHOD = "bytes of live tensors, seen at every operator; not what operators take inside"


@dataclass(frozen=True)
class Memory:
    """In bytes: ``weights`` = parameters and buffers; ``working`` = the most that one call takes on top of them.

    ``method`` says how ``working`` was counted.
    """

    weights: int
    working: int
    method: str

    @property
    def peak(self) -> int:
        return self.weights + self.working


def memory(G: Any, batch: int = 1) -> Memory:
    """Memory of one call ``G(z, c)`` without gradients, in evaluation mode, with constant noise.

    On CUDA the allocator's own figure; elsewhere the bytes of all tensors that live at the same time, which does not
    depend on the machine's allocator or on other processes.

    Args:
        G: a generator.
        batch: images a call.
    """
    device = reference_of(G).device
    source = sampler(G)
    z, c = (x.to(device) for x in latents(source, batch, seed=0))

    def run() -> None:
        draw(source, z, c)

    with evaluation(G):
        run()  # what is made once and kept (caches, workspaces) is not part of a call
        working = _cuda(run, device) if device.type == "cuda" else _live(run)
    weights = sum(x.numel() * x.element_size() for x in {id(x): x for x in _tensors(G)}.values())
    return Memory(weights, working, CUDA_METHOD if device.type == "cuda" else CPU_METHOD)


def _tensors(G: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from G.parameters()
    yield from G.buffers()


def _cuda(run: Callable[[], None], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def _live(run: Callable[[], None]) -> int:
    with LiveTensors() as live:
        run()
    return live.peak


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operators return, for as long as any tensor shows them.

    A storage counts once, whatever views there are of it; storages that an operator was given from outside the block
    (weights, inputs) do not count, nor do views of them.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        #: address of a storage: (bytes that it counts for, tensors that show it)
        self.storages: Dict[int, Tuple[int, int]] = {}
        #: id of a tensor that was seen and lives: its weak reference, which tells when it goes
        self.seen: Dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        for given in _flat((args, kwargs or {})):
            self._see(given, own=False)
        result = func(*args, **(kwargs or {}))
        for made in _flat(result):
            self._see(made, own=True)
        self.peak = max(self.peak, self.now)
        return result

    def _see(self, tensor: torch.Tensor, own: bool) -> None:
        storage = _storage(tensor)
        address = storage.data_ptr()
        name = id(tensor)
        if address == 0 or name in self.seen:
            return
        self.seen[name] = weakref.ref(tensor, lambda _: self._gone(name, address))
        size, shown = self.storages.get(address, (storage.nbytes() if own else 0, 0))
        if shown == 0:
            self.now += size
        self.storages[address] = (size, shown + 1)

    def _gone(self, name: int, address: int) -> None:
        del self.seen[name]
        size, shown = self.storages[address]
        if shown > 1:
            self.storages[address] = (size, shown - 1)
        else:
            self.now -= size
            del self.storages[address]


def _storage(tensor: torch.Tensor) -> Any:
    known_as = "untyped_storage" if hasattr(tensor, "untyped_storage") else "storage"  # torch 1.13 has the latter
    return getattr(tensor, known_as)()


def _flat(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _flat(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)

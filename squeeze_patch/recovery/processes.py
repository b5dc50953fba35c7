"""One process or several (torchrun): who does which part of a batch, and how they agree."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Iterator, Optional, TypeVar

import torch

from squeeze_patch.errors import RecoveryError, SqueezeError
from squeeze_patch.evaluation.devices import device_named

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process's ``rank`` among ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, whole: torch.Tensor) -> torch.Tensor:
        """This process's rows of a batch; equal shares, so that the mean of means is the mean.

        Raises:
            RecoveryError: the rows cannot be shared equally.
        """
        if len(whole) % self.size:
            raise RecoveryError(f"{len(whole)} images cannot be shared equally by {self.size} processes")
        n = len(whole) // self.size
        return whole[self.rank * n : (self.rank + 1) * n]

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Sum of ``value`` over all processes."""
        if self.size > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
        return value

    def parallel(self, module: torch.nn.Module) -> Any:
        """``module``, its gradients averaged over all processes; parameters start as the first process has them."""
        if self.size == 1:
            return module
        with warnings.catch_warnings():
            # torch 2.13 deprecates the argument, whose successor would overwrite buffers; older releases lack that one
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            return torch.nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)

    def kept(self, module: Any, is_shared: bool) -> ContextManager[None]:
        """In which gradients of a `parallel` module stay this process's own until later, unless ``is_shared``."""
        return contextlib.nullcontext() if self.size == 1 or is_shared else module.no_sync()

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What ``make`` returns in the first process, in all of them; its error is raised in all of them."""
        if self.size == 1:
            return make()
        box: Any = [None, None]
        if self.first:
            try:
                box[0] = make()
            except SqueezeError as error:
                box[1] = error
        torch.distributed.broadcast_object_list(box)
        if box[1] is not None:
            raise box[1]
        return box[0]


def current() -> Processes:
    """This process among those of torch's default process group, where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return Processes()


@contextlib.contextmanager
def joined(device: Optional[str]) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did, and say which device is this one's.

    Args:
        device: "cpu", "cuda", "cuda:1"...; None or "auto" = a GPU where there is one. Under torchrun each process takes
            the GPU of its local rank.
    """
    chosen = device_named("auto") if device in (None, "auto") else torch.device(str(device))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield chosen
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        torch.distributed.destroy_process_group()

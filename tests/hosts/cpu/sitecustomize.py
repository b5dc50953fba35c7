"""Lets the hosts' training loops, which ask for CUDA at every turn, run on a CPU; seen by test processes only."""

import on_gloo
import torch

_device = torch.device


class _Cpu(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _device)


class _Device(metaclass=_Cpu):
    def __new__(cls, *_: object, **__: object) -> object:
        return _device("cpu")


class _Event:
    def __init__(self, **_: object) -> None:
        pass

    def record(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, _: object) -> float:
        return 0.0


torch.device = _Device
torch.cuda.Event = _Event
torch.cuda.reset_peak_memory_stats = lambda *_: None
torch.cuda.current_stream = lambda *_: None
torch.cuda.max_memory_allocated = lambda *_: 0
torch.Tensor.pin_memory = lambda self, *_: self
on_gloo.install()
torch.set_num_threads(1)

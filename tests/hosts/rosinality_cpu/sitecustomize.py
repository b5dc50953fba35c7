"""Lets rosinality's scripts, which compile CUDA operations, run on a CPU; seen by test processes only."""

import torch
import torch.utils.cpp_extension


def on_cpu(make):
    """The same function, with device="cuda" taken for the CPU."""
    return lambda *args, device=None, **kwargs: make(*args, device=None if device == "cuda" else device, **kwargs)


def staying(move):
    return lambda self, *args, **kwargs: self if args == ("cuda",) else move(self, *args, **kwargs)


torch.utils.cpp_extension.load = lambda *_args, **_kwargs: None
torch.nn.Module.to, torch.Tensor.to = staying(torch.nn.Module.to), staying(torch.Tensor.to)
torch.randn, torch.tensor = on_cpu(torch.randn), on_cpu(torch.tensor)
torch.set_num_threads(1)

"""Lets rosinality's scripts, which compile CUDA operations, run on a CPU; seen by test processes only, like the bare
torchvision and tqdm beside it."""

import torch
import torch.utils.cpp_extension

_to, _randn = torch.nn.Module.to, torch.randn

torch.utils.cpp_extension.load = lambda *_args, **_kwargs: None
torch.nn.Module.to = lambda self, *args, **kwargs: self if args == ("cuda",) else _to(self, *args, **kwargs)
torch.randn = lambda *size, device=None, **kwargs: _randn(*size, device=None if device == "cuda" else device, **kwargs)
torch.set_num_threads(1)

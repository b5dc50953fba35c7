"""Lets lucidrains' command, which demands CUDA, run on a CPU; seen by test processes only."""

import os

import on_gloo
import torch

_loader = torch.utils.data.DataLoader.__init__


def _unpinned(self, *args, pin_memory=False, **kwargs):
    _loader(self, *args, **kwargs)


torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: int(os.environ.get("GPUS", "1"))
torch.nn.Module.cuda = torch.Tensor.cuda = lambda self, *_: self
torch.utils.data.DataLoader.__init__ = _unpinned
on_gloo.install()
torch.set_num_threads(1)

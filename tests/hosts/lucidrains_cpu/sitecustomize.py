"""Lets lucidrains' command, which demands CUDA, run on a CPU; seen by test processes only."""

import os
import sys

import on_gloo
import torch

_loader = torch.utils.data.DataLoader.__init__


def _unpinned(self, *args, pin_memory=False, **kwargs):
    _loader(self, *args, **kwargs)


def _asked_by_host():
    """torch itself would go on to ask the driver, where it was built for CUDA."""
    return sys._getframe(1).f_globals["__name__"].split(".")[0] == "stylegan2_pytorch"


torch.cuda.is_available = _asked_by_host
torch.cuda.device_count = lambda: int(os.environ.get("GPUS", "1"))
torch.nn.Module.cuda = torch.Tensor.cuda = lambda self, *_: self
torch.utils.data.DataLoader.__init__ = _unpinned
on_gloo.install()
torch.set_num_threads(1)

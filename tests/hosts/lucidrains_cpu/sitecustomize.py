"""Lets lucidrains' command, which demands CUDA, run on a CPU; seen by test processes only, like the bare
packages beside it."""

import os

import torch

_loader = torch.utils.data.DataLoader.__init__
_init_process_group = torch.distributed.init_process_group
_wrap = torch.nn.parallel.DistributedDataParallel.__init__


def _unpinned(self, *args, pin_memory=False, **kwargs):
    _loader(self, *args, **kwargs)


def _gloo(backend=None, **kwargs):
    return _init_process_group(backend="gloo", **kwargs)


def _wrap_without_devices(self, module, device_ids=None, **kwargs):
    _wrap(self, module, **kwargs)


torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: int(os.environ.get("GPUS", "1"))
torch.nn.Module.cuda = torch.Tensor.cuda = lambda self, *_: self
torch.utils.data.DataLoader.__init__ = _unpinned
torch.distributed.init_process_group = _gloo
torch.nn.parallel.DistributedDataParallel.__init__ = _wrap_without_devices
torch.set_num_threads(1)

"""Several training processes on a CPU: hosts ask for nccl, and wrap networks for devices that are not there."""

import torch

_init_process_group = torch.distributed.init_process_group
_wrap = torch.nn.parallel.DistributedDataParallel.__init__


def _gloo(backend=None, **kwargs):
    return _init_process_group(backend="gloo", **kwargs)


def _wrap_without_devices(self, module, device_ids=None, **kwargs):
    _wrap(self, module, **kwargs)


def install():
    torch.distributed.init_process_group = _gloo
    torch.nn.parallel.DistributedDataParallel.__init__ = _wrap_without_devices

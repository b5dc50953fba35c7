"""How the NVIDIA family's train.py builds and resumes generators, and how much of it the tests could run.

==========================  =========================================================================================
stylegan3, cfg stylegan2    the whole script, untouched, on a CPU: one and two processes, trained and resumed
stylegan2-ada-pytorch       the same with one process, snapshots included; with two, up to the first tick. Both need ten
                            minutes on a CPU, as its networks cannot be narrowed by options (``SQUEEZE_SLOW=1``)
GGDR                        its loss, networks, features and snapshots; of its script only the options. On one process
                            the script stops by itself at a barrier without a process group
projected-gan               networks; its loss needs a pretrained network from the internet
EG3D                        backbone and rebuilding; its loss needs a data set with cameras, its scripts CUDA
draggan                     networks, loss (path length calls an operation with an argument that its copy lacks; the
                            tests leave that argument out), snapshots and resume functions; it ships no script
==========================  =========================================================================================

On torch 2.x all of these scripts stop at once, dense ones too, because their data loader passes an argument that torch
has dropped; `_accept_data_source` bridges that. Their CUDA calls are stood in for by ``tests/hosts/cpu``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict

import torch

from squeeze_patch.checkpoints.safe_tensors import is_tensor_file
from squeeze_patch.checkpoints.tensor_files import is_archive
from squeeze_patch.errors import CheckpointError, StateError
from squeeze_patch.planning.request import Request
from squeeze_patch.surgery.status import status
from squeeze_patch.training.common import PrepareStart, RunStart, first_steps, import_script, squeeze_new, try_new

BUILDER = "squeeze_patch.training.nvidia.build_generator"
#: [kept, kept_inner] of the Plan that a run goes on with; options, which hosts print a number a line, have its widths
KEPT_VARIABLE = "SQUEEZE_PATCH_KEPT"


class NvidiaScripts:
    """The role of scripts: stylegan2-ada-pytorch's and GGDR's train.py, stylegan3's and its relatives'."""

    def hook_training(self, module: Any, prepare: PrepareStart) -> bool:
        """Change the options on their way from the script's command line to its training processes.

        stylegan2-ada-pytorch and GGDR make them in ``setup_training_loop_kwargs``, stylegan3 and its relatives hand
        them to ``launch_training``.
        """
        hooks = {"setup_training_loop_kwargs": _hook_setup, "launch_training": _hook_launch}
        found = [hook for name, hook in hooks.items() if callable(getattr(module, name, None))]
        if not found:
            return False
        found[0](module, prepare)
        _bridge_torch()
        if hasattr(module, "subprocess_fn"):
            module.squeeze_patch_original = module.subprocess_fn
            module.subprocess_fn = run_process
        return True

    def hook_generators(self, folder: Path, squeeze: Callable[[torch.nn.Module], Any]) -> bool:
        return False  # its scripts load generators whole, squeezed as they are


def run_process(*arguments: Any, **keywords: Any) -> None:
    """One training process: the host's own function, under what a current torch needs for it.

    Spawned processes find this function by its name and the host's script by the environment.
    """
    _bridge_torch()
    module = import_script()
    options = next((value for value in (*keywords.values(), *arguments) if hasattr(value, "run_dir")), None)
    with first_steps(getattr(options, "run_dir", None)):
        getattr(module, "squeeze_patch_original", module.subprocess_fn)(*arguments, **keywords)


def _hook_setup(module: Any, prepare: PrepareStart) -> None:
    original = module.setup_training_loop_kwargs

    @functools.wraps(original)
    def setup(*args: Any, **kwargs: Any) -> Any:
        description, options = original(*args, **kwargs)
        return f"{description}{_edit(options, prepare)}", options

    module.setup_training_loop_kwargs = setup


def _hook_launch(module: Any, prepare: PrepareStart) -> None:
    launch = module.launch_training

    @functools.wraps(launch)
    def launch_squeezed(c: Any, desc: str, *args: Any, **kwargs: Any) -> Any:
        return launch(c, f"{desc}{_edit(c, prepare)}", *args, **kwargs)

    module.launch_training = launch_squeezed


def _edit(options: Any, prepare: PrepareStart) -> str:
    """Have the training loop squeeze what it builds; what the name of the run's folder gets behind it."""
    start = prepare(options.get("resume_pkl"))
    if start.request is None:
        return ""
    if start.checkpoint is not None:
        if is_archive(Path(start.checkpoint)) or is_tensor_file(Path(start.checkpoint)):
            raise CheckpointError(
                "this script goes on from pickles of whole networks, and the file holds tensors alone: start from the "
                "host's own snapshot, or fill a generator with squeeze_patch.load and pickle it"
            )
        options["resume_pkl"] = start.checkpoint
    _try(options, start)
    kwargs = options["G_kwargs"]
    kwargs["generator_class"] = kwargs["class_name"]
    kwargs["class_name"] = BUILDER
    kwargs["squeeze_request"] = _hand_on(start.request)
    kwargs["squeeze_start"] = start.source  # resume_pkl may name a copy that does not outlast the run
    return "-squeezed"


def _hand_on(request: Request) -> Dict[str, Any]:
    """A request as options have it; which channels its Plan has kept goes to the processes by the environment."""
    plan = request.plan
    if plan is None:
        os.environ.pop(KEPT_VARIABLE, None)
        return request.to_dict()
    os.environ[KEPT_VARIABLE] = json.dumps([plan.kept, plan.kept_inner], separators=(",", ":"))
    return replace(request, plan=plan.with_kept({})).to_dict()


def _handed_on(options: Dict[str, Any]) -> Dict[str, Any]:
    """Inverse of `_hand_on`, in any of the run's processes."""
    request = Request.from_dict(options)
    if request.plan is None or KEPT_VARIABLE not in os.environ:
        return options
    return replace(request, plan=request.plan.with_kept(*json.loads(os.environ[KEPT_VARIABLE]))).to_dict()


def _try(options: Any, start: RunStart) -> None:
    """Raise `SqueezeError` where a generator as the training loop will build it cannot be squeezed."""
    util = importlib.import_module("dnnlib").util
    try:
        data = util.construct_class_by_name(**options["training_set_kwargs"])
        sizes = {"c_dim": data.label_dim, "img_resolution": data.resolution, "img_channels": data.num_channels}
        with torch.random.fork_rng(devices=[]):
            G = util.construct_class_by_name(**options["G_kwargs"], **sizes)
    except Exception:  # a fork that builds it in another way, or in vain; its own loop tells, a folder later
        return
    try_new(G, start)


def build_generator(
    *args: Any, generator_class: str, squeeze_request: Dict[str, Any], squeeze_start: str = "", **kwargs: Any
) -> Any:
    """Build the host's generator and squeeze it; called by the host's training loop, by name, in every process.

    Args:
        generator_class: name of the host's class, as its options gave it.
        squeeze_request: as `_hand_on` has made it.
        squeeze_start: the file that the run begins with, in the user's words; the host's log and options have it so.
        args, kwargs: the host's.
    """
    util = importlib.import_module("dnnlib").util
    G = util.construct_class_by_name(*args, class_name=generator_class, **kwargs)
    _check_copies(importlib.import_module("torch_utils.misc"))
    squeeze_new(G, _handed_on(squeeze_request), record=True)  # the file's weights follow, or there is no file
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not (distributed and torch.distributed.get_rank()):
        print(f"squeeze_patch: {status(G)}{'; begins with ' if squeeze_start else ''}{squeeze_start}")
    return G


def _check_copies(misc: Any) -> None:
    """On resume hosts copy parameters by name and pass over names that are missing: let nothing stay random so."""
    original: Callable[..., Any] = misc.copy_params_and_buffers
    if getattr(original, "squeeze_patch", False):
        return

    @functools.wraps(original)
    def checked(src_module: torch.nn.Module, dst_module: torch.nn.Module, require_all: bool = False) -> Any:
        have = {name: tensor.shape for name, tensor in _tensors(src_module)}
        want = {name: tensor.shape for name, tensor in _tensors(dst_module)}
        missing = [name for name, shape in want.items() if have.get(name) != shape]
        is_generator = any(type(module).__name__ == "SqueezedBlock" for module in dst_module.modules())
        if is_generator and missing:
            raise StateError(
                f"the checkpoint does not fit the squeezed generator: {len(missing)} of {len(want)} tensors would stay "
                f"random ({missing[0]}, ...). Is it of the same resolution and configuration?"
            )
        result = original(src_module, dst_module, require_all)
        if is_generator:
            print(f"squeeze_patch: restored {len(want)} of {len(want)} parameters and buffers of a squeezed generator")
        return result

    checked.squeeze_patch = True  # type: ignore[attr-defined]
    misc.copy_params_and_buffers = checked


def _tensors(module: torch.nn.Module) -> Any:
    return [*module.named_parameters(), *module.named_buffers()]


def _bridge_torch() -> None:
    """What torch did when these hosts were written, and they rely on."""
    _accept_data_source()
    _broadcast_buffers()
    _keep_extensions()


def _accept_data_source() -> None:
    """Hosts of 2020 to 2022 pass their data set to Sampler.__init__, which current torch no longer has."""
    sampler: Any = torch.utils.data.Sampler
    if "__init__" not in vars(sampler):
        sampler.__init__ = lambda self, data_source=None: None


def _broadcast_buffers() -> None:
    """Older torch copied rank 0's buffers to all ranks when DistributedDataParallel was made, also with
    ``broadcast_buffers=False``; hosts rely on it (noise_const, w_avg). Do so."""
    wrapper: Any = torch.nn.parallel.DistributedDataParallel
    if getattr(wrapper.__init__, "squeeze_patch", False):
        return
    original = wrapper.__init__

    def with_equal_buffers(self: Any, module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)
        original(self, module, *args, **kwargs)

    with_equal_buffers.squeeze_patch = True  # type: ignore[attr-defined]
    wrapper.__init__ = with_equal_buffers


def _keep_extensions() -> None:
    """Extensions that torch compiled could be imported by name afterwards, as long as it came with pybind11 2; hosts
    import their CUDA kernels so, and fall back to far slower operations, at each call anew, where that fails."""
    try:
        cpp_extension: Any = importlib.import_module("torch.utils.cpp_extension")
    except ImportError:  # it needs setuptools; so do hosts that compile kernels
        return
    original = cpp_extension.load
    if getattr(original, "squeeze_patch", False):
        return

    @functools.wraps(original)
    def load(name: str, *args: Any, **kwargs: Any) -> Any:
        module = original(name, *args, **kwargs)
        if isinstance(module, ModuleType):  # else a path
            sys.modules.setdefault(name, module)
        return module

    load.squeeze_patch = True  # type: ignore[attr-defined]
    cpp_extension.load = load

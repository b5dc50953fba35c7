"""How lucidrains' command, stylegan2_pytorch, builds and resumes generators.

The command builds a Trainer in every process, and that the training wrapper StyleGAN2, which makes the optimisers; then
the Trainer loads models/NAME/model_N.pt, the last one where nobody says which. So the wrapper is squeezed when it has
been built, and what the Trainer loads is a squeezed file. What a run begins with is decided once, in the first process,
and handed to the others by the environment. What the Trainer saves gets the Plan beside it: how many channels a
narrowed block had is in no shape.
"""

from __future__ import annotations

import filecmp
import functools
import importlib
import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

import torch

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.bodies import PLAN_ENTRY
from squeeze_patch.checkpoints.load import load as load_file
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.errors import StateError
from squeeze_patch.surgery.status import status
from squeeze_patch.training.common import PrepareStart, RunStart, first_steps, squeeze_new, try_new
from squeeze_patch.training.saving import torch_with

PACKAGE = "stylegan2_pytorch"
#: {"request": as of `Request.to_dict`, "checkpoint": file to begin with or None, "resume": does the Trainer load it?}
VARIABLE = "SQUEEZE_PATCH_LUCIDRAINS"


class LucidrainsScripts:
    """The role of scripts: the host's command."""

    def hook_training(self, module: Any, prepare: PrepareStart) -> bool:
        if module.__name__ != PACKAGE:
            return False
        _hook_command(module, prepare)
        return True

    def hook_generators(self, folder: Path, squeeze: Callable[[torch.nn.Module], Any]) -> bool:
        return False  # the command is all that there is


def _hook_command(module: Any, prepare: PrepareStart) -> None:
    """Squeeze what the command builds; ``module`` is the host's package, whose ``main`` becomes the command."""
    cli: Any = importlib.import_module(f"{PACKAGE}.cli")
    command = cli.train_from_folder

    @functools.wraps(command)  # the command line is made from the signature
    def train_squeezed(*args: Any, **options: Any) -> Any:
        bound = inspect.signature(command).bind(*args, **options)
        bound.apply_defaults()
        chosen = bound.arguments
        path = None if chosen["new"] else stored_model(chosen)
        start = prepare(None if path is None else str(path))
        if start.request is None:
            return command(*args, **options)
        _try(chosen, start)
        if path is not None and start.checkpoint != str(path):
            keep_dense(path)
        job = {"request": start.request.to_dict(), "checkpoint": start.checkpoint, "resume": path is not None}
        os.environ[VARIABLE] = json.dumps(job)
        cli.squeeze_patch_original = cli.run_training
        cli.run_training = run_training  # spawned processes find it by its name
        hook_classes()
        return command(*args, **options)

    cli.train_from_folder = train_squeezed
    module.main = cli.main


def run_training(*arguments: Any) -> Any:
    """One training process: the host's own function, with its classes hooked."""
    cli = importlib.import_module(f"{PACKAGE}.cli")
    hook_classes()
    options = next((value for value in arguments if isinstance(value, dict)), {})
    name = str(options.get("name", ""))
    with first_steps(*(Path(options[key]) / name for key in ("results_dir", "models_dir") if key in options)):
        return getattr(cli, "squeeze_patch_original", cli.run_training)(*arguments)


def _try(options: Mapping[str, Any], start: RunStart) -> None:
    """Raise `SqueezeError` where a new moving average as the wrapper will build it cannot be squeezed. Of a name that
    is there already, its stored settings count; of an unusual fmap_max, the host makes an average of another size."""
    networks: Any = importlib.import_module(f"{PACKAGE}.{PACKAGE}")
    usual = {name: parameter.default for name, parameter in inspect.signature(networks.StyleGAN2).parameters.items()}
    is_there = (Path(options["models_dir"]) / str(options["name"])).exists() and not options["new"]
    if is_there or options["fmap_max"] != usual["fmap_max"]:
        return
    names = ("image_size", "network_capacity", "transparent", "attn_layers", "no_const")
    try:
        with torch.random.fork_rng(devices=[]):
            S = networks.StyleVectorizer(usual["latent_dim"], usual["style_depth"], lr_mul=options["lr_mlp"])
            G = networks.Generator(latent_dim=usual["latent_dim"], **{name: options[name] for name in names})
    except Exception:  # settings that the host refuses, or understands in another way; its own wrapper tells
        return
    try_new(torch.nn.ModuleDict({"S": S, "G": G}), start)


def stored_model(options: Mapping[str, Any]) -> Optional[Path]:
    """The file that the command would go on from, None where there is none."""
    folder = Path(options["models_dir"]) / str(options["name"])
    if options["load_from"] != -1:
        return folder / f"model_{options['load_from']}.pt"
    numbers = [int(path.stem.split("_")[1]) for path in folder.glob("model_*.pt")]
    return folder / f"model_{max(numbers)}.pt" if numbers else None


def keep_dense(path: Path) -> None:
    """Copy a dense model to where the host neither looks for models nor writes one, as it may save a squeezed one under
    the same number.

    Raises:
        StateError: another file is there already.
    """
    copy = path.with_name(f"dense_{path.name}")
    if not copy.exists():
        with open(path, "rb") as source, atomic_write(copy) as stream:
            shutil.copyfileobj(source, stream)
    elif not filecmp.cmp(path, copy, shallow=False):
        raise StateError(f"{copy}: there is another dense model here, which {path.name} would replace; move it away")
    print(f"squeeze_patch: the dense model is kept as {copy}")


def hook_classes() -> None:
    """Once a process: the wrapper squeezes itself when built, the Trainer loads the job's file, and saves the Plan."""
    networks = importlib.import_module(f"{PACKAGE}.{PACKAGE}")
    if getattr(networks.StyleGAN2, "squeeze_patch", False):
        return
    job = json.loads(os.environ[VARIABLE])
    build, load, save = networks.StyleGAN2.__init__, networks.Trainer.load, networks.Trainer.save

    @functools.wraps(build)
    def build_squeezed(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        squeeze_new(self, job["request"], record=job["checkpoint"] is not None)
        print(f"squeeze_patch: {status(self)}")
        if job["checkpoint"] and not job["resume"]:
            load_file(self, job["checkpoint"])
            _say_restored(self)

    @functools.wraps(load)
    def load_squeezed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not job["resume"]:
            with torch_with("load", _load):
                return load(self, *args, **kwargs)
        self.model_name = lambda number: job["checkpoint"]
        try:
            with torch_with("load", _load):
                result = load(self, *args, **kwargs)
        finally:
            del self.model_name
        job.update(resume=False, checkpoint=None)  # from now on it loads what it saved itself
        _say_restored(self.GAN)
        return result

    @functools.wraps(save)
    def save_squeezed(self: Any, *args: Any, **kwargs: Any) -> Any:
        plan = status(self.GAN).plan
        more = {} if plan is None else {PLAN_ENTRY: plan.to_dict()}
        write = torch.save
        with torch_with("save", lambda data, target: write({**data, **more}, target)):
            return save(self, *args, **kwargs)

    networks.StyleGAN2.__init__ = build_squeezed
    networks.Trainer.load, networks.Trainer.save = load_squeezed, save_squeezed
    networks.StyleGAN2.squeeze_patch = True


def _load(source: Any, **_options: Any) -> Any:
    """The host's torch.load asks for weights only; a Plan has floats, which that of torch 1.13 refuses."""
    return load_tensors(Path(source))


def _say_restored(wrapper: torch.nn.Module) -> None:
    count = len(wrapper.state_dict())
    print(f"squeeze_patch: restored {count} of {count} parameters and buffers of the squeezed generators and the rest")

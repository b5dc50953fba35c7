"""The generators that are checked, made as the configuration says."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters import locate, reference_name, role_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.addresses import is_url
from squeeze_patch.checkpoints.checksums import check_sum, sha256_of
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.generators import generators, load_generator
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.load import load
from squeeze_patch.checkpoints.pickles import host_path, is_checkout
from squeeze_patch.checkpoints.state_dicts import Archive
from squeeze_patch.checks.config import CheckConfig, Recipe
from squeeze_patch.errors import TRUST_CURE, CheckpointError, ConfigError, MeasurementError, UnsupportedModelError
from squeeze_patch.evaluation.devices import device_named
from squeeze_patch.precision import precision_stays
from squeeze_patch.process_settings import random_from
from squeeze_patch.surgery.status import status

#: {option of a command: the same in the configuration}
_SETTINGS = {
    TRUST_CURE: 'say so with trust = true, and name the host\'s checkout with host = "DIR"',
    "--host DIR": 'host = "DIR"',
    "--host": "host",
    "--trust": "trust = true",
    "with trust=True": "with trust = true",
    "--key": "key",
    "--device cpu": 'device = "cpu"',
}
#: factories that draw their weights draw the same ones every time
SEED = 0


@dataclass(frozen=True)
class Subject:
    """A generator that is checked.

    Attributes:
        name: "" = the only one.
        root: what the factory returned, or the file holds.
        located: where no adapter knows it, None.
        trouble: why none does, else "".
    """

    name: str
    root: torch.nn.Module
    located: Optional[Located]
    trouble: str = ""

    @property
    def found(self) -> Located:
        """Raises `UnsupportedModelError` where no adapter knows the generator."""
        if self.located is None:
            raise UnsupportedModelError(self.trouble)
        return self.located


@contextlib.contextmanager
def importable(config: CheckConfig) -> Iterator[None]:
    """The modules of the repository, and of the hosts that the configuration names, for the length of a block. What the
    repository's own modules add to the path stays there, as they do themselves.

    Raises:
        ConfigError: a host's folder is not there, or is none that the files need.
    """
    checkouts, plain = _hosts(config)
    own = [path for path in [str(config.folder)] if path not in sys.path]
    sys.path[:0] = own
    behind = sys.path.index(str(config.folder)) + 1  # what the repository has of its own comes first
    sys.path[behind:behind] = plain
    try:
        with contextlib.ExitStack() as stack:
            for where, folder in checkouts:
                try:
                    stack.enter_context(host_path(folder))
                except CheckpointError as error:
                    raise ConfigError(f"{where} host: {_in_words_of_files(str(error))}") from error
            yield
    finally:
        for path in [*own, *plain]:
            with contextlib.suppress(ValueError):  # somebody has taken it away
                sys.path.remove(path)


def _hosts(config: CheckConfig) -> Tuple[List[Tuple[str, Path]], List[str]]:
    """The hosts that pickles need, with where they are named; and those of factories, of families whose files need no
    module of theirs, as entries for the path."""
    checkouts: List[Tuple[str, Path]] = []
    plain: List[str] = []
    for where, source in {"[generator]": config.generator, "[dense]": config.dense}.items():
        if source is None or not source.host:
            continue
        folder = config.folder / source.host
        if not folder.is_dir():
            raise ConfigError(f"{where} host: {folder}: there is no such folder")
        if not source.factory or is_checkout(folder):
            checkouts.append((where, folder))
        elif str(folder.resolve()) not in (*sys.path, *plain):
            plain.append(str(folder.resolve()))
    return checkouts, plain


def make_subjects(config: CheckConfig) -> Dict[str, Subject]:
    """{name: generator}, the reference (the moving average, or the only one) first, in evaluation mode; made anew at
    every call.

    Raises:
        ConfigError: the factory is not there, or returns no generators; `CheckpointError` of a file.
    """
    found = _make(config, config.generator, "[generator]")
    first = reference_name(found)
    ordered = {first: found[first], **found}
    return {name: _subject(name, G) for name, G in ordered.items()}


def make_dense(config: CheckConfig, like: Subject) -> Optional[torch.nn.Module]:
    """The trained dense generator that ``like`` came from, None where the configuration names none."""
    if config.dense is None:
        return None
    found = _make(config, config.dense, "[dense]")
    alike = [name for name in found if name == like.name or (role_of(name) and role_of(name) == role_of(like.name))]
    dense = found[alike[0] if alike else reference_name(found)]
    now = status(dense)
    if now.state != "dense":
        raise ConfigError(f"[dense] makes a generator that is {now}; it has to be the one before squeezing")
    return dense


def _make(config: CheckConfig, source: Recipe, where: str) -> Dict[str, torch.nn.Module]:
    try:
        device = device_named(config.device)
    except MeasurementError as error:
        raise ConfigError(_in_words_of_files(str(error))) from error
    with random_from(SEED, cuda=device.type == "cuda"), contextlib.ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())  # a factory may go elsewhere, and paths that were given count from here
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())  # it may be called within a check
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        stack.enter_context(precision_stays())
        try:
            made = _from_factory(config, source, where) if source.factory else _from_file(config, source)
        except CheckpointError as error:
            raise ConfigError(f"{where} checkpoint: {_in_words_of_files(str(error))}") from error
        except SystemExit as error:  # the run would end here, with 0 as if all held
            raise ConfigError(
                f"{where} {source.factory or source.checkpoint} ends the process (SystemExit: {error}); what a module "
                'does as a program belongs under if __name__ == "__main__"'
            ) from error
        except BaseException as error:  # as pytest.skip raises, which would pass for a check that is skipped
            if isinstance(error, (Exception, KeyboardInterrupt)) or type(error).__module__.startswith("squeeze_patch"):
                raise
            name = source.factory or source.checkpoint
            raise ConfigError(f"{where} {name} stops with {type(error).__name__}: {error}") from error
    return {name: G.to(device).eval() for name, G in made.items()}


def _in_words_of_files(message: str) -> str:
    """A message that names options of commands, as the configuration has them."""
    for option, setting in _SETTINGS.items():
        message = message.replace(option, setting)
    return message


def _from_factory(config: CheckConfig, source: Recipe, where: str) -> Dict[str, torch.nn.Module]:
    factory = source.factory if callable(source.factory) else _function(source.factory, where)
    name = source.factory if isinstance(source.factory, str) else getattr(factory, "__name__", "")
    try:
        made = factory()
    except Exception as error:  # of the repository's code
        raise ConfigError(f"{where} factory {name} stops with {type(error).__name__}: {error}") from error
    several = made if isinstance(made, Mapping) else {"": made}
    wrong = [type(value).__name__ for value in several.values() if not isinstance(value, torch.nn.Module)]
    if wrong or not several:
        raise ConfigError(
            f"{where} factory {name} returned {wrong[0] if wrong else 'an empty dict'}; it has to return a generator "
            '(torch.nn.Module), or a dict of some: {"G": ..., "G_ema": ...}'
        )
    if source.checkpoint:
        path = _file_of(config, source)
        for name, G in several.items():
            load(G, path, entry=name or source.key or None, trust=source.trust)
    return {str(name): G for name, G in several.items()}


def _function(name: str, where: str) -> Any:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{where} factory {name}: {error}. Modules are looked for in the folder of the configuration and among "
            "what is installed"
        ) from error
    except Exception as error:  # of the repository's code, whose modules do what they like when they are imported
        raise ConfigError(f"{where} factory {name}: importing it stops with {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{where} factory {name} is a {type(found).__name__}, no function")
    return found


def _from_file(config: CheckConfig, source: Recipe) -> Dict[str, torch.nn.Module]:
    path = _file_of(config, source)
    if source.key:
        return {source.key: load_generator(path, source.key, trust=source.trust)}
    found = generators(read(path, trust=source.trust))
    if not found:
        return {"": load_generator(path, trust=source.trust)}
    return {name: one.root for name, one in found.items()}


def _file_of(config: CheckConfig, source: Recipe) -> Path:
    """The checkpoint as a file here; raises `CheckpointError` where it is not to be had."""
    if is_url(source.checkpoint):
        return _download(source.checkpoint, source.sha256 or None)
    path = config.folder / source.checkpoint
    if source.sha256 and path.is_file():
        check_sum(sha256_of(path), source.sha256.lower(), str(path))
    return path


@functools.cache
def _download(address: str, sha256: Optional[str]) -> Path:
    """Once a process: generators are made anew many times, and have to be of one file."""
    return fetch(address, sha256=sha256)


def _subject(name: str, G: torch.nn.Module) -> Subject:
    try:
        return Subject(name, G, locate(G))
    except UnsupportedModelError as error:
        return Subject(name, G, None, str(error))


def tensors_of(root: torch.nn.Module) -> Dict[str, torch.Tensor]:
    """The tensors of its state dict, which may hold other things beside them (`get_extra_state`)."""
    return {name: value for name, value in root.state_dict().items() if isinstance(value, torch.Tensor)}


def kinds_of(root: torch.nn.Module) -> Dict[str, str]:
    """{tensor of its state dict: "parameter", "frozen" (one that takes no gradient) or "buffer"}."""
    learned = {
        f"{prefix}.{name}" if prefix else name: "parameter" if parameter.requires_grad else "frozen"
        for prefix, module in root.named_modules(remove_duplicate=False)  # of named_parameters since torch 2.0 only
        for name, parameter in module._parameters.items()
        if parameter is not None
    }
    return {name: learned.get(name, "buffer") for name in tensors_of(root)}


def code_is_checked(config: CheckConfig) -> bool:
    """Whether the repository's own classes run: a file that is read without trust runs as classes of ours."""
    return bool(config.generator.factory) or config.generator.trust


def is_of_states(config: CheckConfig, subject: Subject) -> bool:
    """Whether the generator was made of a file's tensors alone, and so is of a class of ours, trusted or not."""
    source = config.generator
    if source.factory or type(subject.root).__module__.split(".")[0] != "squeeze_patch":
        return False
    return isinstance(read(_file_of(config, source), trust=False), Archive)


def relative_to(config: CheckConfig, path: Path) -> str:
    """A path as the repository would say it, with slashes."""
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(config.folder).as_posix()
    return str(path)

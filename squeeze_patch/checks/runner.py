"""check: the checks of a configuration, one after the other; record: what later runs are held against."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, Union

import torch

from squeeze_patch.checks import (
    copy_checks,
    cost_checks,
    export_checks,
    parity_checks,
    structure_checks,
    training_checks,
)
from squeeze_patch.checks.answers import RECORD, Answer, Context, Run
from squeeze_patch.checks.baseline import Baseline, read_baseline, versions
from squeeze_patch.checks.catalogue import BY_NAME, Check
from squeeze_patch.checks.config import CheckConfig, find_config, read_config
from squeeze_patch.checks.outcome import CheckReport, Outcome
from squeeze_patch.checks.subjects import Subject, importable, make_subjects, relative_to
from squeeze_patch.errors import ConfigError, SqueezeError
from squeeze_patch.progress import Progress, own_settings

RUNS: Mapping[str, Run] = {
    "state": structure_checks.state,
    "reduction": structure_checks.reduction,
    "names": structure_checks.names,
    "weights": structure_checks.weights,
    "channel_order": structure_checks.channel_order,
    "reproducible": parity_checks.reproducible,
    "finite": parity_checks.finite,
    "images": parity_checks.images,
    "features": parity_checks.features,
    "constants": parity_checks.constants,
    "fidelity": parity_checks.fidelity,
    "gradients": training_checks.gradients,
    "second_derivatives": training_checks.second_derivatives,
    "step": training_checks.step,
    "average": training_checks.average,
    "deepcopy": copy_checks.deepcopy,
    "state_dict": copy_checks.state_dict,
    "pickle": copy_checks.pickled,
    "without_squeeze_patch": copy_checks.without_squeeze_patch,
    "multiply_adds": cost_checks.multiply_adds,
    "latency": cost_checks.latency,
    "memory": cost_checks.memory,
    "onnx": export_checks.onnx,
    "compile": export_checks.compiled,
}
#: these look at tensors only; all others need a generator that an adapter knows
_OF_ANY_MODULE = ("names", "weights")
ConfigLike = Union[str, Path, CheckConfig, Callable[[], Any], None]


def check(
    config: ConfigLike = None,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    progress: Optional[Progress] = None,
) -> CheckReport:
    """Run the checks of a configuration.

    Args:
        config: a ``squeeze.toml`` or ``pyproject.toml``; None = the one in this folder or the nearest above it; or a
            function that makes the generator, for the checks that need no more.
        only: names or groups of checks; default: those that the configuration has.
        skip: names or groups of checks to leave out.
        progress: called with (check, done, in all).

    Returns:
        What was found; checks that fall short do not raise.

    Raises:
        ConfigError: the configuration or the baseline cannot be used, or the factory makes no generator.
        CheckpointError: of a file that the configuration names.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> def generator():
        ...     return squeeze_patch.apply(trained_generator(), ratio=2, init="weights")
        >>> report = squeeze_patch.check(generator, only=["structure", "gradients"])
        >>> report.holds
        True
        >>> report.outcomes[0].message
        '4 of 4 blocks squeezed, as planned'
    """
    found = configured(config, only, skip)
    with running(found, progress) as session:
        return session.run()


def configured(config: ConfigLike, only: Sequence[str] = (), skip: Sequence[str] = ()) -> CheckConfig:
    """The configuration that is meant."""
    if callable(config):
        config = CheckConfig.of(config)
    elif not isinstance(config, CheckConfig):
        config = read_config(os.path.relpath(find_config(Path.cwd())) if config is None else config)
    return config.only(only, skip)


class running:
    """The generators of a configuration for the length of a block: a `CheckSession`. They are made in the first block;
    further blocks of the same `running` have the same ones. Between blocks, modules are looked for where they were
    before, and torch has its threads back."""

    def __init__(self, config: CheckConfig, progress: Optional[Progress] = None, *, recording: bool = False) -> None:
        self.config, self.progress = config, progress or (lambda what, done, total: None)
        self.recording = recording  # a baseline that cannot be read is about to be written anew
        self.session: Optional[CheckSession] = None
        self.block = contextlib.ExitStack()

    def __enter__(self) -> CheckSession:
        baseline = self._baseline() if self.session is None else None
        with contextlib.ExitStack() as block:
            block.enter_context(importable(self.config))
            block.callback(torch.set_num_threads, torch.get_num_threads())
            if self.config.threads:
                torch.set_num_threads(self.config.threads)
            if self.session is None:
                self.session = CheckSession(Context(self.config, baseline, make_subjects(self.config), self.progress))
            self.block = block.pop_all()
        return self.session

    def __exit__(self, *_: Any) -> None:
        self.block.close()

    def _baseline(self) -> Optional[Baseline]:
        try:
            return read_baseline(self.config.baseline)
        except ConfigError:
            if not self.recording:
                raise
            return None


@dataclass(frozen=True)
class CheckSession:
    """Generators at hand, and the checks to run on them."""

    context: Context

    def jobs(self) -> List[Tuple[Check, str]]:
        """(check, name of a generator) of everything that is to run; of checks of all together, the reference's."""
        subjects = list(self.context.subjects)
        names = {name: BY_NAME[name] for name in self.context.config.checks}
        return [(one, name) for one in names.values() for name in (subjects if one.per_generator else subjects[:1])]

    def run(self) -> CheckReport:
        """Run everything; `ConfigError` where that is nothing: a green answer would say nothing."""
        if not self.jobs():
            raise ConfigError(
                f"{self.context.config.path}: no check is left to run; turn some on in [checks], or skip fewer"
            )
        return self.report([self.outcome(*one) for one in self.jobs()])

    def outcomes(self, name: str, generator: Optional[str] = None, others: bool = False) -> List[Outcome]:
        """Run the check of that name.

        Args:
            generator: on this one alone; None = on all of them.
            others: on those that the baseline does not have, too.

        Raises:
            ConfigError: there is no such generator.
        """
        subjects, baseline = self.context.subjects, self.context.baseline
        jobs = [job for job in self.jobs() if job[0].name == name]
        if generator is not None:
            if generator not in subjects:
                raise ConfigError(
                    f"the configuration makes no generator {generator!r}, which is recorded, but "
                    f"{', '.join(map(repr, subjects))}; where it is meant so, {RECORD}"
                )
            recorded = {} if baseline is None else baseline.generators
            jobs = [job for job in jobs if job[1] == generator or (others and job[1] not in recorded)]
        return [self.outcome(*job) for job in jobs]

    @own_settings()
    def outcome(self, check: Check, name: str) -> Outcome:
        """Run one; what it raises is an outcome, too."""
        subject = self.context.subjects[name]
        start = time.perf_counter()
        if subject.located is None and check.name not in _OF_ANY_MODULE:
            found = _not_a_generator(check, subject)
        else:
            found = _ran(check, subject, self.context)
        return Outcome(
            check.name,
            check.group,
            found.state,
            found.found,
            found.wanted,
            name if check.per_generator and len(self.context.subjects) > 1 else "",
            found.place,
            found.cure,
            time.perf_counter() - start,
            found.figures,
            found.picture,
        )

    def report(self, outcomes: Sequence[Outcome]) -> CheckReport:
        """Of these outcomes."""
        config = self.context.config
        baseline = relative_to(config, config.baseline) if self.context.baseline is not None else ""
        return CheckReport(tuple(outcomes), str(config.path), baseline, versions())


def _not_a_generator(check: Check, subject: Subject) -> Answer:
    if check.name == "state":
        return Answer("short", subject.trouble, wanted="a squeezed generator")
    return Answer("skipped", "this is no generator that is known; see state")


def _ran(check: Check, subject: Subject, context: Context) -> Answer:
    try:
        with torch.inference_mode(False), torch.enable_grad():  # what is for inference may have turned them off
            return RUNS[check.name](subject, context, context.config.checks[check.name])
    except (SqueezeError, OSError) as error:
        return Answer("unknown", f"{type(error).__name__}: {error}")
    except (Exception, SystemExit) as error:  # whatever the repository's code brings about
        words, cure = f"it stops with {type(error).__name__}: {error}", _cure(subject)
        return Answer("short", words, wanted="a generator that runs", cure=cure)


def _cure(subject: Subject) -> str:
    """Of a generator that does not run: whether it is in another dtype than the latents."""
    dtypes = {p.dtype for p in subject.root.parameters() if p.is_floating_point()} - {torch.float32}
    names = ", ".join(sorted(str(dtype).replace("torch.", "") for dtype in dtypes))
    return f"its parameters are {names}, and latents float32: let the factory return G.float()" if names else ""

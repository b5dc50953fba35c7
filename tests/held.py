"""A small recorded generator, and what checks answer of it with other records and other settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

import squeeze_patch
from squeeze_patch.checks import cost_checks
from squeeze_patch.checks.answers import Answer, Context
from squeeze_patch.checks.baseline import Baseline, Recorded
from squeeze_patch.checks.catalogue import BY_NAME
from squeeze_patch.checks.config import CheckConfig
from squeeze_patch.checks.recording import record
from squeeze_patch.checks.runner import RUNS, check
from squeeze_patch.checks.subjects import Subject, make_subjects
from squeeze_patch.demo.network import Generator
from squeeze_patch.testing import trained


def dense(seed: int = 0) -> Any:
    """16x16; the same one at every call."""
    torch.manual_seed(seed)
    widths = {"channel_base": 256, "channel_max": 16}
    return trained(Generator(8, 0, 8, 16, 3, mapping_kwargs={"num_layers": 1}, synthesis_kwargs=widths), seed)


def small(seed: int = 0) -> Any:
    return squeeze_patch.apply(dense(seed), ratio=2, init="weights", keep_original=False, verify=False)


@dataclass(frozen=True)
class Held:
    """A recorded generator, and what it is asked."""

    subject: Subject
    context: Context

    @property
    def recorded(self) -> Recorded:
        assert self.context.baseline is not None
        return self.context.baseline.generators[""]

    def asked(self, name: str, recorded: Any = None, **settings: Any) -> Answer:
        """What a check answers with another record (False = none), and other settings than the defaults."""
        before = None if recorded is False else Baseline({"": recorded or self.recorded}, {})
        context = replace(self.context, baseline=before)
        return RUNS[name](self.subject, context, {**BY_NAME[name].settings, **settings})


def make_held(folder: Path) -> Held:
    """`small`, recorded in a folder."""
    files = {"path": folder / "squeeze.toml", "baseline": folder / "b.json", "pictures": folder / "pictures"}
    config = replace(CheckConfig.of(small), **files)
    config.path.write_text("")
    with pytest.MonkeyPatch.context() as patch:  # to measure them takes long
        patch.setattr(cost_checks, "measured_ratios", lambda *_: {"latency": 0.8, "memory": 0.5})
        baseline = record(config)
    subjects = make_subjects(config)
    return Held(subjects[""], Context(config, baseline, subjects, lambda what, done, total: None))


def found(factory: Callable[[], Any], name: str, **settings: Any) -> Any:
    """The outcome of a check without a record."""
    config = CheckConfig.of(factory)
    return check(replace(config, checks={name: {**BY_NAME[name].settings, **settings}})).outcomes[0]

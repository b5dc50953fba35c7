"""record: what later checks are held against."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Callable, Dict, Iterator, Optional

from squeeze_patch.checks import cost_checks, parity_checks
from squeeze_patch.checks.answers import Answer, Context
from squeeze_patch.checks.baseline import (
    Baseline,
    Recorded,
    TensorRecord,
    check_target,
    pixels_of,
    shown,
    versions,
)
from squeeze_patch.checks.catalogue import BY_NAME
from squeeze_patch.checks.probes import probe
from squeeze_patch.checks.runner import RUNS, CheckSession, ConfigLike, configured, running
from squeeze_patch.checks.subjects import Subject, kinds_of, tensors_of
from squeeze_patch.checks.tracing import CALLS
from squeeze_patch.errors import ConfigError
from squeeze_patch.planning.cost import report
from squeeze_patch.progress import Progress, own_settings
from squeeze_patch.surgery.status import status_of_part

#: checks that say what a new baseline changes
COMPARED = ("state", "reduction", "names", "weights", "images", "features", "constants", "multiply_adds")
#: of a record in a job of a CI, which has it pass whatever has become of the generator
IN_CI = (
    "this seems to be a CI (CI is set): what is recorded there is held against nothing, and a regression would pass. "
    "Leave the recording out, and commit a baseline that was recorded elsewhere, or here and looked at"
)


@own_settings()
def record(
    config: ConfigLike = None,
    *,
    progress: Optional[Progress] = None,
    changed: Callable[[str], None] = lambda line: None,
) -> Baseline:
    """Write the baseline: what the generators of a configuration are now.

    Args:
        config: as for `check`.
        progress: called with (what, done, in all).
        changed: called with a line for everything that is another than in the baseline that is overwritten.

    Raises:
        ConfigError: a generator is not squeezed, not finite or not reproducible: nothing to hold later ones against;
            the earlier baseline stays. Or the file is no baseline, which stays, too.
    """
    found = configured(config)
    check_target(found.baseline)
    with running(found, progress, recording=True) as session:
        context = session.context
        for line in _changes(session):
            changed(line)
        for subject in context.subjects.values():
            _refuse(subject, context)
        generators = {name: _recorded(subject, context) for name, subject in context.subjects.items()}
    baseline = Baseline(generators, versions())
    found.baseline.parent.mkdir(parents=True, exist_ok=True)
    baseline.write(found.baseline)
    return baseline


def _changes(session: CheckSession) -> Iterator[str]:
    """What is another than in the baseline, a line each."""
    if session.context.baseline is None:
        return
    for check, name in session.jobs():
        if check.name in COMPARED:
            outcome = session.outcome(check, name)
            if outcome.state != "holds":
                yield f"{outcome.name}: {f'{outcome.place}: ' if outcome.place else ''}{outcome.found}"


def _refuse(subject: Subject, context: Context) -> None:
    """Raise where a generator cannot be a baseline."""
    settings = {"samples": 0, "styles": 10_000}
    without = replace(context, baseline=None)  # what was run is not run again
    for name in ("state", "finite", "reproducible"):
        answer = Answer("short", subject.trouble) if subject.located is None else None
        if answer is None:
            answer = RUNS[name](subject, without, settings)
        if answer.state != "holds":
            where = f" ({answer.place})" if answer.place else ""
            raise ConfigError(
                f"{subject.name or 'the generator'} cannot be recorded: {name}: {answer.found}{where}"
                + (f"; {answer.cure}" if answer.cure else "")
            )


def _recorded(subject: Subject, context: Context) -> Recorded:
    found, trace = subject.found, context.trace(subject)
    now = status_of_part(found)
    assert now.plan is not None
    dense = context.trained_dense(subject)
    fidelity: Dict[str, float] = {}
    if dense is not None:
        samples = int(context.config.checks.get("fidelity", BY_NAME["fidelity"].settings)["samples"])
        compared = parity_checks.compare_with(dense, subject, samples, context.progress)
        fidelity = {"psnr": compared.psnr, "frechet": compared.frechet.value}
        # of equal images the PSNR is infinite, which JSON does not hold
        fidelity = {name: value for name, value in fidelity.items() if math.isfinite(value)}
    first, kinds = next(iter(CALLS)), kinds_of(subject.root)
    return Recorded(
        family=now.family,
        class_name=type(subject.root).__name__,
        plan=now.plan,
        parameters=now.parameters_after,
        multiply_adds=report(found).multiply_adds_after,
        tensors={name: TensorRecord.of(tensor, kinds[name]) for name, tensor in tensors_of(subject.root).items()},
        images=pixels_of(trace),
        pictures={first: shown(trace.images[first])},
        features=trace.features,
        answers=trace.answers,
        ratios=cost_checks.measured_ratios(subject, context),
        fidelity=fidelity,
        probes=probe(found),
    )

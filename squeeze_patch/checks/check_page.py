"""What checks found as a page: tables, how far features are from the recorded ones, and the images."""

from __future__ import annotations

import io
from typing import Any, Dict, List

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squeeze_patch.adapters import locate
from squeeze_patch.checks.answers import Context
from squeeze_patch.checks.baseline import Recorded, shown
from squeeze_patch.checks.outcome import CheckReport, Outcome, plain
from squeeze_patch.checks.runner import CheckSession
from squeeze_patch.checks.subjects import Subject
from squeeze_patch.checks.tracing import CALLS, trace
from squeeze_patch.progress import own_settings
from squeeze_patch.reporting.page import Curve, Pictures, Row, Section, Table, page

STATE = ("holds", "short", "unknown")  # by exit code


@own_settings()
def check_page(report: CheckReport, session: CheckSession) -> str:
    """An HTML document, as of `reporting.page.page`.

    Args:
        report: what ``session`` found.
        session: its generators are run once more where no check has.
    """
    context = session.context
    of = f"{report.config}, baseline: {report.baseline or 'none'}"
    sections: List[Section] = []
    for group in dict.fromkeys(outcome.group for outcome in report.outcomes):
        rows = [_row(outcome) for outcome in report.outcomes if outcome.group == group]
        sections.append(Table(group.capitalize(), rows, ("check", "found", "wanted")))
    for subject in context.subjects.values():
        sections += _looks(subject, context)
    return page(
        "squeeze-patch check",
        Row("Checks", report.summary, plain(of), STATE[report.exit_code]),
        [*sections, *_figures(report), _versions(report, context)],
    )


def _row(outcome: Outcome) -> Row:
    found = f"{outcome.place}: {outcome.found}" if outcome.place else outcome.found
    asked = outcome.wanted if outcome.state in ("short", "unknown") else ""
    cure = outcome.cure if outcome.state != "holds" else ""
    return Row(outcome.name, plain(found), plain("; ".join(filter(None, (asked, cure)))), outcome.state)


def _looks(subject: Subject, context: Context) -> List[Section]:
    """Features and images of a generator; of one that does not run, nothing: checks say why."""
    try:
        now = context.trace(subject)
    except Exception:  # whatever the repository's code brings about
        return []
    name = f" of {plain(subject.name)}" if subject.name else ""
    recorded = context.recorded(subject)
    call = next(iter(CALLS))
    count = len(now.images[call])
    layers: Dict[str, NDArray[np.uint8]] = {}
    sections: List[Section] = []
    if recorded is not None:
        sections += _features(recorded, now.features, context.tolerance(subject, 0.0), name)
        if call in recorded.pictures:
            layers["recorded"] = _apart(recorded.pictures[call], count)
    layers["now"] = _apart(shown(now.images[call].nan_to_num(0.0)), count)
    try:
        dense = context.trained_dense(subject)
        if dense is not None:
            layers["dense"] = _apart(shown(trace(locate(dense)).images[call]), count)
    except Exception:  # of its repository's code, too
        dense = None
    alike = {key: images for key, images in layers.items() if images.shape == layers["now"].shape}
    left_out = [key for key in layers if key not in alike]
    note = f"Of {count} fixed latents, no larger than the baseline has them."
    note += f" Of another size, and left out: {', '.join(left_out)}." if left_out else ""
    return [Pictures(f"Images{name}", alike, note), *sections]


def _features(recorded: Recorded, features: Any, limit: float, name: str) -> List[Section]:
    """How far the features behind each block are from the recorded ones, relative to their peak."""
    blocks = [block for block in recorded.features if block in features]
    if len(blocks) < 2:
        return []
    points = [
        (
            float(number),
            recorded.features[block].difference(features[block]) / max(recorded.features[block].peak, 1e-30),
        )
        for number, block in enumerate(blocks, 1)
    ]
    series = {"now": points, "float error at most": [(points[0][0], limit), (points[-1][0], limit)]}
    note = f"Blocks in running order: {', '.join(map(plain, blocks))}. Those that are equal bit by bit have no point."
    return [
        Curve(f"Features{name} against the recorded ones", "block", "difference / peak", series, log_y=True, note=note)
    ]


def _figures(report: CheckReport) -> List[Section]:
    rows = [
        (outcome.name, key, f"{value:.6g}" if isinstance(value, float) else plain(str(value)))
        for outcome in report.outcomes
        for key, value in outcome.figures.items()
        if isinstance(value, (int, float, str)) and value != ""
    ]
    return [Table("Figures", rows, ("check", "figure", "value"))] if rows else []


def _versions(report: CheckReport, context: Context) -> Table:
    before = {} if context.baseline is None else context.baseline.versions
    rows = [(name, value, plain(before.get(name, ""))) for name, value in report.versions.items()]
    return Table("Versions", rows, ("of", "now", "when it was recorded"))


def _apart(png: bytes, count: int) -> NDArray[np.uint8]:
    """Images [N, H, W, 3] of a PNG that has the latents' images one beside the other."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB"))
    return np.stack(np.split(pixels, count, axis=1))

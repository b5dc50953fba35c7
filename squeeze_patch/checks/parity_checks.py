"""Whether a generator still makes what it made: images and features of fixed latents."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Mapping, Optional

import torch

from squeeze_patch.checks.answers import RECORD, Answer, Context, holds, not_recorded, short, skipped
from squeeze_patch.checks.baseline import Recorded, pixels_of
from squeeze_patch.checks.fixed_inputs import Amount, Sample, fixed_latents
from squeeze_patch.checks.pictures import failure_picture
from squeeze_patch.checks.probes import probe
from squeeze_patch.checks.subjects import Subject, relative_to
from squeeze_patch.checks.tracing import Trace, in_a_batch, trace
from squeeze_patch.errors import SqueezeError
from squeeze_patch.evaluation.compare import Comparison, compare, default_batch
from squeeze_patch.evaluation.pixels import decibels
from squeeze_patch.progress import Progress
from squeeze_patch.sampling import draw, evaluation

#: images that a check looks at where no number is given: as many as make so many pixels, within these bounds
FINITE, FIDELITY = Amount(2**20, 16, 1000), Amount(2**19, 8, 64)


def reproducible(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """The same images from a second call, from the generator made anew, and in a batch with others."""
    first, again = context.trace(subject), trace(subject.found, seed=1)
    other = context.anew(subject)
    tolerance = context.tolerance(subject, 0.0)
    for what, second in (("a second call", again), ("the generator made anew", trace(other.found))):
        for call, images in first.images.items():
            apart = _furthest(images, second.images.get(call))
            peak = float(images.abs().max())
            if not apart <= tolerance * peak:
                return short(
                    f"{what} makes images that differ by {apart:.2g} ({call})",
                    wanted=f"{tolerance * peak:.1g} at most, which is float error",
                    place=first_apart(first, second, tolerance),
                    cure="seed what the generator or its factory draws",
                )
    call, alone = next(iter(first.images.items()))
    size = default_batch(subject.found.sampler().img_resolution)
    apart = float((alone - in_a_batch(subject.found, size)).abs().max()) if size > len(alone) else 0.0
    limit = tolerance * float(alone.abs().max())
    if not apart <= limit:
        return short(
            f"images of {len(alone)} latents differ by {apart:.2g} where they are among {size} ({call})",
            wanted=f"{limit:.1g} at most, which is float error",
            cure="look for what is done to the whole batch, or from a number of images on",
        )
    return holds("two calls, two generators made, and another batch give the same images")


def finite(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """No NaN and no infinity, in the images of many latents and in the styles of more."""
    found = subject.found
    sampler = found.sampler()
    count = settings["samples"] or FINITE.at(sampler.img_resolution)
    z, c = fixed_latents(sampler, count, seed=1)
    size = default_batch(sampler.img_resolution)
    broken = found.not_finite()
    if broken:
        return short("holds values that are not finite", place=broken)
    with evaluation(found.root):
        for start in range(0, count, size):
            images = draw(sampler, z[start : start + size], c[start : start + size])
            bad = (~images.isfinite()).flatten(1).any(dim=1)
            if bad.any():
                index = start + int(bad.nonzero()[0])
                place = _first_not_finite(subject, z[index : index + 1], c[index : index + 1])
                return short(
                    f"latent {index} of {count} makes an image that is not finite",
                    place=place,
                    wanted="finite images",
                    figures={"latent": index, "seed": 1},
                )
            context.progress("finite", min(start + size, count), count)
    w = found.sample_w(settings["styles"], seed=1) if settings["styles"] else torch.zeros([0])
    if not w.isfinite().all():
        index = int((~w.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        return short(f"style {index} of {len(w)} is not finite", wanted="finite styles", place="the mapping network")
    return holds(f"{count} images and {len(w)} styles are finite", figures={"images": count, "styles": len(w)})


def images(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """The recorded images, up to float error."""
    recorded = context.recorded(subject)
    if recorded is None:
        return not_recorded(context)
    now = context.trace(subject)
    samples = pixels_of(now)
    share = context.tolerance(subject, settings["tolerance"])
    worst, lowest = 0.0, math.inf
    for call, before in recorded.images.items():
        sample = samples.get(call)
        if sample is None or sample.shape != before.shape:
            got = "it makes no images" if sample is None else f"images are {list(sample.shape)}"
            return short(f"{got} ({call})", wanted=str(list(before.shape)))
        apart, limit = before.difference(sample), share * min(before.peak, sample.peak)
        psnr = decibels(before.squared_error(sample)) if math.isfinite(apart) else -math.inf
        worst, lowest = max(worst, before.apart(sample)), min(lowest, psnr)
        if not apart <= limit:
            return short(
                f"images differ by {apart:.2g} ({_decibels(psnr)}; {call})",
                wanted=f"{limit:.1g} at most: {_why(share, settings['tolerance'])}",
                place=first_apart(now, recorded, share),
                cure=f"where it is meant so, {RECORD}",
                figures={"largest_difference": apart, "limit": limit, "psnr": psnr if math.isfinite(psnr) else None},
                picture=_picture(subject, context, recorded, now, call),
            )
    return holds(
        f"differ by {worst:.1g} of the peak at most ({_decibels(lowest)}); {_why(share, settings['tolerance'])}",
        figures={"relative_difference": worst, "limit": share},
    )


def features(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """The recorded features between blocks, up to float error."""
    recorded = context.recorded(subject)
    if recorded is None:
        return not_recorded(context)
    if not recorded.features:
        return skipped("this family shows no features between blocks")
    now = context.trace(subject)
    share = context.tolerance(subject, settings["tolerance"])
    worst = 0.0
    for block, before in recorded.features.items():
        sample = now.features.get(block)
        if sample is None or sample.shape != before.shape:
            got = "hands on no features" if sample is None else f"hands on features {list(sample.shape)}"
            return short(got, wanted=str(list(before.shape)), place=block)
        apart = before.apart(sample)
        worst = max(worst, apart)
        if not apart <= share:
            inside = first_apart(now, recorded, share)
            return short(
                f"features differ by {apart:.2g} of their peak" + (f", first in {inside}" if inside else ""),
                wanted=f"{share:.1g} at most: {_why(share, settings['tolerance'])}",
                place=block,
                cure=f"where it is meant so, {RECORD}",
                figures={"relative_difference": apart, "limit": share, "first": inside},
            )
    return holds(
        f"{len(recorded.features)} blocks hand on what they did; {worst:.1g} of the peak at most",
        figures={"relative_difference": worst, "limit": share},
    )


def constants(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """The recorded answers at the edges of layers' ranges, up to float error."""
    recorded = context.recorded(subject)
    if recorded is None:
        return not_recorded(context)
    if not recorded.probes:
        return skipped("the baseline was recorded before there was this check", f"{RECORD} adds to it")
    now = probe(subject.found)
    share = context.tolerance(subject, settings["tolerance"])
    worst = 0.0
    for asked, before in recorded.probes.items():
        apart = before.apart(now[asked]) if asked in now else math.inf
        worst = max(worst, apart)
        if not apart <= share:
            return short(
                f"it differs by {apart:.2g} of the peak" if asked in now else "it answers no more",
                wanted=f"{share:.1g} at most: {_why(share, settings['tolerance'])}",
                place=asked,
                cure=f"look for an epsilon, a clamp, or another constant of the code; where it is meant so, {RECORD}",
                figures={"relative_difference": apart, "limit": share},
            )
    return holds(
        f"{len(recorded.probes)} answers at the edges are as recorded; {worst:.1g} of the peak at most",
        figures={"relative_difference": worst, "limit": share},
    )


def fidelity(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """As near to the dense generator's images as was recorded or asked for."""
    dense = context.trained_dense(subject)
    if dense is None:
        return skipped("there is no [dense] generator in the configuration")
    found = compare_with(dense, subject, settings["samples"], context.progress)
    recorded = context.recorded(subject)
    before = recorded.fidelity if recorded else {}
    floor = settings["psnr"] or (before["psnr"] - settings["psnr_margin"] if "psnr" in before else 0.0)
    figures = {"psnr": _finite(found.psnr), "frechet": found.frechet.value, "least_psnr": floor}
    words = f"PSNR {_decibels(found.psnr)}, Fréchet {found.frechet.value:.3g} (random network)"
    if not floor and "frechet" not in before:
        return Answer("skipped", words, cure=f"{RECORD}, or psnr = ... in [checks] fidelity, sets what it is held to")
    peak = max(float(images.abs().max()) for images in context.trace(subject).images.values())
    if found.psnr >= decibels((context.tolerance(subject, 0.0) * peak) ** 2) and not settings["psnr"]:
        return holds(f"{words}, which is float error", figures=figures)  # and another one on every machine
    if found.psnr < floor:
        return short(words, wanted=f"{floor:.1f} dB at least", figures=figures)
    most = before["frechet"] * (1 + settings["frechet_margin"]) if "frechet" in before else math.inf
    if found.frechet.value > most:
        return short(words, wanted=f"Fréchet {most:.3g} at most", figures=figures)
    return holds(words, figures=figures)


def compare_with(dense: torch.nn.Module, subject: Subject, samples: int, progress: Progress) -> Comparison:
    """With the dense generator, on so many latents, or, of 0, as many as is usual for its size."""
    return compare(
        dense, subject.root, samples or FIDELITY.at(subject.found.sampler().img_resolution), progress=progress
    )


def first_apart(now: Trace, before: Any, share: float) -> str:
    """The first layer, in running order, that answers otherwise than before; "" where layers have other names.

    Args:
        before: a `Trace` or a `Recorded`.
    """
    for name, answer in before.answers.items():
        other: Optional[Sample] = now.answers.get(name)
        if other is None:
            continue
        if not answer.apart(other) <= share:
            return name
    return ""


def _first_not_finite(subject: Subject, z: torch.Tensor, c: torch.Tensor) -> str:
    """The first layer that answers with something not finite."""
    seen = []

    def keep(name: str) -> Any:
        def see(_module: Any, _inputs: Any, output: Any) -> None:
            for value in output if isinstance(output, (tuple, list)) else [output]:
                if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
                    seen.append(name)

        return see

    handles = [module.register_forward_hook(keep(name)) for name, module in subject.root.named_modules() if name]
    try:
        with evaluation(subject.root):
            draw(subject.found.sampler(), z, c)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else ""


def _picture(subject: Subject, context: Context, recorded: Recorded, now: Trace, call: str) -> str:
    """Path of a picture of expected, got and difference, "" where the call's images are not among those recorded."""
    safe = re.sub(r"[^\w-]", "_", subject.name)[:50]  # a file's word may be a path
    name = f"images-{safe}.png" if safe else "images.png"
    path = context.config.pictures / name
    if call not in recorded.pictures:
        return ""
    try:
        failure_picture(recorded.pictures[call], now.images[call], path)
    except (SqueezeError, OSError, ValueError) as error:  # that images depart is what counts
        return f"none, {error}"
    return relative_to(context.config, Path(path))


def _furthest(images: torch.Tensor, others: Optional[torch.Tensor]) -> float:
    """Largest difference; inf where there are no others, or of another shape."""
    if others is None or images.shape != others.shape:
        return math.inf
    return float((images - others).abs().max())


def _why(share: float, asked: float) -> str:
    return "as the configuration says" if asked else f"float error is {share:.1g} of the peak at most"


def _decibels(psnr: float) -> str:
    return "equal" if psnr == math.inf else "not finite" if psnr == -math.inf else f"{psnr:.1f} dB"


def _finite(value: float) -> Optional[float]:
    return value if math.isfinite(value) else None

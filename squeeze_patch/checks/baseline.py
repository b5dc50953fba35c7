"""The recorded baseline: what a generator was, in one JSON file that is committed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
from PIL import Image

from squeeze_patch.checkpoints.atomic import atomic_write, refuse_special
from squeeze_patch.checkpoints.targets import check_writable
from squeeze_patch.checks.fixed_inputs import PROJECTIONS, Sample, sketch
from squeeze_patch.checks.tracing import CALLS, PIXELS, Trace
from squeeze_patch.errors import CheckpointError, ConfigError, PlanError
from squeeze_patch.evaluation.grids import strip
from squeeze_patch.planning.plans import Plan, describe_reduction
from squeeze_patch.version import __version__

SCHEMA = 1
#: how every baseline begins, one with marks of a merge or cut off, too, and no other file
BEGIN = re.compile(rb'\s*\{\s*"schema"\s*:')
#: lines by which git marks what it could not merge
MERGED = re.compile(r"^(<{7}|={7}|>{7}|\|{7})( |$)", flags=re.MULTILINE)
UNMIX = (
    "No two can be mixed: take one side's whole (git checkout --ours, or --theirs), and let squeeze-patch check tell "
    "whether it holds"
)
#: longest side of the images that the baseline shows; they are shown, and not compared
SHOWN = 128


#: distance of tensors that differ, and of which no sum tells
LEAST = 2.0**-53
#: what has samples; the last one is not in baselines of before there was such a check
SAMPLES = ("images", "features", "answers", "probes")


@dataclass(frozen=True)
class TensorRecord:
    """A tensor of a state dict: shape, dtype, the SHA-256 of its bytes (64 bits of it), norm, `sketch`; whether it is a
    "parameter", a "frozen" one, which takes no gradient, or a "buffer" ("" = it was not recorded)."""

    shape: Tuple[int, ...]
    dtype: str
    sha256: str
    norm: float
    sums: Tuple[float, ...]
    kind: str = ""

    @classmethod
    def of(cls, tensor: torch.Tensor, kind: str = "") -> TensorRecord:
        held = tensor.detach().cpu().contiguous()
        norm = float(held.double().norm()) if held.numel() else 0.0
        raw = held.reshape(-1).view(torch.uint8).numpy().tobytes() if held.numel() else b""
        digest = hashlib.sha256(raw).hexdigest()[:16]
        return cls(tuple(held.shape), str(held.dtype).replace("torch.", ""), digest, norm, sketch(held), kind)

    def apart(self, other: TensorRecord) -> float:
        """Distance to another tensor of this shape, a share of the norm; 0 = equal bit by bit, and at least `LEAST`
        where it is not: two numbers that were exchanged may leave all sums as they are."""
        if self.sha256 == other.sha256:
            return 0.0
        squares = np.square(np.subtract(self.sums, other.sums)).mean()
        return max(float(np.sqrt(squares)) / max(self.norm, other.norm, 1e-30), LEAST)


@dataclass(frozen=True)
class Recorded:
    """One generator as it was.

    Attributes:
        family, class_name: of what adapter, of what class.
        plan: how it was squeezed.
        parameters: their number.
        multiply_adds: for one image.
        tensors: {name: record} of its state dict.
        images: {call: some of the pixels}.
        pictures: {call: PNGs of the images, no larger than `SHOWN`, one beside the other}, of the first call only.
        features, answers: as of `Trace`.
        probes: as of `probe`; none in a baseline of before there was that check.
        ratios: {"latency", "memory": squeezed / dense}, where there was a dense one to measure against;
            "latency_batch", "memory_batch": images a call where those are more than one.
        fidelity: {"psnr", "frechet"} to the trained dense one, where there was one.
    """

    family: str
    class_name: str
    plan: Plan
    parameters: int
    multiply_adds: int
    tensors: Mapping[str, TensorRecord]
    images: Mapping[str, Sample]
    pictures: Mapping[str, bytes]
    features: Mapping[str, Sample]
    answers: Mapping[str, Sample]
    ratios: Mapping[str, float] = field(default_factory=dict)
    fidelity: Mapping[str, float] = field(default_factory=dict)
    probes: Mapping[str, Sample] = field(default_factory=dict)

    def __str__(self) -> str:
        near = f", PSNR {self.fidelity['psnr']:.1f} dB to the dense images" if "psnr" in self.fidelity else ""
        return f"{describe_reduction(self.plan.reduction)}{near}"

    def to_dict(self) -> Dict[str, Any]:
        """For JSON."""
        tensors = {name: asdict(record) for name, record in self.tensors.items()}
        samples = {kind: {name: sample.to_dict() for name, sample in getattr(self, kind).items()} for kind in SAMPLES}
        pictures = {name: base64.b64encode(png).decode("ascii") for name, png in self.pictures.items()}
        plain = {name: getattr(self, name) for name in ("family", "class_name", "parameters", "multiply_adds")}
        more = {"ratios": dict(self.ratios), "fidelity": dict(self.fidelity)}
        return {**plain, "plan": self.plan.to_dict(), **more, "tensors": tensors, **samples, "pictures": pictures}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recorded:
        """Inverse of `to_dict`."""
        samples = {
            kind: {name: Sample.from_dict(one) for name, one in data[kind].items()}
            for kind in SAMPLES
            if kind in data or kind != "probes"
        }
        tensors = {
            name: TensorRecord(
                tuple(map(int, one["shape"])),
                str(one["dtype"]),
                str(one["sha256"]),
                _number(one["norm"]),
                _sums(one["sums"]),
                str(one.get("kind", "")),
            )
            for name, one in data["tensors"].items()
        }
        if not (samples["images"].keys() >= CALLS.keys() and samples["answers"] and tensors):
            raise ValueError("a generator has no images, answers or tensors, or not all")
        return cls(
            family=str(data["family"]),
            class_name=str(data["class_name"]),
            plan=Plan.from_dict(data["plan"]),
            parameters=_count(data["parameters"]),
            multiply_adds=_count(data["multiply_adds"]),
            tensors=tensors,
            pictures={name: base64.b64decode(png) for name, png in data["pictures"].items()},
            ratios={name: _number(value) for name, value in data["ratios"].items()},
            fidelity={name: _number(value) for name, value in data["fidelity"].items()},
            **samples,
        )


@dataclass(frozen=True)
class Baseline:
    """All generators as they were, and the versions that made them."""

    generators: Mapping[str, Recorded]
    versions: Mapping[str, str]

    def to_json(self) -> str:
        generators = {name: one.to_dict() for name, one in self.generators.items()}
        return (
            json.dumps({"schema": SCHEMA, "versions": dict(self.versions), "generators": generators}, indent=1) + "\n"
        )

    def write(self, path: Path) -> None:
        """Beside the file and then renamed: a baseline is whole, or as it was."""
        with atomic_write(path) as stream:
            stream.write(self.to_json().encode())


class _Mixed(ValueError):
    """Parts of two baselines are in it."""


def read_baseline(path: Path) -> Optional[Baseline]:
    """The baseline in a file, None where there is no file.

    Raises:
        ConfigError: it is damaged, or of a newer squeeze_patch.
    """
    if not path.is_file():
        return None
    cure = "squeeze-patch check --record writes it anew; what was committed is in the repository's history"
    try:
        text = path.read_text(encoding="utf-8")
        if MERGED.search(text):
            raise _Mixed("it has the marks of a merge that conflicted")
        data = json.loads(text, object_pairs_hook=_once)
        if not isinstance(data, dict) or type(data.get("schema")) is not int or data["schema"] < 1:
            raise ConfigError("it is no baseline of squeeze-patch check")
        if data["schema"] > SCHEMA:
            raise ConfigError(
                f"it has schema {data['schema']}, this squeeze_patch knows {SCHEMA}; update squeeze_patch"
            )
        generators = {name: Recorded.from_dict(one) for name, one in data["generators"].items()}
        return Baseline(generators, dict(data["versions"]))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError, PlanError) as error:
        words = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        cure = UNMIX if isinstance(error, _Mixed) else cure
        raise ConfigError(f"{path}: this baseline cannot be read ({words}). {cure}") from error


def _number(value: Any) -> float:
    """A figure of a record; `ValueError` of NaN or infinity: nothing falls short of it."""
    if not math.isfinite(float(value)):
        raise ValueError("a figure is not a finite number")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise ValueError(f"{str(value)[:20]} where a number of parameters or of multiply-adds should be")
    return value


def _sums(values: Any) -> Tuple[float, ...]:
    if len(values) != PROJECTIONS:
        raise ValueError(f"{len(values)} sums of a tensor, not {PROJECTIONS}")
    return tuple(map(_number, values))


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """A table of JSON; `ValueError` where a name is in it twice, of which Python takes the last: as merges leave it."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Mixed(f"it has {twice} twice, as a merge leaves it")
    return table


def check_target(path: Path) -> None:
    """Before long work: raise `ConfigError` where a baseline would take the place of something else, or cannot be
    written; nothing is left of trying."""
    if path.is_dir():
        raise ConfigError(f"{path}: this is a folder; baseline = ... has to name a file")
    _check_place(path)
    if path.is_file():
        with open(path, "rb") as stream:
            head = stream.read(64)
        if head.strip() and not BEGIN.match(head):
            raise ConfigError(
                f"{path}: this file is no baseline, and would be lost; name another one (baseline = ...), or delete it"
            )


def _check_place(path: Path) -> None:
    """Raise `ConfigError` where a baseline cannot be written, in folders that are made for it, if need be."""
    place = Path(os.path.realpath(path))
    folder = next(each for each in place.parents if os.path.lexists(each))
    cure = "name another one (baseline = ...)"
    if not folder.is_dir():
        raise ConfigError(f"{path}: {folder} is a file, no folder; {cure}")
    try:
        refuse_special(path)
        check_writable(place if folder == place.parent else folder / place.name)
    except CheckpointError as error:
        raise ConfigError(f"{error}; {cure}") from error


def versions() -> Dict[str, str]:
    """Of what makes the figures."""
    return {
        "squeeze_patch": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def pixels_of(found: Trace) -> Dict[str, Sample]:
    """{call: a sample of its images}."""
    return {call: Sample.of(images, PIXELS) for call, images in found.images.items()}


def shown(images: torch.Tensor) -> bytes:
    """A PNG of images [N, C, R, R], one beside the other, no larger than `SHOWN` each."""
    side = max(images.shape[2:])
    if side > SHOWN:
        images = torch.nn.functional.interpolate(images, scale_factor=SHOWN / side, mode="area")
    stream = io.BytesIO()
    Image.fromarray(strip(images)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()

"""The checks that there are: names, groups, settings with their defaults, what each catches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Tuple, Union

Setting = Union[bool, int, float, str]
GROUPS = ("structure", "parity", "training", "copies", "cost", "export")


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: in the configuration, on the command line and in reports.
        group: one of `GROUPS`.
        catches: what it is there for, in a few words.
        settings: {name: default}; a value has to be of its default's type.
        on: whether it runs where the configuration does not name it.
        per_generator: whether it looks at one generator; else at all of them together.
    """

    name: str
    group: str
    catches: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    on: bool = True
    per_generator: bool = True


CHECKS: Tuple[Check, ...] = (
    Check("state", "structure", "a block left dense, a block without excite, another family or plan"),
    Check("reduction", "structure", "fewer parameters saved than was promised", {"at_least": 0.0, "tolerance": 0.003}),
    Check("names", "structure", "a tensor renamed, lost, added, or of another shape"),
    Check("weights", "structure", "a weight that is another one than was recorded", {"tolerance": 0.0}),
    Check(
        "channel_order",
        "structure",
        "G and its moving average with their channels in different orders",
        per_generator=False,
    ),
    Check("reproducible", "parity", "images that differ from call to call, or with the batch"),
    Check("finite", "parity", "NaN or infinity for some latents", {"samples": 0, "styles": 10_000}),
    Check("images", "parity", "images that are not the recorded ones", {"tolerance": 0.0}),
    Check("features", "parity", "features between blocks that are not the recorded ones", {"tolerance": 0.0}),
    Check("constants", "parity", "an epsilon or a clamp that is another one than was recorded", {"tolerance": 0.0}),
    Check(
        "fidelity",
        "parity",
        "images further from the dense generator's than was recorded",
        {"samples": 0, "psnr": 0.0, "psnr_margin": 0.2, "frechet_margin": 0.1},
    ),
    Check("gradients", "training", "a parameter without a finite gradient", {"without": ""}),
    Check("second_derivatives", "training", "path length and gradient penalties that do not train"),
    Check("step", "training", "gradients that are not the loss's"),
    Check(
        "average", "training", "a moving average that does not follow, or is the generator itself", per_generator=False
    ),
    Check("deepcopy", "copies", "copies that are dense, share tensors, or make other images"),
    Check("state_dict", "copies", "state dicts that do not load into the generator made anew"),
    Check("pickle", "copies", "pickles that are dense, or make other images"),
    Check("without_squeeze_patch", "copies", "pickles that do not load where squeeze_patch is not installed"),
    Check("multiply_adds", "cost", "more arithmetic than was recorded", {"tolerance": 0.0}),
    Check("latency", "cost", "a slower path", {"ratio": 0.0, "tolerance": 0.15, "batch": 1, "pairs": 100}),
    Check("memory", "cost", "a higher peak of memory", {"ratio": 0.0, "tolerance": 0.02, "batch": 1}),
    Check("onnx", "export", "an ONNX file that departs from the generator", {"file": ""}, on=False),
    Check(
        "compile", "export", "a compiled generator that departs from the eager one", {"backend": "aot_eager"}, on=False
    ),
)
BY_NAME: Mapping[str, Check] = {check.name: check for check in CHECKS}

"""What a generator makes of fixed latents: images, features between blocks, and what every layer answers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch

from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.checks.fixed_inputs import Amount, Sample, fixed_latents, fixed_styles
from squeeze_patch.errors import UnsupportedModelError
from squeeze_patch.process_settings import random_from
from squeeze_patch.sampling import draw
from squeeze_patch.surgery.proof import float_error, run

#: latents that images are recorded of: four up to 64x64, above it two
LATENTS = Amount(2**14, 2, 4)
#: numbers kept of an image, of the features behind a block, and of a layer's answer, each of all latents together
PIXELS, FEATURES, ANSWERS = 8192, 512, 32
#: {name: (noise, truncation psi)}
CALLS: Dict[str, Tuple[str, float]] = {"stored noise": ("const", 1.0), "no noise, truncation 0.7": ("none", 0.7)}
#: name of one call more, of styles that no latent has: in the others all layers share a style, and one that reads
#: another layer's makes the same images
MIXED = "a style for each layer"
#: unit roundoff of float16 and of TF32, in which generators compute on CUDA
COARSE = 2.0**-11


@dataclass(frozen=True)
class Trace:
    """One run.

    Attributes:
        images: {call: its images [N, C, R, R], float32, on the CPU}.
        features: {block name: what it hands to the next one}, of the first call.
        answers: {layer: what it answers}, in the order in which layers are done, of the first call; behind them
            {"layer (a style for each layer)": the same of that call}.
    """

    images: Dict[str, torch.Tensor]
    features: Dict[str, Sample]
    answers: Dict[str, Sample]


def trace(found: Located, seed: int = 0) -> Trace:
    """Run a generator on the fixed latents, in evaluation mode; it stays as it is.

    Args:
        seed: of torch's random numbers, of which nothing should depend.

    Raises:
        UnsupportedModelError: its family cannot be run on latents; whatever the generator itself raises.
    """
    sampler = found.sampler()
    count = LATENTS.at(sampler.img_resolution)
    z, c = fixed_latents(sampler, count)
    features: Dict[str, Sample] = {}
    answers: Dict[str, Sample] = {}
    images = {}
    for index, (name, (noise, psi)) in enumerate(CALLS.items()):

        def call(noise: str = noise, psi: float = psi) -> torch.Tensor:
            return draw(sampler, z, c, noise, psi)

        with contextlib.ExitStack() as stack:
            if index == 0:
                stack.enter_context(_watched(found, features))
                stack.enter_context(_heard(found.root, answers))
            images[name] = seeded(found, call, seed)
    with contextlib.suppress(UnsupportedModelError):  # synthesis wants more than styles
        ws = fixed_styles(count, found.running.num_ws(found.network), found.specs[0].w_dim)
        ws = ws.to(reference_of(found.network).device)
        mixed: Dict[str, Sample] = {}
        with _heard(found.root, mixed):
            images[MIXED] = seeded(found, lambda: found.running.synthesis(found.network, ws, "const"), seed)
        answers.update({f"{layer} ({MIXED})": answer for layer, answer in mixed.items()})
    return Trace(images, features, answers)


def in_a_batch(found: Located, size: int) -> torch.Tensor:
    """The first images of a `trace`'s first call, run as the first of ``size`` latents; on the CPU.

    Args:
        size: as many as `LATENTS` at least.
    """
    sampler = found.sampler()
    noise, psi = next(iter(CALLS.values()))
    z, c = fixed_latents(sampler, size)  # their first rows are those of fewer
    images = seeded(found, lambda: draw(sampler, z, c, noise, psi), seed=0)
    return images[: LATENTS.at(sampler.img_resolution)]


def seeded(found: Located, call: Callable[[], torch.Tensor], seed: int) -> torch.Tensor:
    """Images of one call, on the CPU."""
    with random_from(seed, cuda=any(p.is_cuda for p in found.root.parameters())):
        return run(found, {"": call}, with_hooks=True)[""].cpu()


def tolerance_of(found: Located) -> float:
    """The largest share of a peak by which float error changes numbers of this generator between two machines or
    releases of torch, a bound: `surgery.proof.float_error`, 4 * layers * sqrt(k^2 c) * unit roundoff; on CUDA, where
    float16 and TF32 compute, with theirs."""
    bound = float_error(found, {"": torch.ones([1])})
    cuda = any(parameter.is_cuda for parameter in found.root.parameters())
    return bound * COARSE / 2.0**-24 if cuda else bound


def first_tensor(output: Any) -> Any:
    """The tensor of floats among what a layer answers, None where there is none."""
    values = output if isinstance(output, (tuple, list)) else [output]
    return next((value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()), None)


@contextlib.contextmanager
def _watched(found: Located, features: Dict[str, Sample]) -> Iterator[None]:
    handles: List[Any] = []

    def keep(name: str) -> Callable[[torch.Tensor], None]:
        def see(x: torch.Tensor) -> None:
            features.setdefault(name, Sample.of(x, FEATURES))

        return see

    try:
        for spec in found.specs:
            if not spec.is_last:
                handles.append(found.surgery.watch(found.network, spec.name, keep(spec.name)))
        yield
    finally:
        for handle in filter(None, handles):
            handle.remove()


@contextlib.contextmanager
def _heard(root: torch.nn.Module, answers: Dict[str, Sample]) -> Iterator[None]:
    handles: List[Any] = []

    def keep(name: str) -> Callable[..., None]:
        def see(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                answers.setdefault(name, Sample.of(tensor, ANSWERS))

        return see

    try:
        for name, module in root.named_modules():
            if name and not isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential)):
                handles.append(module.register_forward_hook(keep(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()

"""What layers answer where constants of the code show that ordinary latents do not reach: epsilons and clamps."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.checks.fixed_inputs import Sample, fixed_latents
from squeeze_patch.checks.tracing import CALLS, first_tensor, seeded
from squeeze_patch.sampling import draw

#: numbers kept of an answer
KEPT = 32
#: factors; powers of two, which round nothing. Of a convolution's weight: demodulation divides by the root of its
#: squares' sum, 1 to 5,000, plus an epsilon, 1e-8, which then counts as much. Of its input: beyond any clamp. Of
#: latents, by whose mean square the mapping network divides in the same way
SMALL_WEIGHT, LARGE_INPUT, SMALL_LATENT = 2.0**-17, 2.0**20, 2.0**-13


def probe(found: Located) -> Dict[str, Sample]:
    """{what was asked: the answer} of one latent, in running order; those that are not finite are left out.

    Every convolution is called again within the call, with the same input and a small weight, and with a large input,
    of whose answer the peak is kept: where a clamp holds, it is the clamp, whatever is rounded below it.

    Raises:
        UnsupportedModelError: its family cannot be run on latents; whatever the generator itself raises.
    """
    sampler, noise = found.sampler(), next(iter(CALLS.values()))[0]
    z, c = fixed_latents(sampler, 1)
    answers: Dict[str, torch.Tensor] = {}
    with _asked_again(found.root, answers):
        seeded(found, lambda: draw(sampler, z, c, noise), seed=0)
    answers["images of a latent close to 0"] = seeded(found, lambda: draw(sampler, z * SMALL_LATENT, c, noise), seed=0)
    return {name: Sample.of(answer, KEPT) for name, answer in answers.items() if bool(answer.isfinite().all())}


@contextlib.contextmanager
def _asked_again(root: torch.nn.Module, answers: Dict[str, torch.Tensor]) -> Iterator[None]:
    """Convolutions are called as they are, and then at the edges, hooks included, for the length of a block."""
    own: List[Tuple[torch.nn.Module, Any]] = []
    try:
        for name, module in root.named_modules():
            weight = module._parameters.get("weight")
            if weight is not None and weight.dim() >= 4 and not isinstance(module, torch.jit.ScriptModule):
                own.append((module, vars(module).get("forward")))
                setattr(module, "forward", _asking(name, module, answers))  # noqa: B010 - a method, to mypy
        yield
    finally:
        for module, forward in own:
            if forward is None:
                vars(module).pop("forward", None)
            else:
                setattr(module, "forward", forward)  # noqa: B010


def _asking(name: str, module: torch.nn.Module, answers: Dict[str, torch.Tensor]) -> Callable[..., Any]:
    """The layer's forward, which has it called again within its first call."""
    forward = module.forward

    def heard(*args: Any, **kwargs: Any) -> Any:
        first = f"{name} with a small weight"
        x = args[0] if args else None
        if first not in answers and isinstance(x, torch.Tensor) and x.dtype == torch.float32:
            setattr(module, "forward", forward)  # noqa: B010 - hooks of the user's are part of the layer
            try:
                with contextlib.suppress(Exception):  # a layer that asserts what it is given has no such answers
                    with _weight_times(module, SMALL_WEIGHT):
                        answers[first] = first_tensor(module(*args, **kwargs)).detach()
                    peak = first_tensor(module(x * LARGE_INPUT, *args[1:], **kwargs)).detach().abs().max()
                    answers[f"{name} with a large input"] = peak.reshape(1)
            finally:
                setattr(module, "forward", heard)  # noqa: B010
        return forward(*args, **kwargs)

    return heard


@contextlib.contextmanager
def _weight_times(module: torch.nn.Module, factor: float) -> Iterator[None]:
    """The parameter itself stays as it is."""
    weight = module._parameters["weight"]
    assert weight is not None
    module._parameters["weight"] = torch.nn.Parameter(weight.detach() * factor, requires_grad=False)
    try:
        yield
    finally:
        module._parameters["weight"] = weight

"""Whether a generator still trains: gradients, their gradients, a step, a moving average."""

from __future__ import annotations

import copy
import fnmatch
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.checks.answers import RECORD, Answer, Context, holds, short
from squeeze_patch.checks.fixed_inputs import Amount, fixed_latents
from squeeze_patch.checks.subjects import Subject, kinds_of
from squeeze_patch.sampling import draw, evaluation

#: images that gradients are taken of: two up to 64x64, above it one
BATCH = Amount(2**13, 1, 2)
#: share of the loss that a step of `step` changes it by, and how far the change may be from that, relatively: float
#: error in the images, 1e-6 of them, is a thousandth of so large a change; terms of third order, in all parts together,
#: have made 0.7 % of it at 256x256, and four times that is allowed
DECREASE, NEAR = 1e-3, 0.03


def gradients(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """Every parameter gets a gradient that is finite and not zero, by a loss on images of latents."""
    found = _trainable(subject)
    torch.autograd.backward(_weighted(_images(found)).sum())
    excused = [pattern.strip() for pattern in settings["without"].split(",") if pattern.strip()]
    none, broken, zero = [], [], []
    frozen = [
        name for name in _frozen(subject, context) if not any(fnmatch.fnmatchcase(name, pattern) for pattern in excused)
    ]
    if frozen:
        return short(
            f"{len(frozen)} parameters have requires_grad=False, which had not when they were recorded",
            wanted="all, or none, of the generator's parameters frozen",
            place=frozen[0],
            cure=f'{RECORD} where it is meant so; or [checks] gradients = {{without = "name*, other*"}}',
            figures={"frozen": frozen},
        )
    for name, parameter in found.generator.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in excused):
            continue
        if parameter.grad is None:
            none.append(name)
        elif not parameter.grad.isfinite().all():
            broken.append(name)
        elif not parameter.grad.abs().max() > 0:
            zero.append(name)
    total = sum(1 for _ in found.generator.parameters())
    for names, what in ((none, "no gradient"), (broken, "a gradient that is not finite"), (zero, "a zero gradient")):
        if names:
            return short(
                f"{len(names)} of {total} parameters get {what} ({', '.join(names[:3])}{', ...' if names[3:] else ''})",
                wanted="a finite one",
                place=names[-1] if what == "no gradient" else names[0],
                cure='parameters that have none by design: [checks] gradients = {without = "name*, other*"}',
                figures={"none": none, "not_finite": broken, "zero": zero},
            )
    return holds(f"all {total} parameters get a finite gradient")


def _frozen(subject: Subject, context: Context) -> List[str]:
    """Parameters that take no gradient any more, where others do; a generator that is frozen whole is one at rest."""
    recorded, kinds = context.recorded(subject), kinds_of(subject.root)
    if recorded is None or "parameter" not in kinds.values():
        return []
    before = {name: record.kind for name, record in recorded.tensors.items()}
    return [name for name, kind in kinds.items() if kind == "frozen" and before.get(name) == "parameter"]


def second_derivatives(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """A penalty on the gradient by styles (path length regularisation, Karras et al. 2020, section 3.2) reaches all
    convolutions, those of later blocks through excite: the gradient by the style of the first layer passes them all."""
    found = _trainable(subject)
    w = found.sample_w(BATCH.at(found.sampler().img_resolution), seed=0).to(reference_of(found.root).device)
    ws = w[:, None].repeat([1, found.running.num_ws(found.network), 1]).requires_grad_(True)  # [n, num_ws, w_dim]
    images = found.running.synthesis(found.network, ws, "const")
    (slope,) = torch.autograd.grad(_weighted(images).sum(), ws, create_graph=True)  # [n, num_ws, w_dim]
    torch.autograd.backward(slope[:, 0].square().sum(1).sqrt().mean())
    wrong: List[str] = []
    for name, parameter in found.root.named_parameters():
        slopes = parameter.grad
        is_convolution = parameter.dim() >= 4 and max(parameter.shape[1:]) > 1 and not name.endswith("bias")
        is_broken = slopes is not None and not slopes.isfinite().all()
        if is_broken or (is_convolution and (slopes is None or not slopes.abs().max() > 0)):
            wrong.append(name)
    if wrong:
        return short(
            f"the penalty's gradient is none, zero or not finite in {len(wrong)} weights ({', '.join(wrong[:3])})",
            wanted="second derivatives everywhere",
            place=wrong[0],
            figures={"weights": wrong},
        )
    return holds("a path length penalty reaches all convolutions")


def step(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """A small step along the gradient changes a loss by what the gradient says: half the difference of a step down and
    a step up, which curvature does not enter. The blocks, and the other layers together, have equal shares in the
    change; where it is not what it should be, each is tried alone."""
    found = _trainable(subject)
    target = _images(found).detach() * 0.5

    def loss() -> torch.Tensor:
        return (_images(found) - target).double().square().mean()

    parts = _parts(found)
    now = loss()
    slopes = dict(zip(parts, torch.autograd.grad(now, list(parts), allow_unused=True)))
    ways: Dict[str, List[Tuple[torch.nn.Parameter, torch.Tensor]]] = {}
    for name in dict.fromkeys(parts.values()):
        mine = [(p, slope) for p, slope in slopes.items() if parts[p] == name and slope is not None]
        squares = sum(float(slope.double().square().sum()) for _, slope in mine)
        if not 0 < squares < float("inf"):
            return short(f"the squared gradient is {squares:g}", wanted="a finite one", place=name)
        ways[name] = [(parameter, slope * (DECREASE * now.item() / squares)) for parameter, slope in mine]

    def ratio(chosen: Sequence[str]) -> float:
        """Change made / change promised, by steps of these parts, as far as float32 lets parameters go."""
        steps = [(p, step / len(chosen)) for name in chosen for p, step in ways[name]]
        before = [p.detach().clone() for p, _ in steps]
        losses, promised = [], 0.0
        with torch.no_grad():
            for sign in (-1, 1):
                for (p, change), old in zip(steps, before):
                    p.copy_(old + sign * change)
                    promised += sign * float((slopes[p].double() * (p - old)).sum())
                losses.append(loss().item())
            for (p, _), old in zip(steps, before):
                p.copy_(old)
        return (losses[1] - losses[0]) / promised

    whole = ratio(list(ways))
    if abs(whole - 1) <= NEAR:
        return holds(f"a step changes a loss by {whole:.3f} of what its gradient says", figures={"ratio": whole})
    alone = {name: ratio([name]) for name in ways}
    worst = max(alone, key=lambda name: abs(alone[name] - 1))
    if abs(alone[worst] - 1) <= NEAR:  # together they bend more, whose third order is left; each is right
        return holds(f"a step of any part changes a loss by what its gradient says ({alone[worst]:.3f})", figures=alone)
    return short(
        f"a step changes a loss by {whole:.2f} of what its gradient says; of this part alone by {alone[worst]:.2f}",
        wanted=f"{1 - NEAR:g} to {1 + NEAR:g}: the gradient is not the loss's",
        place=worst,
        figures={"ratio": whole, "parts": alone},
    )


def _parts(found: Located) -> Dict[torch.nn.Parameter, str]:
    """{parameter: name of its block, or "the other layers"}."""
    parts = dict.fromkeys(found.generator.parameters(), "the other layers")
    for spec in found.specs:
        parts.update({p: spec.name for p in found.get_block(spec.name).parameters() if p in parts})
    return parts


def average(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """A moving average has the parameters of what it averages, tensors of its own, and, caught up, the same images."""
    others = {name: other for name, other in context.subjects.items() if name != subject.name}
    pairs = [(other.root, subject.root, name) for name, other in others.items()]
    if not pairs:
        with torch.random.fork_rng(devices=[]):
            pairs = [(subject.root, copy.deepcopy(subject.root), "a copy")]
    for trained, averaged, name in pairs:
        problem = _unlike(trained, averaged)
        if problem:
            return short(problem, wanted="a moving average like what it averages", place=name)
        follower = copy.deepcopy(averaged)
        _follow(trained, follower)
        images = [_seen(root, subject) for root in (trained, follower)]
        limit = context.tolerance(subject, 0.0) * float(images[0].abs().max())
        apart = float((images[0] - images[1]).abs().max())
        if not apart <= limit:
            return short(
                f"having caught up, it makes images that differ by {apart:.2g}",
                wanted=f"{limit:.1g} at most",
                place=name,
            )
    return holds("it follows, and has tensors of its own")


def _trainable(subject: Subject) -> Located:
    """A copy of the generator with gradients; in evaluation mode, in which nothing is drawn at random."""
    return locate(copy.deepcopy(subject.root).eval().requires_grad_(True))


def _images(found: Located) -> torch.Tensor:
    sampler = found.sampler()
    z, c = fixed_latents(sampler, BATCH.at(sampler.img_resolution))
    return draw(sampler, z, c)


def _weighted(images: torch.Tensor) -> torch.Tensor:
    """Images, every pixel with a weight of its own: [N, C, R, R]."""
    random = torch.Generator().manual_seed(0)
    return images * torch.randn(images.shape, generator=random).to(images.device)


def _unlike(trained: torch.nn.Module, averaged: torch.nn.Module) -> str:
    a, b = dict(trained.named_parameters()), dict(averaged.named_parameters())
    if [*a] != [*b]:
        odd = next(iter({**a, **b}.keys() ^ (a.keys() & b.keys())), "their order")
        return f"its parameters have other names ({odd})"
    for name in a:
        if a[name].shape != b[name].shape:
            return f"{name} is {list(b[name].shape)}, not {list(a[name].shape)}"
        if a[name].data_ptr() == b[name].data_ptr() and a[name].numel():
            return f"{name} is the same tensor in both: it would be trained, not averaged"
    return ""


def _follow(trained: torch.nn.Module, averaged: torch.nn.Module) -> None:
    """As hosts' loops do at the end, with weight 1 on what is trained."""
    with torch.no_grad():
        for p_ema, p in zip(averaged.parameters(), trained.parameters()):
            p_ema.copy_(p.lerp(p_ema, 0.0))
        for b_ema, b in zip(averaged.buffers(), trained.buffers()):
            b_ema.copy_(b)


def _seen(root: torch.nn.Module, subject: Subject) -> torch.Tensor:
    with evaluation(root):
        return _images(locate(root)).cpu()

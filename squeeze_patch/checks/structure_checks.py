"""Whether a generator still is what it was: squeezed by its plan, with the same tensors."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.content import BlockShape
from squeeze_patch.adapters.located import Located
from squeeze_patch.checks.answers import RECORD, Answer, Context, holds, not_recorded, short, skipped
from squeeze_patch.checks.baseline import TensorRecord
from squeeze_patch.checks.subjects import Subject, kinds_of, tensors_of
from squeeze_patch.planning.plans import describe_reduction
from squeeze_patch.planning.shapes import shapes_of
from squeeze_patch.surgery.status import status_of_part

#: a channel that is nearer to another one than to its namesake by this much (cosine) is out of order
CLEARLY = 0.1
#: channels of a moving average are at least so near (cosine, median) to those that it averages
RELATED = 0.3


def state(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """Squeezed, by the plan on it and the plan recorded, block by block."""
    now = status_of_part(subject.found)
    recorded = context.recorded(subject)
    unlike = _unlike_recorded(subject, context)
    if unlike:
        return short(unlike, wanted="the recorded generators", cure=f"where it is meant so, {RECORD}")
    plan = now.plan if recorded is None else recorded.plan
    planned = {} if plan is None else shapes_of(subject.found.specs, plan.blocks)
    for spec in subject.found.specs:
        want = planned.get(spec.name) if plan is not None else spec.shape
        if spec.shape != want or (plan is None and spec.shape is None):
            meant = "squeezed" if plan is None else _words(want, spec.channels)
            figures = {"width": spec.width, "wanted": want.width if want else None}
            return short(_words(spec.shape, spec.channels), wanted=meant, place=spec.name, figures=figures)
    if now.state != "squeezed":
        return short(str(now), wanted="squeezed")
    if recorded is not None and now.family != recorded.family:
        return short(f"of the family {now.family}", wanted=recorded.family)
    return holds(f"{now.squeezed_blocks} of {now.blocks} blocks squeezed, as planned")


def _words(shape: Optional[BlockShape], channels: int) -> str:
    if shape is None:
        return f"dense ({channels} channels)"
    inner = "" if shape.inner == channels else f"{shape.inner} and "
    return f"{'squeezed' if shape.excite else 'narrowed'} to {inner}{shape.width} channels"


def _unlike_recorded(subject: Subject, context: Context) -> str:
    """Which generator the baseline does not have, or has and is not made any more; "" = none."""
    before = {} if context.baseline is None else context.baseline.generators
    if before and subject.name not in before:
        return f"the baseline has no generator {subject.name!r}, but {_some([*map(repr, before)])}"
    lost = [name for name in before if name not in context.subjects]
    return f"the generator {lost[0]!r}, which is recorded, is not made any more" if lost else ""


def reduction(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """The share of the parameters that is saved: as promised, or as recorded."""
    now = status_of_part(subject.found)
    saved = 1 - now.parameters_after / now.parameters_before
    recorded = context.recorded(subject)
    least = settings["at_least"] or (recorded.plan.reduction if recorded else now.plan.reduction if now.plan else 0.0)
    figures = {"reduction": saved, "before": now.parameters_before, "after": now.parameters_after}
    words = f"{now.parameters_before:,} -> {now.parameters_after:,} parameters ({describe_reduction(saved)})"
    if saved < least - settings["tolerance"]:
        return short(words, wanted=f"{describe_reduction(least)}, less {settings['tolerance']:.3g}", figures=figures)
    return holds(words, figures=figures)


def names(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """Names, shapes and kinds of numbers of the state dict."""
    recorded = context.recorded(subject)
    if recorded is None:
        return not_recorded(context)
    now = {name: _form(tensor) for name, tensor in tensors_of(subject.root).items()}
    before = {name: (record.shape, record.dtype) for name, record in recorded.tensors.items()}
    lost = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    changed = [name for name in now if name in before and now[name] != before[name]]
    kinds = kinds_of(subject.root)
    other = [name for name in now if name in before and _turned(recorded.tensors[name].kind, kinds[name])]
    wrong = [*lost, *new, *changed, *other]
    if not wrong:
        return holds(f"{len(now)} tensors of the recorded names and shapes")
    words = []
    if lost:
        words.append(f"{len(lost)} lost ({_some(lost)})")
    if new:
        words.append(f"{len(new)} new ({_some(new)})")
    if changed:
        first = changed[0]
        words.append(f"{len(changed)} of another form ({first}: {_said(now[first])}, was {_said(before[first])})")
    if other:
        learned = kinds[other[0]] != "buffer"
        words.append(f"{len(other)} turned into {'parameters' if learned else 'buffers, which do not train'}")
    return short(
        ", ".join(words),
        wanted="the recorded names and shapes: checkpoints of before do not load"
        if len(wrong) > len(other)
        else "parameters and buffers as recorded",
        place=wrong[0],
        figures={"lost": lost, "new": new, "changed": changed, "turned": other},
    )


def weights(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """Values, tensor by tensor; `names` tells of those that are not there."""
    recorded = context.recorded(subject)
    if recorded is None:
        return not_recorded(context)
    apart: Dict[str, float] = {}
    for name, tensor in tensors_of(subject.root).items():
        before = recorded.tensors.get(name)
        if before is None or _form(tensor) != (before.shape, before.dtype):
            continue
        far = TensorRecord.of(tensor).apart(before)
        if not far <= settings["tolerance"]:
            apart[name] = far
    if not apart:
        return holds("all values as recorded" + (", bit by bit" if not settings["tolerance"] else ""))
    worst = max(apart, key=lambda name: apart[name])
    others = f", and {len(apart) - 1} more tensors" if len(apart) > 1 else ""
    return short(
        f"{apart[worst]:.1e} of its norm away from the recorded values{others}",
        wanted=f"{settings['tolerance']:g} at most",
        place=worst,
        cure=f"{RECORD} after training on purpose; where a factory computes them, weights = {{tolerance = 1e-4}}",
        figures={"apart": apart},
    )


def channel_order(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """Every squeezed channel of the moving average has its like at the same number in what it averages."""
    others = [other for name, other in context.subjects.items() if name != subject.name]
    if not others:
        return skipped("there is one generator only")
    for other in others:
        a, b = subject.found, other.found
        for spec, theirs in zip(a.specs, b.specs):
            if spec.width is None or spec.width != theirs.width:
                continue
            near = _similarities(a, b, spec.name, spec.width)
            own = near.diagonal()
            rows, columns = _assigned(near)
            moved = [r for r, c in zip(rows, columns) if near[r, c] - own[r] > CLEARLY]
            where = f"{spec.name} of {other.name or 'it'}"
            if float(own.median()) < RELATED and not moved:
                return short(
                    f"its channels have no like in {subject.name}'s (cosine {float(own.median()):.2f})",
                    wanted="a generator and its moving average",
                    place=where,
                )
            if moved:
                return short(
                    f"{len(moved)} of {spec.width} channels are in another order than {subject.name}'s "
                    f"({_some([f'{columns[r]} is its {r}' for r in moved])})",
                    wanted="one order: averages of the two would mix channels",
                    place=where,
                    figures={"moved": {str(r): columns[r] for r in moved}},
                )
    return holds(f"{len(others) + 1} generators have their channels in one order")


def _assigned(near: torch.Tensor) -> Tuple[List[int], List[int]]:
    """Rows and columns of the pairs, one for each row, whose sum is the largest; scipy is imported here, since every
    command would wait for it."""
    rows, columns = importlib.import_module("scipy.optimize").linear_sum_assignment(-near.numpy())
    return rows.tolist(), columns.tolist()


def _similarities(a: Located, b: Located, block: str, width: int) -> torch.Tensor:
    """Cosines [q, q] between the squeezed channels of two blocks, over all weights that belong to a channel."""
    one, other = (_channels(found.get_block(block), width) for found in (a, b))
    return one @ other.t()


def _channels(block: torch.nn.Module, width: int) -> torch.Tensor:
    """[q, n], rows of length 1: what tensors of the block hold for each of its squeezed channels."""
    rows: List[torch.Tensor] = []
    for parameter in block.parameters():
        p = parameter.detach().float().cpu()
        p = p[0] if p.dim() == 5 and len(p) == 1 else p
        of_outputs = p.dim() > 1 and p.shape[0] == width and p.shape[1] != width
        of_inputs = p.dim() > 1 and p.shape[1] == width and p.shape[0] != width
        found = p.reshape(width, -1) if of_outputs else p.transpose(0, 1).reshape(width, -1) if of_inputs else None
        if found is not None:
            # a single channel is its own mean
            centred = found - found.mean(dim=0, keepdim=True) if width > 1 else found
            rows.append(centred / centred.norm().clamp(min=1e-30))
    stacked = torch.cat(rows, dim=1) if rows else torch.eye(width)
    return torch.nn.functional.normalize(stacked, dim=1)


def _turned(before: str, now: str) -> bool:
    """Whether a parameter has become a buffer, or a buffer a parameter."""
    return bool(before) and (before == "buffer") != (now == "buffer")


def _form(tensor: torch.Tensor) -> Any:
    return tuple(tensor.shape), str(tensor.dtype).replace("torch.", "")


def _said(form: Any) -> str:
    shape, dtype = form
    return f"{list(shape)} {dtype}"


def _some(words: List[str], most: int = 3) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")

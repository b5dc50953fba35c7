"""Files that are well formed and hold what no generator has, for `benchmarks.fuzz`: attributes and entries are dropped,
renamed and replaced, and so are the fields of Plans.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

import numpy as np
import torch

from benchmarks.corpora import Base, numbered, saved_older, saved_tensors
from benchmarks.mutations import ODD_WORDS, Mutated, header_of, with_header
from squeeze_patch.adapters.records import Global, Inert, Record
from squeeze_patch.checkpoints import inert
from squeeze_patch.checkpoints.inert_writing import dump
from squeeze_patch.checkpoints.tensor_files import load_tensors

#: names that a module of torch, of a host or of ours has
NAMES = (
    *("forward", "register_parameter", "named_modules", "parameters", "modules", "children", "state_dict", "eval"),
    *("train", "requires_grad_", "to", "apply", "__class__", "__dict__", "__call__", "_modules", "_parameters"),
    *("_buffers", "_non_persistent_buffers_set", "_init_args", "_init_kwargs", "squeeze_plan", "training", "skip"),
    *("synthesis", "mapping", "weight", "bias", "conv0", "conv1", "torgb", "affine", "const", "resample_filter"),
    *("noise_strength", "noise_const", "num_conv", "fc2", "b4", "b16", "b512", "excite", "squeezed_channels"),
    *("block_resolutions", "weight_gain", "activation", "conv_clamp", "up", "padding", "architecture", "w_avg"),
)
Slot = Tuple[str, Any, Any]


def odd_value(dice: random.Random, inert_ones: bool) -> Any:
    """``inert_ones``: also such as only `inert_writing` can write."""
    values: List[Any] = [
        *(None, -1, 0, 1, 3, 10**9, 10**30, True, float("nan"), float("inf"), 1e308, 1e-320, 0.0, 1j),
        *("x", "lrelu", "", "relu", b"x", (), [], {}, [1], [4, 8, "x"], {1: 2}, {"a": {"b": []}}, {1}, "\n\x1b[2J"),
        *(slice(1, 2), np.float64(2), np.float64("nan"), np.zeros(3), np.int64(8), torch.float32, torch.device("cpu")),
        *(torch.zeros(3), torch.zeros(3, dtype=torch.int64), torch.tensor(1.0), torch.zeros(0), torch.Size([2])),
        *(torch.nn.Parameter(torch.zeros(2, 2)), OrderedDict(a=1), frozenset([1]), [[[[[]]]]], 2**63),
        *(torch.zeros(1).expand(300, 200), torch.zeros(2, 3, 4, 5, 6)),
    ]
    if inert_ones:
        linear = inert.inert_class(Global("torch.nn.modules.linear", "Linear"))
        meta = {"type": "class", "version": 1, "class_name": "FullyConnectedLayer", "module_src": "", "state": {}}
        rebuild = Global("torch_utils.persistence", "_reconstruct_persistent_obj")
        values += [Global("builtins", "object"), linear.__new__(linear), Record(rebuild, meta), OrderedDict, slice]
    return dice.choice(values)


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


#: {what becomes of a tensor: how}
TENSORS: Dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "half": torch.Tensor.half,
    "double": torch.Tensor.double,
    "bfloat16": torch.Tensor.bfloat16,
    "complex": lambda t: t.to(torch.complex64),
    "int": torch.Tensor.int,
    "bool": torch.Tensor.bool,
    "nan": lambda t: torch.full_like(t, float("nan")),
    "one nan": lambda t: torch.cat([torch.full_like(t.flatten()[:1], float("nan")), t.flatten()[1:]]).reshape(t.shape),
    "inf": lambda t: torch.full_like(t, float("inf")),
    "zero": torch.zeros_like,
    "1e38": lambda t: torch.full_like(t, 1e38),
    "1e19": lambda t: torch.full_like(t, 1e19),
    "1e-44": lambda t: torch.full_like(t, 1e-44),
    "times 1e10": lambda t: t * 1e10,
    "flat": lambda t: t.flatten().clone(),
    "one dimension more": lambda t: t[None].clone(),
    "empty": lambda t: t[:0].clone() if t.dim() else t.new_zeros(0),
    "scalar": lambda t: t.flatten()[:1].sum(),
    "twice as long": lambda t: torch.cat([t, t]) if t.dim() else torch.stack([t, t]),
    "one shorter": lambda t: t[1:].clone() if t.dim() else t,
    "transposed": lambda t: t.transpose(0, -1) if t.dim() else t,
    "not contiguous": lambda t: torch.stack([t, t], -1)[..., 0],
    "expanded": lambda t: t.flatten()[:1].sum().expand(t.shape),
    "with gradient": lambda t: t.clone().requires_grad_() if t.is_floating_point() else t,
}


def _other_tensor(tensor: Any, dice: random.Random) -> Tuple[str, Any]:
    if isinstance(tensor, np.ndarray):
        name, changed = _other_tensor(torch.tensor(tensor), dice)
        return name, changed.detach().numpy() if changed.dtype != torch.bfloat16 else tensor.astype("f2")
    name = dice.choice(sorted(TENSORS))
    if not (tensor.is_floating_point() and tensor.numel()):
        name = "one dimension more"
    with torch.no_grad():
        changed = TENSORS[name](tensor.detach())
    if isinstance(tensor, torch.nn.Parameter) and (changed.is_floating_point() or changed.is_complex()):
        changed = torch.nn.Parameter(changed.detach(), requires_grad=changed.requires_grad)
    return name, changed


def slots(value: Any, path: str = "") -> Iterator[Slot]:
    """(path, container, key) of everything in what a file holds."""
    waiting, seen = [(path, value)], set()
    while waiting:
        path, value = waiting.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, tuple):
            waiting += [(f"{path}.{index}", part) for index, part in enumerate(value)]
        table: Any = value
        if isinstance(value, Record):
            table = value.meta
        elif isinstance(value, (Inert, argparse.Namespace)):
            table = vars(value)
        if isinstance(table, (dict, list)):
            for key in list(table) if isinstance(table, dict) else range(len(table)):
                yield f"{path}.{key}", table, key
                waiting.append((f"{path}.{key}", table[key]))


def loaded(base: Base) -> Any:
    """What a base file holds, to be changed."""
    if base.form == "pickle":
        return inert.load(io.BytesIO(base.data))
    if base.form == "safetensors":
        header, rest = header_of(base.data)
        words = header.pop("__metadata__", {})
        places = ((name, entry["shape"], entry["data_offsets"]) for name, entry in header.items())
        state = {
            name: torch.frombuffer(bytearray(rest[start:end]), dtype=torch.float32).reshape(shape)
            for name, shape, (start, end) in places
        }
        return {"state": state, "words": words}
    return load_tensors(base.path)


def stored(base: Base, data: Any) -> bytes:
    """The file of what `loaded` returned."""
    stream = io.BytesIO()
    if base.form == "pickle":
        dump(data, stream, 2 if "protocol 2" in base.name else 4)
        return numbered(stream.getvalue())
    if base.form == "safetensors":
        return saved_tensors(data["state"], data["words"])
    if base.form == "older":
        return saved_older(data)
    torch.save(data, stream)
    return stream.getvalue()


def structure_changed(base: Base, others: Mapping[str, Base], dice: random.Random) -> Mutated:
    data, lines = loaded(base), []
    inside = data["state"] if base.form == "safetensors" else data
    for _ in range(dice.choice((1, 1, 1, 2))):
        lines.append(_change(list(slots(inside)), dice, base.form))
    return stored(base, data), "; ".join(lines)


def _change(found: List[Slot], dice: random.Random, form: str) -> str:
    path, table, key = dice.choice(found)
    tensors = [slot for slot in found if isinstance(slot[1][slot[2]], (torch.Tensor, np.ndarray))]
    kind = dice.choice(
        ("tensor", "tensor", "tensor", "odd", "odd", "odd", "drop", "rename", "named", "other", "itself")
    )
    kind = "odd" if kind == "tensor" and not tensors else kind
    if kind == "tensor" or form == "safetensors":
        path, table, key = dice.choice(tensors)
        kind = kind if kind in ("drop", "rename", "other") else "tensor"
    if kind == "tensor":
        kind, table[key] = _other_tensor(table[key], dice)
    elif kind == "odd":
        table[key] = odd_value(dice, form == "pickle")
        kind = f"becomes {type(table[key]).__name__} {str(table[key])[:30]}"
    elif kind == "named":
        path, table, _ = dice.choice([slot for slot in found if isinstance(slot[1], dict)])
        name = dice.choice(NAMES)
        table[name] = odd_value(dice, form == "pickle")
        kind = f"beside it {name} is {type(table[name]).__name__} {str(table[name])[:30]}"
    elif kind == "other":
        other, holder, index = dice.choice(tensors if form == "safetensors" else found)
        table[key] = holder[index]
        kind = f"becomes that at {other}"
    elif kind == "itself":
        table[key] = dice.choice((table, _nested(300), _nested(60)))
        kind = f"holds itself, or is nested ({type(table[key]).__name__})"
    elif isinstance(table, list) or kind == "drop":
        del table[key]
        kind = "drop"
    else:
        new = dice.choice((*ODD_WORDS[:20], f"{key}x", 5)) if form != "safetensors" else f"{key}.x"
        table[new] = table.pop(key)
        kind = f"rename to {new!r:.30}"
    return f"{path}: {kind}"


# Plans


def plans_changed(base: Base, others: Mapping[str, Base], dice: random.Random) -> Mutated:
    """A squeezed file with another Plan in one of the places where it is."""
    if base.form == "safetensors":
        header, rest = header_of(base.data)
        plan = json.loads(header["__metadata__"]["squeeze_plan"])
        plan, line = _other_plan(plan, dice)
        text = json.dumps(plan, default=str) if dice.random() < 0.9 else str(plan)
        header["__metadata__"]["squeeze_plan"] = text
        return with_header(json.dumps(header).encode(), rest), line
    data = loaded(base)
    places = [slot for slot in slots(data) if slot[2] in ("squeeze_plan", "plan")] or [("", data, "squeeze_plan")]
    path, table, key = dice.choice(places)
    plan = table.get(key) if isinstance(table.get(key), dict) else _plan_of(others)
    table[key], line = _other_plan(json.loads(json.dumps(plan)), dice)
    return stored(base, data), f"{path}: {line}"


def _plan_of(others: Mapping[str, Base]) -> Any:
    return load_tensors(others["rosinality squeezed"].path)["squeeze_plan"]


def _other_plan(plan: Any, dice: random.Random) -> Tuple[Any, str]:
    if dice.random() < 0.08:
        return odd_value(dice, False), "something else"
    lines = []
    for _ in range(dice.choice((1, 1, 2))):
        path, table, key = dice.choice(list(slots({"plan": plan}))[1:])
        before = table[key]
        kind = dice.choice(("odd", "odd", "drop", "more", "less", "same"))
        if kind == "drop":
            del table[key]
        elif kind in ("more", "less") and isinstance(before, (int, float)):
            table[key] = before + (1 if kind == "more" else -1) * dice.choice((1, 4, 1000))
        elif kind == "same" and isinstance(before, list):
            table[key] = before * 2
        else:
            table[key] = odd_value(dice, False)
        lines.append(f"plan{path[5:]} {kind} {str(table[key] if kind != 'drop' else '')[:30]!r}")
    return plan, "; ".join(lines)

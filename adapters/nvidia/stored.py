"""The NVIDIA family's pickles without the host: generators out of the records in them, and back.

The hosts' `torch_utils.persistence` stores an object as its class's name, the source of its module, and its attributes.
Nothing of the source is run here. A generator of the classes in `body` becomes one of those; what squeezing has changed
on it is written back into copies of its records, as the hosts would have stored it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import warnings
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, Optional, Set

import torch

from squeeze_patch.adapters.nvidia.block import SqueezedBlock
from squeeze_patch.adapters.nvidia.body import BODIES
from squeeze_patch.adapters.nvidia.call_arguments import USUAL
from squeeze_patch.adapters.nvidia.known_sources import definitions, unknown_parts
from squeeze_patch.adapters.nvidia.portable import portable_source, rebuildable_source
from squeeze_patch.adapters.nvidia.sizes import stored_shapes
from squeeze_patch.adapters.nvidia.wellformed import fault, surplus
from squeeze_patch.adapters.records import Global, InertDict, Record, is_module, is_plain
from squeeze_patch.connection import Excite
from squeeze_patch.errors import TRUST_CURE, UnprovedWarning, UnsupportedModelError

REBUILD = Global("torch_utils.persistence", "_reconstruct_persistent_obj")
#: parts of what was squeezed with the host at hand
SQUEEZED = {"SqueezedBlock": SqueezedBlock, "Excite": Excite}
_OF_TORCH = frozenset(vars(torch.nn.Module()))
#: characters of a module's source, and of one class's that is parsed
LONGEST_SOURCE, LONGEST_CLASS = 1 << 20, 1 << 16
#: what the hosts' persistence notes on an object of how it was made
BOOKKEEPING = ("_init_args", "_init_kwargs", "_orig_module_src", "_orig_class_name")
_NOBODY_KNOWS = (
    "without running code from the file nobody knows what it computes. If you trust where the file came from, "
    f"{TRUST_CURE}"
)
#: why a generator of stylegan3's own architecture is refused, in memory and in files
ALIAS_FREE = (
    "this is a StyleGAN3 (alias-free) generator: it has no toRGB per resolution, so there is no image skip connection "
    "to replace. stylegan3 trains StyleGAN2 with --cfg=stylegan2"
)
#: arguments that squeezed blocks, or their hosts' convolutions, take
KNOWN_HERE = frozenset(inspect.signature(SqueezedBlock.forward).parameters) | set(USUAL)
_TABLES = ("_parameters", "_buffers", "_modules")


def record(meta: Any) -> Record:
    """What the host's function makes an object of."""
    words = ("type", "class_name", "module_src")
    good = isinstance(meta, dict) and all(isinstance(meta.get(name), str) for name in words)
    if not (good and isinstance(meta.get("state"), dict) and len(meta["module_src"]) < LONGEST_SOURCE):
        raise ValueError("an object of torch_utils.persistence without class_name, module_src and state")
    return Record(REBUILD, meta)


@functools.cache
def easy_dict() -> Any:
    return type("EasyDict", (InertDict,), {"origin": Global("dnnlib.util", "EasyDict")})


def is_generator(value: Any) -> bool:
    """Whether a stored object is a whole generator of this family, by the names of its parts."""
    return isinstance(value, Record) and is_module(value) and {"mapping", "synthesis"} <= dict(value.children()).keys()


def body_of(stored: Record) -> torch.nn.Module:
    """A generator of our own for a stored one.

    Raises:
        UnsupportedModelError: it has layers whose arithmetic is not known.
        ValueError, or another Exception: it is damaged.

    Warns:
        UnprovedWarning: they have the right names, but the file's source of them is not a known one.
    """
    if _is_alias_free(stored):  # trust would help nobody
        raise UnsupportedModelError(f"{ALIAS_FREE}. Only info and compare look at one, with --trust and --host DIR")
    body = _body(stored, "", set())
    unknown = sorted({part for each in _records(stored) for part in unknown_parts(each.source, each.class_name)})
    more = surplus(body, unknown)
    if more is not None:
        layer, others = more
        raise UnsupportedModelError(f"{layer} holds {', '.join(others)}, which StyleGAN2's does not: {_NOBODY_KNOWS}")
    wrong = fault(body)
    if wrong:
        raise ValueError(wrong)
    if unknown:
        warnings.warn(
            f"the file's source of {', '.join(unknown)} is none that is known to compute what StyleGAN2 does. It was "
            "not run; the generator was read by names and shapes. --trust --host DIR runs it, to prove that it is one",
            UnprovedWarning,
            stacklevel=2,
        )
    return body


def _is_alias_free(stored: Record) -> bool:
    synthesis = dict(stored.children()).get("synthesis")
    first = dict(synthesis.children()).get("input") if isinstance(synthesis, Record) else None
    return isinstance(first, Record) and first.class_name == "SynthesisInput"


def _records(stored: Any) -> Iterator[Record]:
    """A stored module and those inside it that the host defines."""
    if stored.class_name in BODIES:
        yield stored
    for _, child in stored.children():
        yield from _records(child)


def _body(stored: Any, where: str, seen: Set[int]) -> torch.nn.Module:
    if id(stored) in seen:
        raise ValueError(f"{where} is there twice")
    seen.add(id(stored))
    name = _class_name(stored) if isinstance(stored, Record) else type(stored).__name__
    cls = {**BODIES, **SQUEEZED}.get(name)
    if cls is None or not isinstance(stored, Record):
        raise UnsupportedModelError(
            f"{where or 'the generator'} is a {name}, a layer of the host's own: {_NOBODY_KNOWS}"
        )
    module: torch.nn.Module = cls.__new__(cls)
    torch.nn.Module.__init__(module)
    state = stored.state
    _check_tables(state, where)
    for attribute, value in state.items():
        known = attribute in _OF_TORCH or attribute in BOOKKEEPING or hasattr(module, attribute)
        known = known or attribute.startswith("_") or attribute in ("init_args", "init_kwargs")
        if not known and is_plain(value):  # what is more stays in the record
            object.__setattr__(module, attribute, value)
    module.training = bool(state.get("training", False))
    for key, tensor in state.get("_parameters", {}).items():
        module.register_parameter(key, tensor)
    transient = state.get("_non_persistent_buffers_set", ())
    for key, tensor in state.get("_buffers", {}).items():
        module.register_buffer(key, tensor, persistent=key not in transient)
    for key, child in state.get("_modules", {}).items():
        module.add_module(key, _body(child, f"{where}.{key}" if where else key, seen))
    return module


def _class_name(stored: Record) -> str:
    """Of a network that was squeezed with the host at hand the host's own: whole, or the synthesis network alone."""
    if stored.class_name != "SqueezedGenerator":
        return stored.class_name
    return "Generator" if is_generator(stored) else "SynthesisNetwork"


def _check_tables(state: Dict[str, Any], where: str) -> None:
    """Of a module's attributes those that every module has."""
    tables = [state.get(name) for name in _TABLES]
    by_place, by_name = state.get("_init_args", ()), state.get("_init_kwargs", {})
    good = all(isinstance(table, dict) and all(isinstance(key, str) for key in table) for table in (*tables, by_name))
    if not (good and isinstance(by_place, (tuple, list)) and all(isinstance(name, str) for name in state)):
        raise ValueError(f"{where or 'the generator'} has no tables of parameters, buffers and children")


def stored_of(body: torch.nn.Module, stored: Record) -> Record:
    """``stored``, brought up to date with the generator that was made of it; as it is where nothing has changed."""
    network: Any = body.synthesis
    plan = getattr(network, "squeeze_plan", None)
    fresh = _updated(stored, body)
    squeezed_before = "SqueezedGenerator" in (stored.class_name, dict(stored.children())["synthesis"].class_name)
    if plan is None or squeezed_before:
        return fresh
    state = fresh.state
    children = state["_modules"]
    path = next(name for name, child in children.items() if child.class_name == "SynthesisNetwork")
    children[path].state["squeeze_plan"] = dict(plan)
    squeeze = {"network": path, "blocks": stored_shapes(network, plan), "plan": dict(plan)}
    source = rebuildable_source(stored.source, stored.class_name)
    state["_orig_module_src"], state["_orig_class_name"] = source, "SqueezedGenerator"
    state["_init_kwargs"] = {**state.get("_init_kwargs", {}), "squeeze": squeeze}
    return Record(REBUILD, {**fresh.meta, "module_src": source, "class_name": "SqueezedGenerator"})


def _updated(stored: Record, module: torch.nn.Module, rebuilt: bool = False) -> Record:
    """A copy of a record with the tensors, attributes and children that ``module`` has by now; ``rebuilt``: the host's
    constructor is to be called for it with other numbers of channels."""
    if isinstance(module, SqueezedBlock) and stored.class_name != "SqueezedBlock":
        return _squeezed(stored, module)
    state = dict(stored.state)
    for key, value in vars(module).items():
        if key in state and key not in _OF_TORCH:
            state[key] = _of_its_kind(value, state[key])
    state["training"] = stored.state.get("training", False)
    state["_parameters"] = _like(state["_parameters"], module._parameters)
    state["_buffers"] = _like(state["_buffers"], module._buffers)
    old: Dict[str, Any] = stored.state.get("_modules", {})
    made = {name: _updated(old[name], child) for name, child in module._modules.items() if child is not None}
    state["_modules"] = _like(state["_modules"], made)
    state.update(_constructor(stored, module, rebuilt))
    return Record(REBUILD, {**stored.meta, "state": state})


def _of_its_kind(value: Any, before: Any) -> Any:
    """A number as the host's constructor makes it: some are numpy's, some whole."""
    if type(value) is type(before) or not isinstance(value, (int, float)) or not isinstance(before, (int, float)):
        return value
    return before if value == before else type(before)(value)


def _like(table: Any, entries: Dict[str, Any]) -> Any:
    """The entries in a dictionary of the kind that the file has."""
    return OrderedDict(entries) if isinstance(table, OrderedDict) else dict(entries)


def _constructor(stored: Record, module: Any, rebuilt: bool) -> Dict[str, Any]:
    """What the host records of a constructor call that makes a layer of these channels: of a rebuilt one all by name,
    as `block.rebuild_layer` calls it, of one inside it as before."""
    by_place, by_name = stored.state.get("_init_args", ()), stored.state.get("_init_kwargs", {})
    before, now = stored.state["_parameters"].get("weight"), module._parameters.get("weight")
    if before is None or now is None or not (rebuilt or before.shape != now.shape):
        return {}
    names = constructor_arguments(stored.source, stored.class_name)
    dims = {"out_channels": 0, "in_channels": 1, "out_features": 0, "in_features": 1}
    sizes = {name: now.shape[dim] for name, dim in dims.items() if before.shape[dim] != now.shape[dim]}
    if rebuilt:
        given = {**dict(zip(names, by_place)), **by_name}
        sizes = {name: size for name, size in sizes.items() if name in given or name in names}
        return {"_init_args": (), "_init_kwargs": {**given, **sizes}}
    args = tuple(sizes.get(name, value) for name, value in zip(names, by_place)) if names else by_place
    return {"_init_args": args, "_init_kwargs": {**by_name, **{k: v for k, v in sizes.items() if k in by_name}}}


def constructor_arguments(source: str, class_name: str) -> List[str]:
    """Names of what the constructor of a class takes by place, read in its source, without running it."""
    found = _arguments_of(source, class_name, "__init__")
    return [argument.arg for argument in found.args[1:]] if found else []


@functools.lru_cache(maxsize=64)
def _arguments_of(source: str, class_name: str, function: str) -> Optional[ast.arguments]:
    lines = definitions(source).get(class_name, [])
    try:
        tree = ast.parse("\n".join(lines)) if sum(map(len, lines)) < LONGEST_CLASS else ast.parse("")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name]
    bodies = [item for node in classes for item in node.body if isinstance(item, ast.FunctionDef)]
    return next((item.args for item in bodies if item.name == function), None)


def _foreign_arguments(dense: Record) -> Dict[str, Any]:
    """As `call_arguments.foreign_arguments`, of a stored block, read in its source."""
    own = _arguments_of(dense.source, dense.class_name, "forward")
    layers = [dense.state["_modules"][name] for name in ("conv1", "torgb")]
    others = [_arguments_of(layer.source, layer.class_name, "forward") for layer in layers]
    if own is None or None in others:
        return {}
    known = {argument.arg for found in others if found for argument in (*found.args, *found.kwonlyargs)}
    known.update(KNOWN_HERE)
    defaults = [None] * (len(own.args) - len(own.defaults)) + list(own.defaults)
    named = [*list(zip(own.args, defaults))[4:], *zip(own.kwonlyargs, own.kw_defaults)]  # behind self, x, img and ws
    return {
        argument.arg: default.value if isinstance(default, ast.Constant) and is_plain(default.value) else None
        for argument, default in named
        if argument.arg not in known
    }


def _squeezed(dense: Record, block: SqueezedBlock) -> Record:
    """The record of a squeezed block in the place of the dense one's."""
    old = dense.state["_modules"]
    children: Dict[str, Any] = {}
    for name, child in block._modules.items():
        assert child is not None
        rebuilt = name in ("conv1", "torgb")
        children[name] = _updated(old[name], child, rebuilt) if name in old else _own(child, dense, {})
    squeezed = _own(block, dense, children)
    foreign = _foreign_arguments(dense)
    if foreign:
        squeezed.state["foreign"] = foreign
    return squeezed


#: {class: names of its constructor's arguments, all of which are attributes}
_ARGUMENTS = {
    "SqueezedBlock": (
        "in_channels",
        "out_channels",
        "squeezed_channels",
        "w_dim",
        "resolution",
        "img_channels",
        "is_last",
        "use_fp16",
        "channels_last",
        "fp16_on_cpu",
        "fused_modconv_default",
    ),
    "Excite": ("in_channels", "out_channels", "conv_clamp"),
}


def _own(module: torch.nn.Module, like: Record, children: Dict[str, Any]) -> Record:
    """The record of a module of ours: its text travels with it."""
    name = type(module).__name__
    state = {**vars(module), "_modules": children}
    for table in _TABLES:
        state[table] = _like(like.state[table], state[table])
    arguments = {key: getattr(module, key) for key in _ARGUMENTS[name]}
    by_place = tuple(arguments.pop(key) for key in ("in_channels", "out_channels")) if name == "Excite" else ()
    state.update(_init_args=by_place, _init_kwargs=arguments)
    return Record(REBUILD, {**like.meta, "module_src": portable_source(), "class_name": name, "state": state})


def known(module: str, name: str) -> Optional[Any]:
    """What a name in a pickle of this family becomes, None where it is not the family's."""
    if (module, name) == (REBUILD.module, REBUILD.name):
        return record
    if (module, name) in (("dnnlib.util", "EasyDict"), ("dnnlib", "EasyDict")):
        return easy_dict()
    return None

"""Squeezed state dicts back into a generator that the host's own code has built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, TypeVar, Union

import torch

from squeeze_patch.adapters import reference_name, search
from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.bodies import find_bodies, plan_beside
from squeeze_patch.checkpoints.safe_tensors import is_tensor_file, read_tensors
from squeeze_patch.checkpoints.state_dicts import HoldsMore, read_entries
from squeeze_patch.checkpoints.stored import refuse_other_forms
from squeeze_patch.checkpoints.tensor_files import is_archive
from squeeze_patch.errors import TRUST_CURE, CheckpointError, StateError, listed
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.process_settings import random_kept
from squeeze_patch.progress import own_settings
from squeeze_patch.surgery.apply import apply_request
from squeeze_patch.surgery.originals import forget
from squeeze_patch.surgery.remove import remove
from squeeze_patch.surgery.status import status, status_of

Module = TypeVar("Module", bound=torch.nn.Module)
StateDict = Mapping[str, torch.Tensor]


@own_settings()
def load(G: Module, source: Union[str, Path, StateDict], *, entry: Optional[str] = None, trust: bool = False) -> Module:
    """Squeeze a generator as a file's weights are squeezed, and load them, all of them.

    Args:
        G: a generator built by its host, or a module that holds one, whose other parts stay as they are, or a training
            wrapper as for `squeeze_patch.apply`; dense, or squeezed in the same way already.
        source: a file of torch.save or safetensors that `squeeze_patch.convert` wrote or that a training script wrote
            later, or one squeezed state dict.
        entry: which of the file's generators; default: the moving average (g_ema, params_ema), or the first.
        trust: needed where the file holds more than tensors, plain values and argparse.Namespace, since loading it
            then runs code stored in it.

    Returns:
        G itself, squeezed, in the dtype, on the device and with the training flags that it had.

    Raises:
        CheckpointError: the file holds no squeezed generator, or one of another size.
        PlanError: G has other channels.
        StateError: G is squeezed in another way, or on the meta device. G is as it was after any error.

    Example:
        >>> from model import Generator  # in the folder of rosinality's stylegan2-pytorch
        >>> G = squeeze_patch.load(Generator(256, 512, 8), "squeezed.pt")
        >>> squeeze_patch.status(G).state
        'squeezed'
    """
    target = search(G)
    holder = G if target.wrapper is not None else target.reference.generator
    for name, tensor in holder.state_dict().items():
        if tensor.is_meta:
            raise StateError(
                f"{name} is on the meta device, where nothing can be loaded: build the generator on the CPU or a GPU, "
                "by with torch.device('cpu'), say"
            )
    state, body, where = _find(source, entry, trust, whole=target.wrapper is not None)
    plan = _plan_of(body, target.reference, where)
    now = status_of(target)
    if now.state == "dense":
        with random_kept():
            apply_request(G, Request(plan=plan), "random", record=True)
        try:
            _check(holder, state, where, target.reference)
        except CheckpointError:
            remove(G)
            raise
        forget(target)
    elif now.plan is None or not now.plan.same_widths(plan):
        raise StateError(f"the generator is squeezed in another way than {where} ({now}); build it anew")
    else:
        _check(holder, state, where, target.reference)
    holder.load_state_dict(dict(state), strict=False)  # `_check` was stricter
    return G


def _find(
    source: Union[str, Path, StateDict], entry: Optional[str], trust: bool, whole: bool
) -> Tuple[StateDict, torch.nn.Module, str]:
    """The state dict that is meant, a stand-in for its generator, and words for where it is.

    Args:
        whole: a training wrapper's is meant; else, where the file has one, one of the generators in it.
    """
    where = "the state dict"
    data: Dict[str, Any] = {"": source}
    if isinstance(source, (str, Path)):
        path, where = Path(source), str(source)
        if not path.is_file():
            raise CheckpointError(f"{path}: there is no such file")
        if is_tensor_file(path):
            data = read_tensors(path)
        elif is_archive(path):
            try:
                data = read_entries(path, trust=trust)
            except HoldsMore as error:  # the host's modules are at hand: they have built the generator
                raise HoldsMore(str(error).replace(TRUST_CURE, "say so with trust=True")) from error
        else:
            refuse_other_forms(path)
            raise CheckpointError(
                f"{path}: a file neither of torch.save nor of safetensors. A host's pickle holds whole generators: "
                "unpickle it"
            )
    bodies: Dict[str, torch.nn.Module] = {}
    states: Dict[str, StateDict] = {}
    for key, found in find_bodies(data, f"{where}: ").items():
        name, value = found.site.entry, data[found.site.entry]
        if not whole or key != name:
            states[name if whole else key] = value if whole else found.site.state(value)
            bodies.setdefault(name if whole else key, found.body)
    if not bodies or (entry is not None and entry not in bodies):
        what = "no generator of a known family" if entry is None else f"no generator named {entry!r}"
        holds = listed(filter(None, bodies or map(str, data))) or "one state dict"
        raise CheckpointError(f"{where}: {what} (it holds {holds})")
    chosen = reference_name(bodies) if entry is None else entry
    return states[chosen], bodies[chosen], where


def _plan_of(body: torch.nn.Module, G: Located, where: str) -> Plan:
    """By which ``G`` is squeezed as ``body`` is; `CheckpointError` where that is dense."""
    found, plan = search(body).reference, status(body).plan
    if plan is not None:
        return plan_beside(G, found, plan)
    channels = [max(spec.channels for spec in each.specs) for each in (found, G)]
    more = (
        f"; or it is narrowed ({channels[0]} channels at most, {channels[1]} in G), and its file has no squeeze_plan: "
        "load the file that convert wrote first, and then this by G.load_state_dict"
        if channels[0] < channels[1]
        else ""
    )
    raise CheckpointError(f"{where}: this generator is dense. Convert the file first, or use G.load_state_dict{more}")


def _check(G: torch.nn.Module, state: StateDict, where: str, found: Located) -> None:
    """Raise `CheckpointError` unless every tensor of ``G`` is in ``state``, in its shape, and nothing else is; stored
    noise may be missing as a whole."""
    want = {name: tuple(tensor.shape) for name, tensor in G.state_dict().items()}
    role = found.adapter.states
    optional = [name for name in want if role is not None and role.may_lack(name)]
    if not any(name in state for name in optional):
        want = {name: shape for name, shape in want.items() if name not in optional}
    have = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [name for name in {**want, **have} if want.get(name) != have.get(name)]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{where} is of another generator: {len(wrong)} tensors differ ({name}: {have.get(name, 'missing')} in the "
            f"file, {want.get(name, 'unknown')} here). Is it of the same size and channel multiplier?"
        )

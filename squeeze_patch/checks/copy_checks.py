"""Whether copies, state dicts and pickles of a generator are what it is."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.checks.answers import Answer, Context, holds, short, skipped
from squeeze_patch.checks.fixed_inputs import fixed_latents
from squeeze_patch.checks.subjects import Subject, code_is_checked, is_of_states, tensors_of
from squeeze_patch.sampling import draw, evaluation
from squeeze_patch.surgery.status import status_of_part

#: seconds that a process may take to load a pickle
PATIENCE = 300
BY_DESIGN = (
    "where state dicts are shipped, and squeeze_patch squeezes classes of the repository's own, "
    "without_squeeze_patch = false in [checks]"
)
#: rebuilds a generator where squeeze_patch cannot be imported, and calls it as it was called before
ELSEWHERE = """
import pickle, sys, warnings
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "squeeze_patch":
            raise ModuleNotFoundError("No module named 'squeeze_patch'", name=name)
sys.meta_path.insert(0, Absent())
sys.path[:0] = sys.argv[2:]
warnings.simplefilter("ignore")
import torch
folder = sys.argv[1]
with open(folder + "/generator.pkl", "rb") as stream:
    G = pickle.load(stream)
call = torch.load(folder + "/call.pt", map_location="cpu")
with torch.no_grad():
    answer = G.eval()(*call["args"], **call["kwargs"])
torch.save(answer[0] if isinstance(answer, (tuple, list)) else answer, folder + "/answer.pt")
"""


def deepcopy(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """A copy is squeezed, makes the same images and shares nothing."""
    twin = copy.deepcopy(subject.root)
    own = {tensor.data_ptr() for tensor in tensors_of(subject.root).values() if tensor.numel()}
    shared = [name for name, tensor in tensors_of(twin).items() if tensor.numel() and tensor.data_ptr() in own]
    if shared:
        return short(f"the copy shares {len(shared)} tensors with it", wanted="none", place=shared[0])
    return _same(subject, twin, context, "a copy")


def state_dict(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """It loads, strictly, into the generator made anew, whose own weights are gone."""
    fresh = context.anew(subject).root
    other = copy.deepcopy(fresh)
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            if tensor.is_floating_point():
                tensor.zero_()
    stored = copy.deepcopy(subject.root.state_dict())
    kept = [name for name, _ in subject.root.named_buffers() if name not in stored]
    try:
        other.load_state_dict(stored, strict=True)
    except RuntimeError as error:
        return short(f"it does not load: {' '.join(str(error).split())}", wanted="the names and shapes of its own")
    for (name, buffer), (_, made) in zip(other.named_buffers(), fresh.named_buffers()):
        if name in kept:  # what a state dict leaves out by design comes from the constructor
            buffer.copy_(made)
    return _same(subject, other, context, "the generator made anew, with the state dict of this one,")


def pickled(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """A pickle is squeezed and makes the same images."""
    stream = io.BytesIO()
    try:
        pickle.dump(subject.root, stream)
    except Exception as error:
        return short(f"it cannot be pickled: {type(error).__name__}: {error}", wanted="a pickle")
    return _same(subject, pickle.loads(stream.getvalue()), context, "its pickle")


def without_squeeze_patch(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """A pickle makes the same images in a process that has the repository, and not squeeze_patch."""
    if subject.found.adapter.pickles is None:
        return skipped(f"files of the family {subject.found.adapter.name} hold state dicts, no pickled generators")
    if is_of_states(context.config, subject):
        return skipped("the file holds a state dict, no pickled generator")
    if not code_is_checked(context.config):
        return skipped("the file is read without running its code", "trust = true in [generator] runs it")
    inputs, expected = _call_of(subject)
    with tempfile.TemporaryDirectory(prefix="squeeze_patch_") as folder:
        with open(Path(folder) / "generator.pkl", "wb") as stream:
            pickle.dump(copy.deepcopy(subject.root).cpu(), stream, protocol=4)
        torch.save(inputs, Path(folder) / "call.pt")
        command = [sys.executable, "-c", ELSEWHERE, folder, *_importable()]
        environment = {**os.environ, "PYTHONPATH": ""}
        how: Any = {"capture_output": True, "text": True, "errors": "replace", "timeout": PATIENCE, "check": False}
        done = subprocess.run(command, cwd=folder, env=environment, **how)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            ours = "squeeze_patch" in last
            return short(
                f"its pickle does not load: {last}",
                wanted="a pickle that needs the repository alone",
                place=_of_squeeze_patch(subject.root) if ours else "",
                cure=BY_DESIGN if ours else "",
            )
        answer = load_tensors(Path(folder) / "answer.pt").float()
    limit = context.tolerance(subject, 0.0) * float(expected.abs().max())
    apart = float((answer - expected).abs().max()) if answer.shape == expected.shape else float("inf")
    if not apart <= limit:
        return short(f"its pickle makes images that differ by {apart:.2g}", wanted=f"{limit:.1g} at most")
    return holds("its pickle loads and makes the same images where squeeze_patch is not installed")


def _of_squeeze_patch(root: torch.nn.Module) -> str:
    """The first layer whose class is squeeze_patch's own."""
    layers = root.named_modules()
    return next((name for name, layer in layers if type(layer).__module__.split(".")[0] == "squeeze_patch"), "")


def _importable() -> List[str]:
    return [path for path in sys.path if path and not path.endswith(".zip")]


def _call_of(subject: Subject) -> Tuple[Dict[str, Any], torch.Tensor]:
    """How the generator is called for an image, and what it answers."""
    calls: List[Dict[str, Any]] = []

    root, sampler = subject.root, subject.found.sampler()
    forward, own = root.forward, vars(root).get("forward")

    def heard(*args: Any, **kwargs: Any) -> Any:  # hooks do not see keywords in torch 1.13
        output = forward(*args, **kwargs)
        first = output[0] if isinstance(output, (tuple, list)) else output
        calls.append({"args": args, "kwargs": kwargs, "answer": first})
        return output

    try:
        setattr(root, "forward", heard)  # noqa: B010 - a method, to mypy
        with evaluation(root):
            draw(sampler, *fixed_latents(sampler, 2))
    finally:
        if own is None:
            del root.forward
        else:
            setattr(root, "forward", own)  # noqa: B010
    call = calls[-1]
    return {"args": call["args"], "kwargs": call["kwargs"]}, call["answer"].float().cpu()


def _same(subject: Subject, other: torch.nn.Module, context: Context, what: str) -> Answer:
    """``other`` is squeezed as the generator is, and makes its images."""
    found = locate(other)
    mine, its = status_of_part(subject.found), status_of_part(found)
    if mine != its:
        return short(f"{what} is {its}", wanted=str(mine))
    sampler = found.sampler()
    z, c = fixed_latents(sampler, 2)
    with evaluation(other), evaluation(subject.root):
        images = [draw(one, z, c).cpu() for one in (subject.found.sampler(), sampler)]
    limit = context.tolerance(subject, 0.0) * float(images[0].abs().max())
    apart = float((images[0] - images[1]).abs().max())
    if not apart <= limit:
        return short(f"{what} makes images that differ by {apart:.2g}", wanted=f"{limit:.1g} at most")
    return holds(f"{what} is squeezed and makes the same images")

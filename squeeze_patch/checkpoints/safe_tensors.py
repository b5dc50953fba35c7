"""A generator alone, as a state dict: files of safetensors, and of torch.save.

safetensors keeps tensors and words, and no code; the Plan of a squeezed generator is one of its words. A state dict
says nothing of activations and gains, so that what is written is first read back as a generator and run beside the one
in memory.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import IO, Any, Dict, Optional

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.bodies import PLAN_ENTRY, WHOLE, Site, stand_in
from squeeze_patch.checkpoints.same_images import difference_of_images
from squeeze_patch.checkpoints.state_dicts import Archive, archive_of
from squeeze_patch.errors import CheckpointError, MissingPackageError, UnsupportedModelError
from squeeze_patch.planning.plans import Plan

FORMATS = ("safetensors", "pt")
#: bytes of the header of a file of safetensors
LONGEST_HEADER = 100_000_000
#: name of the one entry of a .pt file
ENTRY = "G_ema"


class TensorFile(Archive):
    """A file of safetensors: one state dict."""

    def save(self, stream: IO[bytes]) -> None:
        entries = self.entries()
        plan = entries.get(PLAN_ENTRY)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in entries[WHOLE].items()}
        words = {"format": "pt", **({PLAN_ENTRY: json.dumps(plan)} if plan else {})}
        stream.write(_package("safetensors.torch").save(_apart(state), metadata=words))

    def entries(self) -> Any:
        """{`WHOLE`: the state dict, `PLAN_ENTRY`: the Plan where it is squeezed}."""
        found = [locate(self[name]) for name in self.sites]
        plans = [plan for plan in (one.surgery.plan_of(one.network) for one in found) if plan]
        plan = {PLAN_ENTRY: json.loads(json.dumps(plans[0]))} if plans else {}  # with lists, as JSON has them
        return {WHOLE: super().entries(), **plan}


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and that header."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def is_tensor_file(source: Path) -> bool:
    """Whether a file is one of safetensors."""
    with open(source, "rb") as stream:
        return is_safetensors(stream.read(9))


def read_tensors(source: Path) -> Dict[str, Any]:
    """The entries of a file of safetensors, as `state_dicts.read_entries` returns those of others.

    Raises:
        CheckpointError: it is damaged.
        MissingPackageError: safetensors is not installed.
    """
    package = _package("safetensors")
    try:
        with package.safe_open(str(source), framework="pt") as file:
            words = file.metadata() or {}
            # copies: what the package returns is the mapped file, which another process may change or make shorter,
            # and which Windows neither replaces nor removes meanwhile
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except Exception as error:  # whatever a damaged file brings about
        raise CheckpointError(f"{source}: no readable file of safetensors ({error}); is it complete?") from error
    found: Dict[str, Any] = {WHOLE: state}
    if PLAN_ENTRY in words:
        try:
            found[PLAN_ENTRY] = json.loads(words[PLAN_ENTRY])
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{source}: its {PLAN_ENTRY} is no JSON ({error}): the file was changed") from error
    return found


def in_order_of(found: Dict[str, Any], archive: Archive) -> Dict[str, Any]:
    """What `read_tensors` has read, its tensors in their order in ``archive``, which such files do not keep."""
    wanted, state = archive.entries()[WHOLE], found[WHOLE]
    order = [name for name in wanted if name in state] + [name for name in state if name not in wanted]
    return {**found, WHOLE: {name: state[name] for name in order}}


def read_tensor_file(source: Path) -> TensorFile:
    """`read_tensors`, with a stand-in for the generator."""
    return archive_of(source, read_tensors(source), TensorFile())


def check_form(form: Optional[str]) -> None:
    """Raise `CheckpointError` where there is no such kind of file, `MissingPackageError` where its package is
    missing."""
    if form not in (None, *FORMATS):
        raise CheckpointError(f"there is no format {form!r}; there are {' and '.join(FORMATS)}")
    if form == "safetensors":
        _package("safetensors")


def is_named_so(target: Path) -> bool:
    """Whether the name of a file says that it is one of safetensors, which runs nothing where it is loaded."""
    return target.suffix == ".safetensors"


def check_name(target: Path, data: Any) -> None:
    """Raise `CheckpointError` where ``data``, as of `io.read`, is of another kind than its file's name says."""
    if is_named_so(target) and not isinstance(data, TensorFile):
        raise CheckpointError(
            f"{target}: a file of this name is one of safetensors, and what is to be written is not; name another one, "
            "and make a file of safetensors of it with convert --format safetensors"
        )


def alone(G: Located, form: str) -> Archive:
    """A file that holds one generator and nothing else.

    Args:
        G: it, dense or squeezed.
        form: one of `FORMATS`.

    Raises:
        UnsupportedModelError: its state dict does not say what it computes.
    """
    _prove(G)
    name = WHOLE if form == "safetensors" else ENTRY
    archive = TensorFile() if form == "safetensors" else Archive()
    archive[name] = G.generator
    archive.sites = {name: Site(name, {"": ""})}
    return archive


def _prove(G: Located) -> None:
    plan = G.surgery.plan_of(G.network)
    try:
        body = stand_in(G.generator.state_dict(), Plan.from_dict(plan) if plan else None)
    except CheckpointError as error:
        raise UnsupportedModelError(str(error)) from error
    if body is None:
        raise UnsupportedModelError(
            f"the state dict of {type(G.generator).__name__} alone is none of a known family, so that nothing could be "
            "made of it; write a file of the source's kind, without --format"
        )
    wrong = difference_of_images(locate(G.generator), locate(body))
    if wrong:
        raise UnsupportedModelError(
            "this generator computes something else than its state dict alone says (another activation, gain or clamp "
            f"than StyleGAN2's): {wrong}. A file of the source's kind, written without --format, carries that, too"
        )


def _apart(state: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    """Tensors that share numbers, which safetensors does not keep, each with its own."""
    seen = set()
    found = {}
    for name, tensor in state.items():
        place = tensor.data_ptr()
        found[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "files of safetensors need a package that is not installed: pip install 'squeeze-patch[safetensors]'"
        ) from error

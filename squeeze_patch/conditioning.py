"""The labels that conditional generators are run on: one random class an image, or rows of the user's own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Optional, Union

import numpy as np
import torch

from squeeze_patch.errors import LabelsError

#: the hosts' file of labels in a data set's folder or zip
DATASET_JSON = "dataset.json"


@dataclass
class _Given:
    """Labels that were given: float32 [n, c_dim], or classes, int64 [n]; and whether a generator has seen them."""

    rows: np.ndarray
    seen: bool = False


_GIVEN: ContextVar[Optional[_Given]] = ContextVar("labels of squeeze_patch", default=None)
_MATTER: ContextVar[bool] = ContextVar("whether labels of squeeze_patch matter", default=True)


@contextlib.contextmanager
def labels(rows: Union[str, Path, np.ndarray, torch.Tensor, List[Any], None]) -> Iterator[None]:
    """For the length of a block, let every conditional generator that squeeze_patch runs see these labels.

    Without it an image gets one random class, one-hot, each as often, as a class-conditional generator does in training
    where all classes are equally frequent. Give any other labels (camera parameters, several attributes at a time,
    classes of which some are rare): trained starts, `squeeze_patch.recover` and `squeeze_patch.compare` go by the
    styles of the labels that they see. It holds in the thread that entered it.

    Args:
        rows: labels [n, c_dim], numbers; or classes [n], whole numbers from 0; each image gets a random one of the n.
            Or a file with them: NumPy's ``.npy``, a data set's ``dataset.json``, or the data set, a folder or zip that
            holds it. None: as without.

    Raises:
        LabelsError: there are no such labels in ``rows``; or, within the block, when a generator is to be run that
            takes others.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> with squeeze_patch.labels([[0.2, 1.0], [0.7, 0.0]]):  # of a G with c_dim = 2, and the demo's has none
        ...     squeeze_patch.apply(trained_generator())
        Traceback (most recent call last):
        ...
        squeeze_patch.errors.LabelsError: labels were given, and the generator takes none
    """
    token = _GIVEN.set(None if rows is None else _Given(_checked(rows)))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def drawn_labels(n: int, c_dim: int, random: torch.Generator) -> torch.Tensor:
    """Labels [n, c_dim], float32, on the CPU, of ``n`` images: rows of those that were given, else one-hot classes.

    Raises:
        LabelsError: those that were given are no labels of ``c_dim`` entries.
    """
    given = _GIVEN.get()
    if given is not None:
        _check_fits(given.rows, c_dim)
        given.seen = True
    cpu: Any = {"device": "cpu"}  # whatever the caller has for other tensors
    if not c_dim:
        return torch.zeros([n, 0], dtype=torch.float32, **cpu)
    chosen = torch.randint(c_dim if given is None else len(given.rows), [n], generator=random, **cpu)
    if given is not None:
        chosen = torch.from_numpy(given.rows[chosen.numpy()])
    return chosen if chosen.ndim == 2 else torch.nn.functional.one_hot(chosen, c_dim).to(torch.float32)


def refuse_labels() -> None:
    """Raise `LabelsError` where labels were given; of generators that have none."""
    if _GIVEN.get() is not None:
        raise LabelsError("labels were given, and the generator takes none")


def are_given() -> bool:
    return _GIVEN.get() is not None


def are_unseen() -> bool:
    """Whether labels were given, and no generator has been run on them yet."""
    given = _GIVEN.get()
    return given is not None and not given.seen


def are_missing() -> bool:
    """Whether none were given where they matter."""
    return _MATTER.get() and not are_given()


@contextlib.contextmanager
def any_will_do() -> Iterator[None]:
    """For the length of a block, labels do not matter: what it is about is the same with others."""
    token = _MATTER.set(False)
    try:
        yield
    finally:
        _MATTER.reset(token)


def digest() -> Optional[str]:
    """A name of the labels that were given, another one for others; None where none were."""
    given = _GIVEN.get()
    if given is None:
        return None
    rows = given.rows
    return hashlib.sha256(f"{rows.dtype} {rows.shape} ".encode() + rows.tobytes()).hexdigest()[:12]


def in_words(c_dim: int) -> str:
    """How images of a generator with ``c_dim`` entries get their labels; "" where it has none."""
    given = _GIVEN.get()
    if not c_dim:
        return ""
    if given is None:
        return f"one of {c_dim} classes an image, each as often"
    return f"of the {len(given.rows):,} given"


def _checked(rows: Any) -> np.ndarray:
    """float32 [n, c_dim], or int64 [n]."""
    where = f"{rows}: " if isinstance(rows, (str, Path)) else ""
    values = _read(Path(rows)) if where else rows
    if isinstance(values, (list, tuple)) and len({np.shape(row) for row in values}) > 1:
        raise LabelsError(f"{where}labels have to be rows of one length")
    if isinstance(values, torch.Tensor) and values.is_floating_point():
        values = values.float()  # NumPy has no bfloat16
    try:
        found = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    except Exception as error:  # a tensor without numbers at hand, say
        raise LabelsError(f"{where}labels have to be numbers ({error})") from error
    is_number = found.dtype.kind in "biuf"
    is_classes = found.ndim == 1 and found.dtype.kind in "iu"
    if not (is_number and len(found.shape) and found.size and (is_classes or found.ndim == 2)):
        raise LabelsError(
            f"{where}labels have to be numbers [n, c_dim] or whole numbers [n], 1 or more, not {found.dtype} "
            f"{[*found.shape]}"
        )
    with np.errstate(over="ignore"):  # what float32 does not hold is told below
        found = found.astype(np.int64 if is_classes else np.float32)  # a copy
    if is_classes and found.min() < 0:
        raise LabelsError(f"{where}classes are counted from 0; there is {found.min()}")
    if not np.isfinite(found).all():
        raise LabelsError(f"{where}labels hold values that are not finite, or too large")
    return found


def _check_fits(given: np.ndarray, c_dim: int) -> None:
    if not c_dim:
        refuse_labels()
    if given.ndim == 1 and given.max() >= c_dim:
        raise LabelsError(f"the generator has {c_dim} classes, 0 to {c_dim - 1}; the labels given go to {given.max()}")
    if given.ndim == 2 and given.shape[1] != c_dim:
        raise LabelsError(f"the generator takes labels of {c_dim} entries; those given have {given.shape[1]}")


def _read(path: Path) -> Any:
    """What a file of labels holds."""
    try:
        if path.is_dir():
            return _of_data_set(path / DATASET_JSON, (path / DATASET_JSON).read_bytes())
        if path.suffix.lower() == ".json":
            return _of_data_set(path, path.read_bytes())
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        with zipfile.ZipFile(path) as archive:
            return _of_data_set(path, archive.read(DATASET_JSON))
    except LabelsError:
        raise
    except Exception as error:  # whatever a damaged file brings about
        raise LabelsError(
            f"{path}: no labels can be read from it ({type(error).__name__}: {error}). They may come as an array in a "
            f"file .npy, or as a data set's {DATASET_JSON}, by itself or in the data set's folder or zip"
        ) from error


def _of_data_set(path: Path, content: bytes) -> List[Any]:
    """The labels of a host's data set: [[name of an image, class or row], ...]."""
    found = json.loads(content)
    entries = found.get("labels") if isinstance(found, dict) else None
    if not (isinstance(entries, list) and entries and all(isinstance(e, list) and len(e) == 2 for e in entries)):
        raise LabelsError(f'{path} has no labels: what is wanted is {{"labels": [[image, label], ...]}}')
    return [label for _, label in entries]

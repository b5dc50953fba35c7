"""Errors of squeeze_patch. Each also derives from the built-in that fits, and says what, where and the cure."""

from typing import Iterable, Optional

#: {module that hosts import: how it is had, where its name does not say it}
_CURES = {
    "pkg_resources": "setuptools has it no longer, from 81 on: pip install 'setuptools<81'",
    "PIL": "pip install Pillow",
    "cv2": "pip install opencv-python",
    "skimage": "pip install scikit-image",
    "sklearn": "pip install scikit-learn",
    "yaml": "pip install PyYAML",
}
#: what of a file is named in a message: so many words, of so many characters
MOST_WORDS, MOST_CHARACTERS = 8, 200


class SqueezeError(Exception):
    """Base of every error that squeeze_patch raises on purpose."""


class UnsupportedModelError(SqueezeError, TypeError):
    """The object is no generator that any registered adapter can squeeze."""


class ProofError(UnsupportedModelError):
    """The generator, which is as it was, does not compute what squeeze_patch takes it to, as running it showed; or its
    layers hold what would be lost."""


class UnprovedWarning(UserWarning):
    """A generator was squeezed without being run first, because it could not be."""


class LostWarning(UserWarning):
    """A generator was squeezed without proof, and its new layers lack something that the dense ones had; or a file
    holds it once more, inside of something else, or more than is read of it."""


class DownloadWarning(UserWarning):
    """A copy in the cache is used of which the server could not be asked, or a download has to wait."""


class PlanError(SqueezeError, ValueError):
    """The requested ratio, reduction or widths cannot be had on this generator."""


class LabelsError(SqueezeError, ValueError):
    """Labels that were given are none that the generator takes."""


class LabelsWarning(UserWarning):
    """A generator was run on labels of classes, and others are what it takes; or labels were given for nothing."""


class StateError(SqueezeError, RuntimeError):
    """The generator is in a state in which the operation would damage it."""


class CheckpointError(SqueezeError, ValueError):
    """A checkpoint file cannot be read, converted or written."""


class RecoveryError(SqueezeError, ValueError):
    """A recovery has settings that it cannot have, or other ones than the run that it is to go on with."""


class MeasurementError(SqueezeError, ValueError):
    """Two generators cannot be compared or measured as asked."""


class ConfigError(SqueezeError, ValueError):
    """A configuration of checks, or a baseline, says what cannot be."""


class ScriptError(SqueezeError, RuntimeError):
    """A host's own script stopped with an error of its own."""


class MissingPackageError(SqueezeError, ImportError):
    """A part of squeeze_patch needs a package that is not installed."""


#: how a command, and in brackets a function, is told that the code in a file may run. Where it is told in another way,
#: these words are replaced
TRUST_CURE = "say so with --trust, and name the host's checkout with --host DIR (in Python: trust=True, host=...)"


def module_cure(name: Optional[str]) -> Optional[str]:
    """How a module (dotted) is had that code of a host's misses, None where its name says it."""
    return _CURES.get((name or "").split(".")[0])


def listed(words: Iterable[str]) -> str:
    """Words out of a file for a message: the first ones, and how many more there are."""
    found = list(words)
    more = f" and {len(found) - MOST_WORDS} more" if len(found) > MOST_WORDS else ""
    return ", ".join(map(shortened, found[:MOST_WORDS])) + more


def shown(value: object) -> str:
    """A value that may come out of a file, whatever it is, on one line of a message."""
    return shortened(" ".join(repr(value).split()))


def shortened(text: object) -> str:
    """A text that may come out of a file, for a message."""
    whole = str(text)
    return whole if len(whole) <= MOST_CHARACTERS else f"{whole[:MOST_CHARACTERS]}..."

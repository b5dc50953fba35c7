"""A host's command line, as it would be typed without squeeze_patch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Sequence

from squeeze_patch.errors import SqueezeError

_PYTHON = re.compile(r"python(w|\d+(\.\d+)?)?(\.exe)?", re.IGNORECASE)
#: options of Python itself that change nothing which a script computes
_HARMLESS = re.compile(r"-[uBbqv]+")
#: what starts a script several times
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "mpirun")
_LAUNCHING_MODULES = ("torch.distributed.launch", "torch.distributed.run")


def host_words(arguments: Sequence[str], command: str) -> List[str]:
    """The host's script and its own options, without the ``python`` that may stand in front of them.

    Args:
        arguments: what the user would run.
        command: of squeeze-patch, for messages.

    Raises:
        SqueezeError: what stands in front of the script has to stand in front of squeeze_patch.

    >>> host_words(["python", "-u", "train.py", "--gpus=1"], "train")
    ['train.py', '--gpus=1']
    """
    words = list(arguments)
    by_python = bool(words) and _PYTHON.fullmatch(Path(words[0]).name) is not None
    if by_python:
        words = words[1:]
        while words and _HARMLESS.fullmatch(words[0]):
            words = words[1:]
    launched = by_python and words[:1] == ["-m"] and words[1:2] and words[1] in _LAUNCHING_MODULES
    if launched or (words and Path(words[0]).name.removesuffix(".exe") in _LAUNCHERS):  # accelerate.py is a script
        launcher = " ".join(arguments[:3] if launched else arguments[:1])
        if command == "train":
            raise SqueezeError(
                f"{launcher} starts a script in several processes; leave it out: scripts that train knows start their "
                "own (NVIDIA's --gpus=2, lucidrains' --multi_gpus)"
            )
        raise SqueezeError(
            f"{launcher} starts a script in several processes; it comes first: torchrun --nproc_per_node=2 "
            f"-m squeeze_patch {command} -- script.py ..."
        )
    if by_python and words[:1] == ["-m"]:
        raise SqueezeError(
            f"behind {arguments[0]} a script is wanted, not -m: give the file of that module, "
            f"squeeze-patch {command} -- {'/'.join((words[1:] or ['script'])[0].split('.'))}.py ..."
        )
    if by_python and (not words or words[0].startswith("-")):
        option = words[0] if words else "nothing"
        raise SqueezeError(
            f"behind {arguments[0]} a script is wanted, not {option}: squeeze-patch {command} -- script.py ...; "
            f"options of Python itself come first: python OPTIONS -m squeeze_patch {command} -- script.py ..."
        )
    return words

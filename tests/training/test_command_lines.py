"""What users put behind ``squeeze-patch train --`` and ``squeeze-patch run --``."""

from __future__ import annotations

from typing import List

import pytest

from squeeze_patch.errors import SqueezeError
from squeeze_patch.training.command_lines import host_words
from tests.helpers import cli


@pytest.mark.parametrize(
    "before", [[], ["python"], ["python3"], ["/usr/bin/python3.11", "-u", "-B"], ["pythonw.exe", "-q"]]
)
def test_python_in_front_of_the_script_is_passed_over(before: List[str]) -> None:
    assert host_words([*before, "train.py", "-u", "python"], "train") == ["train.py", "-u", "python"]


def test_a_script_may_be_called_as_a_launcher_is() -> None:
    assert host_words(["accelerate.py", "--x"], "run") == ["accelerate.py", "--x"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["torchrun.exe", "train.py"], "torchrun.exe starts a script in several processes"),
        (["torchrun", "train.py"], "torchrun starts a script in several processes; it comes first: torchrun "),
        (["python", "-m", "torch.distributed.launch", "train.py"], "python -m torch.distributed.launch starts"),
        (["python", "-W", "ignore", "train.py"], "not -W: squeeze-patch run -- script.py"),
        (["python"], "not nothing: squeeze-patch run"),
    ],
)
def test_what_has_to_stand_in_front_of_squeeze_patch(words: List[str], message: str) -> None:
    with pytest.raises(SqueezeError) as error:
        host_words(words, "run")
    assert message in str(error.value)
    assert "-m squeeze_patch run -- script.py" in str(error.value)


def test_scripts_of_train_start_their_own_processes() -> None:
    """In several, each would begin a run of its own."""
    with pytest.raises(SqueezeError, match=r"torchrun starts a script in several processes; leave it out: .*--gpus=2"):
        host_words(["torchrun", "--nproc_per_node=2", "train.py"], "train")


@pytest.mark.parametrize(("words", "file"), [(["pkg.train", "--x"], "pkg/train.py"), ([], "script.py")])
def test_modules_are_given_by_their_file(words: List[str], file: str) -> None:
    with pytest.raises(SqueezeError, match=f"not -m: give the file of that module, squeeze-patch run -- {file} "):
        host_words(["python3", "-m", *words], "run")


@pytest.mark.parametrize("command", ["train", "run"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rato", "4", "--", "train.py"], "there is --rato, which is no option of {}; did you mean --ratio? The "),
        (["--", "--outdir=x"], "there is --outdir, which is no option of {}. The script's own options stand behind"),
        (["--ratio=2", "--budget=0.7x", "--", "train.py"], "--ratio and --budget both say how far to squeeze"),
    ],
)
def test_mistyped(command: str, words: List[str], message: str) -> None:
    code, _, err = cli(command, *words)
    assert code == 2
    assert message.format(f"squeeze-patch {command}") in err

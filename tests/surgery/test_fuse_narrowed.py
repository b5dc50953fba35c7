"""A generator without excite has nothing to fuse: that is said, and nothing is written."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import squeeze_patch
from squeeze_patch.cli import main
from squeeze_patch.demo import trained_generator
from squeeze_patch.testing.shapes_contract import plan_of_kind
from tests.processes import command_runner

WORDS = "no block with excite"


def test_in_python() -> None:
    G = squeeze_patch.apply(trained_generator(), method="narrow", init="weights").eval()
    with pytest.raises(squeeze_patch.StateError, match=WORDS):
        squeeze_patch.fuse(G)
    assert squeeze_patch.status(G).fused_blocks == 0
    mixed = trained_generator()
    squeeze_patch.fuse(squeeze_patch.apply(mixed, plan=plan_of_kind(mixed, "mixed"), init="weights").eval())
    assert squeeze_patch.status(mixed).fused_blocks == 2  # of four, one is narrowed and one dense but for what it reads


def test_commands(tmp_path: Path) -> None:
    dense, narrowed, target = (str(tmp_path / f"{name}.pkl") for name in ("dense", "narrowed", "out"))
    Path(dense).write_bytes(pickle.dumps({"G_ema": trained_generator()}))
    quick = ("--trust", "--method", "narrow", "--init", "weights", "--quiet")
    assert command_runner().invoke(main, ["convert", dense, narrowed, *quick]).exit_code == 0
    for arguments in (
        ["convert", dense, target, *quick, "--fuse"],
        ["convert", dense, target, "--trust", "--fuse", "--like", narrowed],
        ["convert", narrowed, target, "--trust", "--fuse"],
        ["report", narrowed, "--against", dense, "--trust", "--fuse", "--repeats", "2"],
    ):
        done = command_runner().invoke(main, arguments)
        assert done.exit_code == 2, done.output
        assert WORDS in done.stderr
        assert not Path(target).exists()

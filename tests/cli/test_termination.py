"""Signals that end a command: it cleans up behind itself, and ends by them."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.hosts import HERE, SHIMS, Host
from tests.processes import environment_with, python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
#: a script's own work, which catches what it can
ENDED = """
def subprocess_fn(**_):
    import signal, time
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)
    except (Exception, SystemExit):
        print("caught")
    finally:
        print("tidied up")
"""
SIGNALS = """
import os, signal, sys, time
from squeeze_patch.cli.termination import clean_termination
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with clean_termination():
    os.kill(os.getpid(), signal.SIGHUP)
    child = os.fork()
    if not child:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            print("the child's, too")
    print(os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up")
print("never")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_train_leaves_no_folder(draggan: Host, tmp_path: Path, name: str) -> None:
    script = tmp_path / "train.py"
    shutil.copy(HERE / "mini_train.py", script)
    text = script.read_text()
    begin, end = text.index("def subprocess_fn"), text.index("def training_loop")
    script.write_text(text[:begin] + ENDED.format(name=name) + text[end:])
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = environment_with(draggan.folder, *SHIMS, TMPDIR=str(temporary))
    arguments = ["-m", "squeeze_patch", "train", "--ratio", "2", "--", "train.py", "--outdir=out"]
    done = python(*arguments, cwd=tmp_path, env=env)
    assert done.returncode == -getattr(signal, name), done.stdout + done.stderr
    assert "tidied up" in done.stdout
    assert "caught" not in done.stdout
    assert list(temporary.iterdir()) == []


def test_one_signal_is_enough(tmp_path: Path) -> None:
    """A second one breaks no cleaning off; ignored ones stay so; forked processes end at once, with nothing cleaned."""
    (tmp_path / "script.py").write_text(SIGNALS)
    done = python("script.py", cwd=tmp_path, env=environment_with(ROOT))
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    assert done.stdout.split("\n") == ["True", "cleaned up", ""]

"""Which file a host's script is, under which name it runs, and which of its processes are ours."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, List

import pytest
import torch

from squeeze_patch.errors import SqueezeError
from squeeze_patch.training.common import SCRIPT_VARIABLE, import_script
from squeeze_patch.training.run import _ranked, _told_of_none, _told_of_spawned, run


@pytest.fixture(autouse=True)
def _process_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", [*sys.argv])
    for name in ("train", "train.v2", "model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, None)  # to be taken away again afterwards, whatever is there by then
        del sys.modules[name]


def imported(script: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(SCRIPT_VARIABLE, str(script))
    return import_script()


def test_the_script_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another folder that has a train.py comes first, as the one where the command was typed does."""
    for name in ("typed", "host"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(f"import helper\nwhere = '{name}'\n")
        (tmp_path / name / "helper.py").write_text(f"where = '{name}'\n")
    sys.path[:0] = [str(tmp_path / "typed"), str(tmp_path / "host")]
    module = imported(tmp_path / "host" / "train.py", monkeypatch)
    monkeypatch.delitem(sys.modules, "helper")
    assert (module.where, module.helper.where) == ("host", "host")
    assert imported(tmp_path / "host" / "train.py", monkeypatch) is module
    assert sys.modules["train"] is module
    with pytest.raises(SqueezeError, match="^train.py: a module called train is in use here already .*another name"):
        imported(tmp_path / "typed" / "train.py", monkeypatch)


def test_scripts_by_unusual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.v2.py").write_text("where = 'here'\n")
    assert imported(tmp_path / "train.v2.py", monkeypatch).where == "here"
    (tmp_path / "torch.py").write_text("")
    with pytest.raises(SqueezeError, match=r"^torch.py: .*another name"):
        imported(tmp_path / "torch.py", monkeypatch)
    (tmp_path / "train.py").write_text("raise RuntimeError('half way')\n")
    with pytest.raises(SqueezeError, match="half way"):
        imported(tmp_path / "train.py", monkeypatch)
    assert "train" not in sys.modules  # not half of it


def test_a_link_to_a_script(tmp_path: Path) -> None:
    """As by Python itself: modules from beside the script, and the link's name for what lies beside that."""
    for name in ("host", "links"):
        (tmp_path / name).mkdir()
    (tmp_path / "host" / "model.py").write_text("class Generator: pass\n")
    (tmp_path / "host" / "script.py").write_text("import model\nopen(__file__ + '.seen', 'w').close()\n")
    (tmp_path / "links" / "script.py").symlink_to(tmp_path / "host" / "script.py")
    run([str(tmp_path / "links" / "script.py")], ratio=2, say=lambda line: None)
    assert (tmp_path / "links" / "script.py.seen").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data"], ["data", "--local_rank=1"]),
        (["--local_rank", "0"], ["--local_rank", "0"]),
        (["--local-rank=0"], ["--local-rank=0"]),
    ],
)
def test_the_number_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: List[str], expected: List[str]
) -> None:
    """For scripts that take it as an option, which today's launchers leave out."""
    (tmp_path / "train.py").write_text('parser.add_argument("--local_rank", type=int, default=0)')
    (tmp_path / "other.py").write_text("# LOCAL_RANK")
    train, other = (str(tmp_path / name) for name in ("train.py", "other.py"))
    assert _ranked([train, *words], Path(train)) == [train, *words]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _ranked([train, *words], Path(train)) == [train, *expected]
    assert _ranked([other, *words], Path(other)) == [other, *words]


def test_a_script_that_trains_another_network_is_told_at_once() -> None:
    """Not when it ends, after days, or is interrupted."""
    said: List[str] = []
    backward = torch.autograd.backward
    with contextlib.suppress(KeyboardInterrupt), _told_of_none("train.py", [], said.append):
        for _ in range(2):
            torch.ones(1, requires_grad=True).sum().backward()
            assert [line.partition(",")[0] for line in said] == [
                "squeeze_patch: train.py built no generator in this process"
            ]
        raise KeyboardInterrupt
    assert torch.autograd.backward is backward
    with _told_of_none("train.py", ["Generator"], lambda line: pytest.fail(line)):
        torch.ones(1, requires_grad=True).sum().backward()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_is_spawned_is_told(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("no process is forked here")
    context: Any = multiprocessing.get_context(method)
    started: List[Any] = []
    monkeypatch.setattr(BaseProcess, "start", lambda self: started.append(self))
    said: List[str] = []
    with _told_of_spawned("train.py", said.append):
        for target in (torch.utils.data._utils.worker._worker_loop, print, pow):
            context.Process(target=target).start()
    context.Process(target=print).start()
    assert len(started) == 4
    words = "squeeze_patch: train.py spawns a process, for print: a generator that is built in there stays dense"
    assert [line.startswith(words) for line in said] == [True] * (method != "fork")


def test_what_torch_spawns_is_told_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch.multiprocessing.spawn starts it."""
    monkeypatch.setattr(BaseProcess, "start", lambda self: None)
    wrap = sys.modules["torch.multiprocessing.spawn"]._wrap
    said: List[str] = []
    with _told_of_spawned("train.py", said.append):
        multiprocessing.get_context("spawn").Process(target=wrap, args=(print, 0, (), "errors")).start()
    assert [line.split(":")[1] for line in said] == [" train.py spawns a process, for print"]

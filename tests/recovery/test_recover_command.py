"""squeeze-patch recover: files in, a file out, broken off and resumed, in one process and in two.

Killed at random moments and resumed: `python -m benchmarks kill`, and in short the test beside it.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate, reference_name
from squeeze_patch.checkpoints.convert import convert, convert_file
from squeeze_patch.checkpoints.generators import generators
from squeeze_patch.checkpoints.io import read, save
from squeeze_patch.demo import trained_generator
from squeeze_patch.planning.plans import Plan
from squeeze_patch.progress import one_thread
from squeeze_patch.recovery import recover_file
from squeeze_patch.recovery.processes import joined
from squeeze_patch.recovery.progress_line import Line, duration
from squeeze_patch.recovery.recover_file import _follow
from squeeze_patch.recovery.session import Step
from squeeze_patch.recovery.state_file import Evaluation
from squeeze_patch.surgery.status import status_of_part
from squeeze_patch.testing import trained
from tests.helpers import SAMPLE_SCRIPT, SMALL, cli, run_in_host, same, tensors, write_checkpoint
from tests.hosts import SHIMS, Host
from tests.processes import python

QUICK = ["--steps", "6", "--every", "2", "--batch", "4", "--device", "cpu", "--trust"]


@pytest.fixture
def folder(draggan: Host, tmp_path: Path) -> Path:
    """dense.pkl with G, D and G_ema, and squeezed.pkl."""
    with one_thread():
        write_checkpoint(draggan, tmp_path / "dense.pkl", **SMALL)
        convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True, ratio=2)
    return tmp_path


def recover(folder: Path, *arguments: str, out: str = "out.pkl") -> Any:
    with one_thread():
        return cli("recover", folder / "dense.pkl", *arguments, "--out", folder / out, *QUICK)


def environment(host: Host) -> Dict[str, str]:
    """Of a process that reads the host's pickles, on one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(host.folder), *SHIMS])}


def names(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_in_a_file_out(folder: Path) -> None:
    code, out, err = recover(folder, str(folder / "squeezed.pkl"))
    assert code == 0, err
    assert "dB PSNR to the dense generator (128 unseen latents, 6 steps" in out
    assert f"written     {folder / 'out.pkl'}" in out
    assert [line.split()[1] for line in err.splitlines()] == ["2/6", "4/6", "6/6"]  # a line for every evaluation
    assert names(folder) == ["dense.pkl", "out.jsonl", "out.pkl", "squeezed.pkl"]
    log = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [0, 2, 4, 6]
    assert set(log[0]) == {"step", "psnr", "loss", "learning_rate", "seconds"}

    before, after = (read(folder / name, trust=True) for name in ("squeezed.pkl", "out.pkl"))
    assert list(after) == list(before)
    for name, value in before["D"].state_dict().items():
        assert torch.equal(after["D"].state_dict()[name], value)
    assert squeeze_patch.status(after["G_ema"]) == squeeze_patch.status(before["G_ema"])
    states = {name: data["G_ema"].state_dict() for name, data in (("before", before), ("after", after))}
    moved = {n for n, value in states["after"].items() if not torch.equal(value, states["before"][n])}
    assert moved
    assert all(name.startswith("synthesis.") for name in moved)
    for name, value in after["G"].state_dict().items():
        assert torch.equal(value, states["after"][name])
    assert not any(p.requires_grad for p in after["G_ema"].parameters())


def test_the_untouched_host_loads_it(draggan: Host, folder: Path) -> None:
    assert recover(folder, str(folder / "squeezed.pkl"))[0] == 0
    (folder / "sample.py").write_text(SAMPLE_SCRIPT)
    run_in_host(draggan, folder, str(folder / "sample.py"), str(folder / "out.pkl"), str(folder))
    assert (folder / "seed0001.png").is_file()


def test_a_dense_file_alone_is_squeezed_first(folder: Path) -> None:
    convert(folder / "dense.pkl", folder / "squeezed.pkl", trust=True, ratio=2, allocate="spectral", force=True)
    code, _, err = recover(folder, "--ratio", "2", "--allocate", "spectral")
    assert code == 0, err
    assert names(folder) == ["dense.pkl", "out.jsonl", "out.pkl", "squeezed.pkl"]
    assert recover(folder, str(folder / "squeezed.pkl"), out="second.pkl")[0] == 0
    alone, second = (read(folder / name, trust=True)["G_ema"].state_dict() for name in ("out.pkl", "second.pkl"))
    assert all(torch.equal(alone[name], second[name]) for name in alone)


@pytest.mark.parametrize("case", ["squeeze", "narrow", "bare"])
def test_it_goes_on_on_another_processor(folder: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """The start that is made anew there is another one by rounding, and the weights to go on with are the state's."""
    if case == "bare":  # a state dict alone, which has no record of the channels
        torch.save(read(folder / "dense.pkl", trust=True)["G_ema"].state_dict(), folder / "dense.pkl")
    how = ["--ratio", "2", "--method", "narrow" if case == "narrow" else "squeeze"]
    assert recover(folder, *how, "--minutes", "1e-9")[0] == 0
    begun = plan_of_file(folder / "out.pkl")

    def elsewhere(dense: Path, target: Path, *arguments: Any, **keywords: Any) -> None:
        convert_file(dense, target, *arguments, **keywords)
        data = read(target, trust=True)
        for G in generators(data).values():
            module: Any = G.get_block("b8")
            module.conv1.weight.data.mul_(1 + 1e-6)
        save(data, target, force=True)

    monkeypatch.setattr(recover_file, "convert_file", elsewhere)
    for other in (["--ratio", "3", *how[2:]], [str(folder / "squeezed.pkl")]):
        code, _, err = recover(folder, *other)
        assert code == 2
        assert "out.pkl.state is of a run with other" in err
    code, out, err = recover(folder, *how)
    assert code == 0, err
    assert "6 steps" in out
    assert "taken up at step 1" in out
    assert plan_of_file(folder / "out.pkl") == begun


def test_a_run_that_goes_on_squeezes_generators_of_other_shapes_as_it_would_have(draggan: Host, folder: Path) -> None:
    data = read(folder / "dense.pkl", trust=True)
    data["source"] = trained(draggan.generator(**{**SMALL, "resolution": 16})).requires_grad_(False)
    (folder / "dense.pkl").write_bytes(pickle.dumps(data))
    for more in ([], ["--minutes", "1e-9"]):
        assert recover(folder, "--reduction", "0.3", *more, out="whole.pkl" if not more else "out.pkl")[0] == 0
    code, out, err = recover(folder, "--reduction", "0.3")
    assert code == 0, err
    assert "taken up at step 1" in out
    whole, parts = (read(folder / name, trust=True) for name in ("whole.pkl", "out.pkl"))
    for name in ("G", "G_ema", "source"):
        assert same(tensors(whole[name]), tensors(parts[name])), name


def test_a_state_that_does_not_say_for_what_the_student_was_made(folder: Path) -> None:
    """As the states of before that was kept: it goes on with a student of the same bits, and with no other."""
    assert recover(folder, str(folder / "squeezed.pkl"), "--minutes", "1e-9")[0] == 0
    code, _, err = recover(folder, "--ratio", "3")
    assert code == 2
    assert "out.pkl.state is of a run with other generators" in err
    code, out, err = recover(folder, "--ratio", "2")
    assert code == 0, err
    assert "taken up at step 1" in out


def plan_of_file(path: Path) -> Optional[Plan]:
    found = generators(read(path, trust=True))
    return status_of_part(found[reference_name(found)]).plan


def test_errors_are_one_line_and_nothing_is_written(folder: Path) -> None:
    before = names(folder)
    dense, squeezed = str(folder / "dense.pkl"), str(folder / "squeezed.pkl")
    cases: Dict[str, List[str]] = {
        "G_ema is not squeezed": [dense],
        "squeezed.pkl is squeezed already": [squeezed, "--ratio", "3"],
        "or a ratio, reduction, plan or allocation for": [squeezed, "--allocate", "spectral"],
        "Error: --lr has to be above 0": [squeezed, "--lr", "0"],
        "Error: --minutes has to be above 0": [squeezed, "--minutes", "0"],
        "none.pkl: there is no such file": ["none.pkl"],
        "source and target are the same file": [squeezed, "--out", squeezed],
        "squeezed.pkl: source and target are the same file": [squeezed, "--log", squeezed],
        "another file of the same recovery": [squeezed, "--log", str(folder / "out.pkl.state")],
        "there is no folder": [squeezed, "--log", str(folder / "none" / "log")],
        "diverged. Try a lower learning rate": [squeezed, "--lr", "1e30"],
    }
    for message, arguments in cases.items():
        code, out, err = recover(folder, *arguments) if "--out" not in arguments else same_file(folder)
        assert code == 2, message
        assert out == ""
        assert message in err
        assert err.splitlines()[-1].startswith("Error: ")
        assert sum(line.startswith("Error: ") for line in err.splitlines()) == 1
        for path in ("out.jsonl", "out.pkl.state"):  # a run that had begun
            (folder / path).unlink(missing_ok=True)
        assert names(folder) == before, message


def test_swapped_files_are_told(folder: Path) -> None:
    with one_thread():
        code, _, err = cli(
            "recover", folder / "squeezed.pkl", folder / "dense.pkl", "--out", folder / "out.pkl", *QUICK
        )
    assert code == 2
    assert "The dense file, which is the teacher, comes first" in err


def test_only_logs_are_overwritten(folder: Path) -> None:
    (folder / "out.jsonl").write_text("my notes\n")
    code, _, err = recover(folder, str(folder / "squeezed.pkl"))
    assert code == 2
    assert "out.jsonl: the file exists and is no log of a recovery" in err
    assert (folder / "out.jsonl").read_text() == "my notes\n"
    assert recover(folder, str(folder / "squeezed.pkl"), "--force")[0] == 0
    (folder / "out.pkl").unlink()
    assert recover(folder, str(folder / "squeezed.pkl"))[0] == 0  # over the log of the run before


def test_other_generators_in_the_file_stay_what_they_are() -> None:
    """It is the trained one that becomes a copy of its average; not what a file has beside them, as a source domain."""
    G = [squeeze_patch.apply(trained_generator(), init="random", keep_original=False) for _ in range(4)]
    before = [tensors(each) for each in G]
    _follow(dict(zip(("a.g_ema", "a.g", "b.g", "g_source"), map(locate, G))), G[0])
    assert same(tensors(G[1]), before[0])
    assert [same(tensors(each), then) for each, then in zip(G, before)] == [True, False, True, True]


def test_interrupted_it_says_how_to_go_on(draggan: Host, folder: Path) -> None:
    files = [str(folder / name) for name in ("dense.pkl", "squeezed.pkl")]
    command = [sys.executable, "-m", "squeeze_patch", "recover", *files, "--out", str(folder / "out.pkl")]
    command += [*QUICK, "--steps", "10000", "--every", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(draggan)) as process:
        assert process.stderr is not None
        process.stderr.readline()  # of the first evaluation, whose state is written next
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 1
    assert f"interrupted {folder / 'out.pkl.state'} is kept; the same command goes on" in rest


def same_file(folder: Path) -> Any:
    return cli("recover", folder / "dense.pkl", folder / "squeezed.pkl", "--out", folder / "squeezed.pkl", *QUICK)


def test_time_is_up_and_the_same_command_goes_on(folder: Path) -> None:
    squeezed = str(folder / "squeezed.pkl")
    code, out, _ = recover(folder, squeezed, "--minutes", "1e-9")
    assert code == 0
    assert "stopped by minutes" in out
    assert "unfinished  " in out
    assert "out.pkl.state" in names(folder)
    code, out, err = recover(folder, squeezed)
    assert code == 0, err
    assert "an earlier run is taken up at step 1" in err
    assert "taken up at step 1" in out
    assert "out.pkl.state" not in names(folder)
    code, _, err = recover(folder, squeezed)
    assert code == 2
    assert "--force overwrites it" in err


def test_auto_is_a_device_here_as_well() -> None:
    with joined("auto") as chosen, joined(None) as default:
        assert chosen == default


def test_two_processes_do_what_one_does(draggan: Host, folder: Path) -> None:
    """torchrun, gloo, the CPU: the same global batch, the same log and weights within float error; also where each runs
    its share image by image."""
    options = [*QUICK, "--every", "1", "--lr", "1e-3"]
    files = [str(folder / "dense.pkl"), str(folder / "squeezed.pkl")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for out, launcher, more in (("one.pkl", [], []), ("two.pkl", torchrun, ["--at-a-time", "1"])):
        command = [*launcher, "-m", "squeeze_patch", "recover", *files, "--out", str(folder / out), *options, *more]
        done = python(*command, cwd=folder, env=environment(draggan))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written") == 1
    logs = [[json.loads(x) for x in (folder / f"{n}.jsonl").read_text().splitlines()] for n in ("one", "two")]
    start, one, two = (read(folder / f"{n}.pkl", trust=True)["G_ema"] for n in ("squeezed", "one", "two"))
    # A gradient sums the products of 4 images, 64 pixels and 9 taps of up to 32 channels; rounding walks randomly.
    walk = torch.finfo(torch.float32).eps * math.sqrt(4 * 64 * 9 * 32)
    assert logs[0][1]["loss"] == pytest.approx(logs[1][1]["loss"], rel=walk)
    # Muon's quintic has a slope of 3.44 at 0: five times in a row, it carries errors of the smallest singular values
    # into the step, and each of the 6 steps adds its own. Other latents in a share would move a step by its own size.
    bound = 6 * 3.4445**5 * walk
    assert bound < 0.3
    for (name, a), b, c in zip(start.named_parameters(), one.parameters(), two.parameters()):
        assert float((b - c).norm()) <= bound * float((b - a).norm()), name
    assert [line["psnr"] for line in logs[0]] == pytest.approx([line["psnr"] for line in logs[1]], abs=0.05)


def test_progress_line() -> None:
    class Terminal:
        written = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.written += text

        def flush(self) -> None:
            pass

    stream: Any = Terminal()
    line = Line(stream)
    last = Evaluation(50, 31.25, 1e-3, 1e-2, 100.0)
    line(Step(60, 100, 2e-3, 2.0, last, new=False, last=False, resumed_at=50))
    line(Step(100, 100, 1e-3, 0.25, last, new=True, last=True, resumed_at=50))
    first, second = stream.written.split("\r")[1:]
    assert stream.written.startswith("an earlier run is taken up at step 50\n")
    assert first.startswith("step 60/100  31.25 dB  loss 2.00e-03  2.0 s/step  1:20 left")
    assert "  4.0 steps/s  0:00 left" in second
    assert second.endswith("\n")
    assert [duration(s) for s in (5, 65, 3700)] == ["0:05", "1:05", "1:01:40"]

    def closed(text: str) -> None:
        raise BrokenPipeError

    stream.write = closed
    line(Step(100, 100, 1e-3, 2.0, last, new=True, last=True, resumed_at=50))  # nobody reads any more
    line(Step(100, 100, 1e-3, 2.0, last, new=True, last=True, resumed_at=50))

"""The command line as users meet it."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from click.testing import CliRunner
from PIL import Image

import squeeze_patch
from squeeze_patch.checkpoints.io import read
from squeeze_patch.cli import main
from squeeze_patch.demo import trained_generator
from squeeze_patch.planning.plans import Plan
from squeeze_patch.testing import trained
from tests.helpers import cli
from tests.hosts import SHIMS, Host


def test_demo(tmp_path: Path) -> None:
    code, out, err = cli("demo", "--out", tmp_path / "demo")
    assert (code, err) == (0, "")
    assert "12.1" in out or "11.9" in out
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["dense.pkl", "samples.png", "squeezed.pkl"]
    with Image.open(tmp_path / "demo" / "samples.png") as image:
        assert image.size == (16 * 32 * 2, 3 * (32 * 2 + 16))
    decibels = float(re.search(r"([\d.]+) dB PSNR", out)[1])  # type: ignore[index]
    again = ("demo", "--out", tmp_path / "demo", "--allocate", "uniform")
    code, _, err = cli(*again)
    assert code == 2
    assert "dense.pkl: the file exists; --force overwrites it" in err
    code, out, err = cli(*again, "--force", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["conversion"]["plan"]["parameters_after"] < found["conversion"]["plan"]["parameters_before"]
    assert found["comparison"]["psnr"] < decibels - 3  # tests/initialization/test_calibrated.py says why
    assert found["comparison"]["psnr"] > 20


def test_info(snapshot: Path) -> None:
    code, out, _ = cli("info", snapshot, "--trust")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("G: Generator, dense: ")
    assert lines[1].startswith("D: Discriminator, no generator: ")
    cli("convert", snapshot, snapshot.with_name("squeezed.pkl"), "--trust")
    code, out, _ = cli("info", snapshot.with_name("squeezed.pkl"), "--trust", "--json")
    rows = json.loads(out)
    assert rows["G_ema"]["state"] == "squeezed"
    assert rows["G_ema"]["plan"]["schema"] == 1
    assert rows["D"]["state"] is None


def test_plan_writes_nothing_and_tells_what_convert_does(snapshot: Path) -> None:
    before = sorted(snapshot.parent.iterdir())
    code, out, _ = cli("plan", snapshot, "--trust", "--ratio", "2")
    assert code == 0
    assert "32x32" in out
    assert "fewer" in out
    plan = squeeze_patch.Plan.from_json(cli("plan", snapshot, "--trust", "--ratio", "2", "--json")[1])
    assert sorted(snapshot.parent.iterdir()) == before
    code, out, _ = cli("convert", snapshot, snapshot.with_name("s.pkl"), "--trust", "--ratio", "2", "--json")
    assert code == 0
    assert json.loads(out)["plan"]["parameters_after"] == plan.parameters_after


def test_plan_and_info_explain_what_cannot_be_squeezed(draggan: Host, snapshot: Path) -> None:
    cli("convert", snapshot, snapshot.with_name("squeezed.pkl"), "--trust")
    code, _, err = cli("plan", snapshot.with_name("squeezed.pkl"), "--trust")
    assert code == 2
    assert "squeezed already" in err
    other = snapshot.with_name("resnet.pkl")
    other.write_bytes(pickle.dumps({"G_ema": draggan.generator(architecture="resnet")}))
    assert (
        "G_ema: Generator, cannot be squeezed: block b4 has architecture 'resnet'" in cli("info", other, "--trust")[1]
    )
    code, _, err = cli("plan", other, "--trust")
    assert code == 2
    assert "architecture 'resnet'" in err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_terminated_conversion_cleans_up(snapshot: Path) -> None:
    """Killed while it writes: what a scheduler's SIGTERM does."""
    script = (
        "import os, signal, sys, time\n"
        "from squeeze_patch import cli\n"
        "from squeeze_patch.checkpoints import io\n"
        "def write(data, stream):\n"
        "    stream.write(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "io.write = write\n"
        "cli.main(['convert', sys.argv[1], sys.argv[2], '--trust', '--host', sys.argv[3]])\n"
    )
    host = next(Path(path) for path in sys.path if (Path(path) / "torch_utils").is_dir())
    arguments = [sys.executable, "-c", script, str(snapshot), str(snapshot.with_name("out.pkl")), str(host)]
    done = subprocess.run(arguments, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGTERM
    assert [path.name for path in snapshot.parent.iterdir()] == ["dense.pkl"]


def test_convert_prints_the_table(snapshot: Path) -> None:
    code, out, err = cli("convert", snapshot, snapshot.with_name("squeezed.pkl"), "--trust", "--reduction", "0.2")
    assert (code, err) == (0, "")  # quiet beside the table where stderr is no terminal
    for word in ("parameters", "multiply-adds", "file size", "G_ema, G, with the same channels", "unchanged", "D"):
        assert word in out


def test_convert_says_of_what_kind_a_file_is_that_is_named_otherwise(snapshot: Path, tmp_path: Path) -> None:
    options = ("--init", "random", "--trust")
    ends = {
        name: cli("convert", snapshot, tmp_path / name, *options, *more)[1].rstrip().rpartition(name)[2]
        for name, more in (("a.pkl", ()), ("a.bin", ()), ("a.pt", ("--format", "pt")), ("b.pt", ()))
    }
    assert ends.pop("b.pt") == " (of the source's kind, pickle, whatever its name says; for others: --format)"
    assert set(ends.values()) == {""}
    again = cli("convert", tmp_path / "b.pt", tmp_path / "c.pt", *options)
    assert "is squeezed already" in again[2]  # read by its content, whatever its name says
    fused = cli("convert", tmp_path / "a.pkl", tmp_path / "d.pt", "--trust", "--fuse")[1]
    assert fused.rstrip().endswith("d.pt (of the source's kind, pickle, whatever its name says)")  # no --format there


def test_report(snapshot: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(cli("plan", snapshot, "--trust", "--ratio", "2", "--json")[1])
    code, out, err = cli("report", snapshot, "--trust", "--plan", plan, "--repeats", "2", "--batch", "2")
    assert (code, err) == (0, "")
    for words in ("32x32", "parameters", "ms for 2 images", "in 2 pairs", "memory", "The squeezed generator is"):
        assert words in out
    squeezed = snapshot.with_name("squeezed.pkl")
    cli("convert", snapshot, squeezed, "--trust", "--ratio", "2")
    for against in ([], ["--against", snapshot]):
        code, out, err = cli("report", squeezed, "--trust", *against, "--repeats", "2", "--json")
        assert (code, err) == (0, "")
        data = json.loads(out)
        assert data["cost"]["parameters_after"] == json.loads(plan.read_text())["parameters_after"]
        assert data["memory_after"]["weights"] < data["memory_before"]["weights"]
    data = json.loads(cli("report", squeezed, "--trust", "--repeats", "2", "--fuse", "--json")[1])
    assert data["latency"]["fused_ratio"]["median"] > 0
    assert data["fused"]["difference"] < 1e-5
    assert set(data["block_times"]) == {"dense", "squeezed", "fused"}
    for wish in (["--ratio", "2"], ["--allocate", "spectral"]):
        code, _, err = cli("report", squeezed, "--trust", *wish)
        assert code == 2
        assert "squeezed already" in err


def test_spectral_widths_are_the_same_in_every_command(tmp_path: Path) -> None:
    """plan, report of a dense file, and convert, whose default they are; on a trained generator, where they differ
    from uniform ones."""
    dense, squeezed = tmp_path / "dense.pkl", tmp_path / "squeezed.pkl"
    dense.write_bytes(pickle.dumps({"G_ema": trained_generator()}))
    wish = ["--trust", "--allocate", "spectral", "--json"]
    planned = json.loads(cli("plan", dense, *wish)[1])
    converted = json.loads(cli("convert", dense, squeezed, "--trust", "--json")[1])["plan"]
    reported = json.loads(cli("report", dense, *wish, "--repeats", "2")[1])["cost"]["blocks"]
    widths = {block["resolution"]: block["width"] for block in planned["blocks"]}
    assert {block["resolution"]: block["width"] for block in converted["blocks"]} == widths
    assert {row["resolution"]: row["width"] for row in reported if row["resolution"] in widths} == widths
    assert widths != squeeze_patch.plan(trained_generator(), allocate="uniform").widths


ERRORS: List[Tuple[List[str], str]] = [
    (["info", "none.pkl", "--trust"], "none.pkl: there is no such file"),
    (["info", "{folder}/trap.pkl"], "names posix.mkdir, which is not known to be harmless, so it was not loaded"),
    (["plan", "{dense}", "--trust", "--ratio", "0.3"], "ratio is c / q"),
    (["convert", "{dense}", "{dense}", "--trust", "--force"], "same file"),
    (["convert", "{dense}", "{folder}/out.pkl", "--trust", "--reduction", "0.99"], "out of reach"),
    (["convert", "{dense}", "{folder}/out.pkl", "--trust", "--ratio", "2", "--reduction", "0.1"], "one of"),
    (["convert", "{dense}", "{folder}/no/out.pkl", "--trust"], "no folder"),
    (["convert", "{dense}", "{folder}/out.pkl", "--trust", "--host", "{folder}"], "no torch_utils"),
    (["compare", "{dense}", "none.pkl", "--trust"], "none.pkl: there is no such file"),
    (["compare", "{dense}", "{dense}", "--trust", "--key", "D"], "A: no StyleGAN2 generator found in Discriminator"),
    (["compare", "{dense}", "{dense}", "--trust", "--key", "E"], "no network E in this file; it has G, D, G_ema"),
    (["compare", "{dense}", "{dense}", "--trust", "--samples", "1"], "samples has to be 2 or more"),
    (["compare", "{dense}", "{dense}", "--trust", "--grid", "{folder}/no/out.png"], "in a folder that exists"),
    (["compare", "{dense}", "{dense}", "--trust", "--device", "abacus"], "device abacus cannot be used"),
    (["report", "{dense}", "--trust", "--json", "{folder}"], "in a folder that exists"),
    (["recover", "{dense}", "--trust", "--out", "{folder}/out.pkl", "--device", "nonsense"], "device nonsense cannot"),
    (["report", "{dense}", "--trust", "--json", "{dense}"], "this file is read; it would be lost"),
    (["compare", "{dense}", "{dense}", "--trust", "--json", "{dense}"], "this file is read; it would be lost"),
    (["compare", "{dense}", "{dense}", "--trust", "--grid", "{dense}"], "this file is read; it would be lost"),
    (["compare", "{dense}", "{dense}", "--trust", "--html", "{dense}"], "this file is read; it would be lost"),
    (["compare", "{dense}", "{dense}", "--trust", "--html", "{folder}/no/out.html"], "in a folder that exists"),
    (["convert", "{dense}", "-", "--trust"], "written to a file, not to stdout"),
    (["report", "{folder}/none.pkl", "--repeats", "1"], "--repeats has to be 2 or more, not 1"),
    (["report", "{folder}/none.pkl", "--batch", "0"], "--batch has to be 1 or more, not 0"),
    (["report", "{dense}", "--trust", "--against", "{dense}"], "the generator is dense"),
    (["report", "{dense}", "--trust", "--ratio", "2", "--reduction", "0.1"], "one of"),
    (["demo", "--ratio", "0.5", "--out", "{folder}/demo"], "ratio is c / q"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_are_one_line_and_exit_2(arguments: List[str], message: str, snapshot: Path) -> None:
    (snapshot.parent / "trap.pkl").write_bytes(b"cposix\nmkdir\n(S'sprung'\ntR.")
    filled = [a.format(dense=snapshot, folder=snapshot.parent) for a in arguments]
    code, out, err = cli(*filled)
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (snapshot.parent / "out.pkl").exists()
    with pytest.raises(squeeze_patch.SqueezeError):
        CliRunner().invoke(main, [*filled, "--debug"], catch_exceptions=False)


@pytest.mark.parametrize(
    "arguments",
    [["convert", "one.pkl"], ["nonsense"], ["plan", "x", "--ratio", "two"], ["compare", "a", "b", "--html", "-"]],
)
def test_usage_errors_exit_2(arguments: List[str]) -> None:
    assert cli(*arguments)[0] == 2


def test_help_and_version() -> None:
    assert squeeze_patch.__version__ in cli("--version")[1]
    for command in ([], ["info"], ["plan"], ["convert"], ["compare"], ["report"], ["demo"]):
        code, out, _ = cli(*command, "--help")
        assert code == 0
        assert "Usage" in out


def test_convert_in_a_process_of_its_own(host: Host, tmp_path: Path) -> None:
    """With --host, from a folder that is not the checkout, for every host."""
    dense = tmp_path / "dense.pkl"
    dense.write_bytes(pickle.dumps({"G": trained(host.generator()), "G_ema": trained(host.generator(), 2)}))

    def command(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "squeeze_patch", *arguments],
            cwd=tmp_path,
            env={**host.environment(), "PYTHONPATH": os.pathsep.join(SHIMS)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = command("convert", "dense.pkl", "squeezed.pkl", "--trust")
    assert done.returncode == 2
    assert "--host DIR" in done.stderr
    done = command("convert", "dense.pkl", "squeezed.pkl", "--trust", "--host", str(host.folder))
    assert done.returncode == 0, done.stderr
    assert "with the same channels" in done.stdout
    out = cli("info", tmp_path / "squeezed.pkl", "--trust", "--host", host.folder)[1]
    assert re.search("G_ema: SqueezedGenerator, squeezed: [1-4] of 4 blocks", out)


def test_the_list_of_checks_is_no_run() -> None:
    assert "structure  " in cli("check", "--list")[1]
    for option in (["--record"], ["--json"], ["--html", "page.html"]):
        code, _, err = cli("check", "--list", *option)
        assert code == 2
        assert "--list lists the checks and writes nothing" in err


def test_the_list_of_commands_is_not_cut_off() -> None:
    _, out, _ = cli("--help")
    for name, command in main.commands.items():
        line = next(line for line in out.splitlines() if line.strip().startswith(f"{name} "))
        assert line.endswith(".")
        assert not line.endswith("...")
        assert len((command.help or "").strip().splitlines()) > 2  # examples, or what else a newcomer wants to know


@pytest.mark.parametrize("command", ["convert", "report", "recover"])
def test_a_plan_in_a_file_is_a_request(command: str, tmp_path: Path) -> None:
    """What `plan --json` prints is accepted wherever a plan can be given, and never overwritten."""
    with open(tmp_path / "dense.pkl", "wb") as stream:
        pickle.dump({"G_ema": trained_generator()}, stream)
    _, text, _ = cli(
        "plan", tmp_path / "dense.pkl", "--trust", "--reduction", "0.2", "--allocate", "spectral", "--json"
    )
    (tmp_path / "plan.json").write_text(text)
    plan = Plan.from_json(text)
    options: Dict[str, Any] = {
        "convert": [tmp_path / "out.pkl", "--init", "weights"],
        "report": ["--repeats", 2],
        "recover": ["--out", tmp_path / "out.pkl", "--steps", 1, "--batch", 2, "--every", 1],
    }
    lost = {"convert": ["--force"], "report": ["--json"], "recover": ["--force", "--out"]}[command]
    plan_file = ["--trust", "--plan", tmp_path / "plan.json"]
    code, _, err = cli(command, tmp_path / "dense.pkl", *options[command], *plan_file, "--allocate", "uniform")
    assert (code, "not both" in err) == (2, True)
    (tmp_path / "narrow.json").write_text(squeeze_patch.plan(trained_generator(), ratio=2, method="narrow").to_json())
    narrow = ["--trust", "--plan", tmp_path / "narrow.json", "--method", "squeeze"]
    code, _, err = cli(command, tmp_path / "dense.pkl", *options[command], *narrow)
    assert (code, "narrow.json is a plan of method narrow: leave --method squeeze out" in err) == (2, True)
    code, _, err = cli(command, tmp_path / "dense.pkl", *lost, tmp_path / "plan.json", *plan_file)
    assert (code, (tmp_path / "plan.json").read_text()) == (2, text)
    assert "it would be lost" in err
    code, out, err = cli(command, tmp_path / "dense.pkl", *options[command], *plan_file)
    assert (code, "Error" in err) == (0, False), err
    if command == "report":
        assert f"{plan.parameters_after:,}" in out
    else:
        assert squeeze_patch.status(read(tmp_path / "out.pkl", trust=True)["G_ema"]).plan == plan
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    code, _, err = cli(command, tmp_path / "dense.pkl", *options[command], "--trust", "--plan", tmp_path / "bad.json")
    assert (code, "bad.json: " in err, "plan --json prints" in err) == (2, True, True)
    code, _, err = cli(command, tmp_path / "dense.pkl", *options[command], *plan_file, "--ratio", 2)
    assert code == 2
    assert "--ratio and --plan both say how far to squeeze" in err


def test_quiet_commands_print_nothing(snapshot: Path, tmp_path: Path) -> None:
    squeezed = tmp_path / "squeezed.pkl"
    for arguments in (
        ["convert", snapshot, squeezed, "--init", "weights"],
        ["compare", snapshot, squeezed, "--samples", 4, "--json", tmp_path / "figures.json"],
        ["report", snapshot, "--repeats", 2],
        ["recover", snapshot, squeezed, "--out", tmp_path / "out.pkl", "--steps", 1, "--batch", 2],
    ):
        assert cli(*arguments, "--trust", "--quiet") == (0, "", ""), arguments
    assert json.loads((tmp_path / "figures.json").read_text())["images"] == 4
    assert cli("demo", "--out", tmp_path / "demo", "--quiet") == (0, "", "")


def test_json_of_jobs(snapshot: Path, tmp_path: Path) -> None:
    out = cli("recover", snapshot, "--out", tmp_path / "o.pkl", "--steps", 1, "--batch", 2, "--trust", "--json")[1]
    found = json.loads(out)
    assert (found["steps"], found["target"]) == (1, str(tmp_path / "o.pkl"))
    assert [entry["step"] for entry in found["history"]] == [0, 1]
    arguments = ["convert", snapshot, tmp_path / "o.pt", "--to", "rosinality", "--trust", "--quiet", "--json"]
    assert json.loads(cli(*arguments)[1])["family"] == "rosinality"

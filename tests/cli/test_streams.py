"""What a command writes to, besides the file that it is for: nothing else is lost, and nobody has to listen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers import cli


def test_figures_take_no_other_files_place(snapshot: Path) -> None:
    """What the shell puts behind --json is a checkpoint, perhaps."""
    other = snapshot.with_name("other.pkl")
    other.write_bytes(snapshot.read_bytes())
    for arguments in (("scan", "--json", other, snapshot), ("compare", snapshot, snapshot, "--grid", other)):
        code, _, err = cli(*arguments)
        assert (code, "neither figures (JSON) nor a picture (PNG)" in err) == (2, True)
    assert other.read_bytes() == snapshot.read_bytes()
    figures = snapshot.with_name("figures.json")
    for _ in range(2):  # earlier figures are replaced
        assert cli("scan", snapshot, "--json", figures)[0] == 0
        assert json.loads(figures.read_text())["unusual"] is False


def test_nobody_listens(snapshot: Path) -> None:
    """A closed stderr; a pipe that is closed at once: the work is done, and nothing is said."""
    target = snapshot.with_name("out.pkl")
    command = f"{sys.executable} -m squeeze_patch convert {snapshot} {target} --init weights --no-verify --force"
    for redirected, code in (("2>&-", 0), ("2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}", 0), ("| true", 0)):
        target.unlink(missing_ok=True)
        done = subprocess.run(["bash", "-c", f"{command} {redirected}"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, ""), redirected
        assert target.exists()


def test_a_recovery_goes_on_when_nobody_listens(snapshot: Path) -> None:
    recovered = snapshot.with_name("recovered.pkl")
    options = "--steps 2 --every 1 --batch 2 --device cpu --ratio 2 --force"
    command = f"{sys.executable} -m squeeze_patch recover {snapshot} --out {recovered} {options}"
    done = subprocess.run(["bash", "-c", f"{command} 2>&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert recovered.exists()


def test_a_name_that_says_its_format(snapshot: Path) -> None:
    target = snapshot.with_name("G.safetensors")
    assert cli("convert", snapshot, target, "--init", "weights")[0] == 0
    assert "squeezed: 4 of 4 blocks" in cli("info", target)[1]
    code, _, err = cli("convert", snapshot, target, "--format", "pt", "--force")
    assert (code, "is one of safetensors, not of pt" in err) == (2, True)
    for arguments in (
        ("convert", snapshot, target, "--to", "rosinality", "--force"),
        ("recover", snapshot, "--out", target, "--steps", 1, "--force", "--device", "cpu", "--ratio", 2),
    ):
        before = target.read_bytes()
        code, _, err = cli(*arguments)
        assert (code, "what is to be written is not" in err) == (2, True), err
        assert target.read_bytes() == before

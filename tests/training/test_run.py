"""squeeze-patch run: scripts of hosts whose files hold state dicts, untouched, with squeezed generators."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import search
from squeeze_patch.checkpoints.bodies import stand_in
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.testing import float_error, trained
from squeeze_patch.training.run import SqueezedSource, _downloaded, run
from tests.helpers import FLAT_HOSTS, GENERATE_SCRIPT, script_environment
from tests.hosts.flat import FlatHost, optimiser_step
from tests.processes import python
from tests.servers import FileServer, file

ODD_SCRIPT = """
import argparse, torch
from model import Generator
options = argparse.ArgumentParser()
options.add_argument("--ckpt")
options.add_argument("--size", type=int, default=32)
options.add_argument("--style", type=int, default=64)
args = options.parse_args()
Generator(args.size, args.style, 2).load_state_dict(torch.load(args.ckpt)["g_ema"])
"""


def run_script(folder: Path, host: FlatHost, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "squeeze_patch", "run", *arguments, cwd=folder, env=script_environment(host))


def test_run_a_script(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script.py").write_text(GENERATE_SCRIPT)
    (tmp_path / "model.py").write_text("from stylegan2.model import Generator\n")
    from stylegan2.model import Generator

    G = trained(Generator(8, 64, 2))
    optimiser = torch.optim.Adam(G.parameters())
    optimiser_step(optimiser)
    entries = {"g_ema": G.state_dict(), "g_optim": optimiser.state_dict(), "args": argparse.Namespace(size=8)}
    torch.save(entries, tmp_path / "dense.pt")
    convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", init="weights")
    done = run_script(tmp_path, rosinality, "--", "script.py", "--ckpt", "squeezed.pt")
    assert done.returncode == 0, done.stderr
    assert "squeeze_patch: squeezed: 2 of 2 blocks" in done.stderr
    loaded = squeeze_patch.load(Generator(8, 64, 2), tmp_path / "squeezed.pt")
    image, _ = loaded([torch.ones(2, 64)], randomize_noise=False)
    seen = read_entries(tmp_path / "out.pt", trust=False)[
        "image"
    ]  # of a process with other threads, so rounded in another order
    assert (seen - image).abs().max() <= float_error(loaded, image)
    steps = dict(
        zip((name for name, _ in loaded.named_parameters()), read_entries(tmp_path / "out.pt", trust=False)["steps"])
    )
    assert {name for name, count in steps.items() if count == 1} == {"convs.0.excite.weight", "convs.0.excite.bias"}
    assert set(steps.values()) == {1, 2}

    done = run_script(tmp_path, rosinality, "--ratio", "2", "--", "script.py")  # from scratch
    assert done.returncode == 0, done.stderr
    body = stand_in(read_entries(tmp_path / "out.pt", trust=False)["g_ema"])
    assert body is not None
    assert squeeze_patch.status(body).plan == squeeze_patch.plan(body, widths={4: 256, 8: 256})

    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    (tmp_path / "squeezed.pt").rename("lr=0.1/squeezed.pt")
    (tmp_path / "squeezed.pt").symlink_to("lr=0.1/squeezed.pt")
    for arguments, wish, match in (
        (["script.py", "--ckpt=dense.pt"], {}, "its generators are dense"),
        (["script.py", "--ckpt", "lr=0.1/squeezed.pt"], {"ratio": 2}, "lr=0.1/squeezed.pt is squeezed in another way"),
        (["script.py", "--ckpt=lr=0.1/squeezed.pt"], {"ratio": 2}, "lr=0.1/squeezed.pt is squeezed in another way"),
        (["script.py", "--ckpt", "squeezed.pt"], {"ratio": 2}, "leave --ratio, --reduction, --budget and --method out"),
        (["script.py", "--ckpt", "https://host name/squeezed.pt"], {}, "an address has no spaces"),
        (["other.py"], {}, "there is no such script"),
        (["python", "other.py"], {}, "other.py: there is no such script"),
    ):
        with pytest.raises(squeeze_patch.SqueezeError, match=match):
            run(arguments, **wish)  # type: ignore[arg-type]


def test_the_same_wish_again_and_an_address(
    rosinality: FlatHost, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that trained from scratch goes on with its own snapshot, wherever that lies."""
    (tmp_path / "model.py").write_text("from stylegan2.model import Generator\n")
    (tmp_path / "odd.py").write_text(ODD_SCRIPT)
    from stylegan2.model import Generator

    torch.save({"g_ema": trained(Generator(8, 64, 2)).state_dict()}, tmp_path / "dense.pt")
    convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", ratio=4, init="weights")
    address = server.says("/squeezed.pt", file((tmp_path / "squeezed.pt").read_bytes()))
    done = run_script(tmp_path, rosinality, "--ratio", "4", "--", "odd.py", f"--ckpt={address}", "--size", "8")
    assert done.returncode == 0, done.stderr
    assert "squeeze_patch: squeezed: 2 of 2 blocks" in done.stderr
    assert f"{address} is given to odd.py as " in done.stderr

    monkeypatch.chdir(tmp_path)
    for command in (["odd.py", "--ckpt", "squeezed.pt"], ["odd.py", "--ckpt", address]):
        with pytest.raises(squeeze_patch.PlanError, match=r"squeezed.pt is squeezed in another way than asked for \("):
            run(command, ratio=2, say=lambda line: None)
    assert _downloaded(["odd.py", "--dist-url", address, address], print) == ["odd.py", "--dist-url", address, address]


#: of a script whose generator has another size than the file's
OTHER_SIZES = (
    (
        ["--size", "16"],
        "16x16: --size 16 has to be 8. odd.py, the host's script, stopped. Its own words: RuntimeError: ",
    ),
    (["--size=4"], "4x4: --size=4 has to be 8. the plan does not fit this generator: "),
    ([], "32x32: give it that size (rosinality's scripts: --size 8). odd.py, the host's script, stopped. "),
    (["--size", "8", "--style", "32"], "Error: odd.py, the host's script, stopped. Its own words: RuntimeError: "),
)


@pytest.mark.parametrize("ending", ["", "raise SystemExit", "raise SystemExit(3)", "Generator(8, 64, 2)"])
def test_a_script_that_builds_none_is_told_so(
    rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    (tmp_path / "model.py").write_text("from stylegan2.model import Generator as Dense\nclass Generator(Dense): pass\n")
    (tmp_path / "script.py").write_text(f"from model import Generator\n{ending}\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", [*sys.argv])
    monkeypatch.delitem(sys.modules, "model", raising=False)
    said: List[str] = []
    with pytest.raises(SystemExit) if "Exit" in ending else contextlib.nullcontext():
        run([str(tmp_path / "script.py")], ratio=2, say=said.append)
    monkeypatch.delitem(sys.modules, "model")
    none = "squeeze_patch: script.py built no generator in this process, so nothing was squeezed"
    expected = {"raise SystemExit(3)": [], "Generator(8, 64, 2)": ["squeeze_patch: squeezed: 2 of 2 blocks"]}
    assert [line.split(",")[0] for line in said] == [line.split(",")[0] for line in expected.get(ending, [none])]


@pytest.mark.parametrize("at", ["model", "script"])
def test_generators_of_a_subclass(
    rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Squeezed when they are whole, each once, wherever the class is made."""
    made = """
class Big(Generator):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.more = 1
class Same(Big): pass
"""
    own = "from stylegan2.model import Generator as Dense\nclass Generator(Dense): pass\n"  # that changes no other test
    (tmp_path / "model.py").write_text(own + (made if at == "model" else ""))
    script = "from model import *\n" + (made if at == "script" else "")
    (tmp_path / "script.py").write_text(f"{script}\nfor each in (Big, Same, Generator): each(8, 64, 2)\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", [*sys.argv])
    monkeypatch.delitem(sys.modules, "model", raising=False)
    said: List[str] = []
    run([str(tmp_path / "script.py")], ratio=2, say=said.append)
    monkeypatch.delitem(sys.modules, "model")
    assert len(said) == 3
    assert len(set(said)) == 1
    assert said[0].startswith("squeeze_patch: squeezed: 2 of 2 blocks")


def test_a_script_that_does_not_fit_the_file(rosinality: FlatHost, tmp_path: Path) -> None:
    """What differs and the cure come before torch's list of names."""
    (tmp_path / "model.py").write_text("from stylegan2.model import Generator\n")
    (tmp_path / "odd.py").write_text(ODD_SCRIPT)
    from stylegan2.model import Generator

    torch.save({"g_ema": trained(Generator(8, 64, 2)).state_dict()}, tmp_path / "dense.pt")
    convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", ratio=2, init="weights")
    for options, words in OTHER_SIZES:
        done = run_script(tmp_path, rosinality, "--", "odd.py", "--ckpt", "squeezed.pt", *options)
        assert done.returncode == 2
        said = done.stderr.splitlines()[-1]
        assert words in said, said
        assert said.startswith("Error: squeezed.pt holds a generator of 8x8, and odd.py built one of ") or not (
            words[0].isdigit()
        )
        assert ("of state_dict" in said or "loading state_dict" in said) == ("RuntimeError" in said)
    G = Generator(8, 64, 2)
    source = SqueezedSource(Path("a.pt"), squeeze_patch.plan(G), search(G).reference)
    assert source.difference({4: 512, 8: 512}, ["generate.py"]) is None
    found = source.difference({4: 512, 8: 256}, ["generate.py"])
    assert found is not None
    assert "512 channels at 8x8, the one that generate.py built has 256" in found


@pytest.mark.parametrize("host", [host for host in FLAT_HOSTS.values() if host.script], ids=lambda host: host.name)
def test_run_the_hosts_own_generate(host: FlatHost, tmp_path: Path) -> None:
    with host.active():
        from model import Generator

        G = trained(Generator(8, 512, 8))
        torch.save({"g_ema": G.state_dict(), "args": argparse.Namespace(size=8)}, tmp_path / "dense.pt")
        convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt")
        (tmp_path / "sample").mkdir()
        script = str(host.folder / host.script)
        options = ["--ckpt", "squeezed.pt", "--size", "8", "--pics", "2", "--truncation", "0.7"]
        done = run_script(tmp_path, host, "--", script, *options)
        assert done.returncode == 0, done.stderr
    images: List[Any] = [torch.load(tmp_path / "sample" / f"00000{i}.png.pt") for i in (0, 1)]
    assert [image.shape for image in images] == [(1, 3, 8, 8)] * 2
    assert not torch.equal(*images)


@pytest.mark.parametrize("host", [host for host in FLAT_HOSTS.values() if host.script], ids=lambda host: host.name)
def test_run_the_hosts_own_train(host: FlatHost, tmp_path: Path) -> None:
    """One iteration, all regularisation included, from scratch; one more from its own file; and one more from a dense
    file that was converted. The count of Adam's steps says what was taken up."""
    for folder in ("sample", "checkpoint"):
        (tmp_path / folder).mkdir()
    options = [str(host.folder / "train.py"), "data", "--size", "8", "--batch", "2", "--iter", "1", "--n_sample", "1"]
    file = tmp_path / "checkpoint" / "000000.pt"

    def steps(name: str) -> Dict[str, int]:
        data = read_entries(file, trust=False)
        body = stand_in(data["g"])
        assert body is not None
        assert str(squeeze_patch.status(body)).startswith(name)
        state = data["g_optim"]["state"]
        return {n: int(state[i]["step"]) for i, (n, _) in enumerate(body.named_parameters())}

    done = run_script(tmp_path, host, "--ratio", "2", "--", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("squeeze_patch: squeezed: 2 of 2 blocks") == 2  # generator and g_ema
    first = steps("squeezed")
    assert set(first.values()) == {2}  # the loss and the path length
    done = run_script(tmp_path, host, "--", *options, "--ckpt", str(file))
    assert done.returncode == 0, done.stderr
    assert set(steps("squeezed").values()) == {4}

    dense = python(*options, cwd=tmp_path, env=script_environment(host))
    assert dense.returncode == 0, dense.stderr
    assert set(steps("dense").values()) == {2}
    convert(file, tmp_path / "000000.pt", ratio=2)
    done = run_script(tmp_path, host, "--", *options, "--ckpt", "000000.pt")
    assert done.returncode == 0, done.stderr
    counted = steps("squeezed")
    new = {"convs.0.excite.weight", "convs.0.excite.bias"}
    assert {n for n, count in counted.items() if count == 2} == new
    assert {count for n, count in counted.items() if n not in new} == {4}

"""What a repository, a configuration or a baseline may do to the checks: never green when something is wrong."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.checks.baseline import read_baseline
from squeeze_patch.checks.config import CheckConfig, Recipe
from squeeze_patch.checks.recording import record
from squeeze_patch.checks.runner import check
from squeeze_patch.demo import trained_generator
from squeeze_patch.demo.network import Generator
from squeeze_patch.errors import ConfigError
from squeeze_patch.testing import trained
from tests.helpers import cli


def dense() -> Any:
    """16x16; the same one at every call."""
    torch.manual_seed(0)
    widths = {"channel_base": 256, "channel_max": 16}
    return trained(Generator(8, 0, 8, 16, 3, mapping_kwargs={"num_layers": 1}, synthesis_kwargs=widths))


def small(**more: Any) -> Any:
    """The same, squeezed."""
    return squeeze_patch.apply(dense(), **{"ratio": 2.0, "keep_original": False, "verify": False, **more})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with a configuration; its factory is `small`, where a test writes no other one."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "from tests.checks.test_attacks import small as make\n")
    yield tmp_path
    sys.modules.pop("attacked", None)


def write(folder: Path, factory: str, checks: str = "state = true") -> None:
    (folder / "attacked.py").write_text(factory)
    (folder / "squeeze.toml").write_text(f'[generator]\nfactory = "attacked:make"\n[checks]\n{checks}\n')


@pytest.mark.parametrize("factory", ["import sys\nsys.exit()", "import sys\ndef make():\n    sys.exit(0)"])
def test_a_factory_that_ends_the_process_is_not_green(folder: Path, factory: str) -> None:
    write(folder, factory)
    code, _, errors = cli("check", "--only", "state")
    assert code == 2
    assert "attacked:make ends the process" in errors


def test_a_generator_that_ends_the_process_falls_short() -> None:
    def make() -> Any:
        G = small()
        G.register_forward_hook(lambda *_: sys.exit(0))
        return G

    found = check(make, only=["reproducible"])
    assert found.exit_code == 1
    assert "SystemExit" in found.outcomes[0].message


@pytest.mark.parametrize("of", [lambda x: x.mean(dim=0, keepdim=True), lambda x: float(len(x) > 8)])
def test_images_that_the_rest_of_the_batch_changes_are_not_green(of: Callable[[Any], Any]) -> None:
    """A share of the batch's mean, and what a batch of more than eight gets only."""

    def make() -> Any:
        G = small()
        G.synthesis.b16.register_forward_hook(lambda _, __, made: (made[0], made[1] + 0.01 * of(made[1])))
        return G

    found = check(make, only=["reproducible"])
    assert found.exit_code == 1
    assert "4 latents differ by" in found.outcomes[0].message
    assert "among 16" in found.outcomes[0].message
    assert check(small, only=["reproducible"]).exit_code == 0


def test_no_check_at_all_is_not_green(folder: Path) -> None:
    code, _, errors = cli("check", "--only", "state", "--skip", "structure")
    assert (code, "no check is left" in errors) == (2, True)


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ("multiply_adds = {tolerance = nan}", "tolerance has to be a number"),
        ("memory = {tolerance = inf}", "tolerance has to be a number"),
        ("latency = {pairs = 10}", "pairs has to be 16 or more"),
        ("reduction = {at_least = 12.1}", "at_least has to be a share below 1, not 12.1"),
        ("memory = {batch = 0}", "batch has to be 1 or more"),
    ],
)
def test_settings_that_nothing_falls_short_of_are_refused(folder: Path, checks: str, words: str) -> None:
    write(folder, "", checks)
    code, _, errors = cli("check")
    assert code == 2
    assert words in errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool]\nsqueeze-patch = 3", "has to be a table"),
        ("tool = 3", "no table [tool.squeeze-patch]"),
        ('[tool.squeeze-patch.generator]\nfactory = ":make"', 'has to be "package.module:function"'),
        ('[tool.squeeze-patch.generator]\nfactory = ".attacked:make"', 'has to be "package.module:function"'),
    ],
)
def test_a_pyproject_of_wrong_types(folder: Path, text: str, words: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    code, _, errors = cli("check", "pyproject.toml")
    assert code == 2
    assert words in errors
    assert "--debug" not in errors


@pytest.mark.parametrize("name", ["squeeze.toml", "package.json", "folder"])
def test_recording_replaces_no_other_file(folder: Path, name: str) -> None:
    (folder / "folder").mkdir()
    (folder / "package.json").write_text('{"name": "mine"}')
    toml = folder / "squeeze.toml"
    toml.write_text(f'baseline = "{name}"\n{toml.read_text()}')
    before = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    code, _, errors = cli("check", "--record")
    assert code == 2
    assert name in errors
    assert all(file.read_bytes() == content for file, content in before.items())


@pytest.fixture(scope="module")
def recorded_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    record(settings(folder))
    return folder / "squeeze-baseline.json"


def settings(folder: Path, factory: Any = small, **more: Any) -> CheckConfig:
    base = CheckConfig.of(factory)
    paths = {"baseline": folder / "squeeze-baseline.json", "pictures": folder / "pictures"}
    return replace(base, path=folder / "squeeze.toml", **{**paths, **more})


def _bomb(data: Any) -> None:
    packed = base64.b64encode(zlib.compress(bytes(2**26), 9)).decode()
    data["images"]["stored noise"]["values"] = packed


DAMAGES: Dict[str, Callable[[Any], Any]] = {
    "no numbers": lambda data: data["images"]["stored noise"].update(
        values=base64.b64encode(zlib.compress(b"")).decode()
    ),
    "many numbers": _bomb,
    "wrong base64": lambda data: data["images"]["stored noise"].update(values="%%"),
    "a peak of infinity": lambda data: data["images"]["stored noise"].update(peak=float("inf")),
    "a peak of NaN": lambda data: data["images"]["stored noise"].update(peak=float("nan")),
    "no images": lambda data: data.update(images={}),
    "no tensors": lambda data: data.update(tensors={}),
    "infinite cost": lambda data: data.update(multiply_adds=float("inf")),
    "NaN for a ratio": lambda data: data.update(ratios={"memory": float("nan")}),
    "a list for a number": lambda data: data.update(multiply_adds=[1]),
    "a list for a plan": lambda data: data.update(plan=[1]),
    "a key lost": lambda data: data.pop("features"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_baseline_is_not_green(recorded_small: Path, tmp_path: Path, damage: str) -> None:
    data = json.loads(recorded_small.read_text())
    DAMAGES[damage](data["generators"][""])
    file = tmp_path / "squeeze-baseline.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"this baseline cannot be read .* --record"):
        read_baseline(file)


def test_fewer_numbers_than_there_were_are_not_green(recorded_small: Path, tmp_path: Path) -> None:
    data = json.loads(recorded_small.read_text())
    one = data["generators"][""]["images"]["stored noise"]
    one["values"] = base64.b64encode(zlib.compress(zlib.decompress(base64.b64decode(one["values"]))[:4])).decode()
    (tmp_path / "squeeze-baseline.json").write_text(json.dumps(data))
    assert check(settings(tmp_path), only=["images"]).exit_code == 1


def test_gradients_that_a_factory_turns_off(tmp_path: Path) -> None:
    """As a module for inference does, when it is imported."""

    def make() -> Any:
        torch.set_grad_enabled(False)
        return small()

    try:
        found = check(make, only=["gradients", "second_derivatives", "step"])
    finally:
        torch.set_grad_enabled(True)
    assert found.count("holds") == 3


class Extra(torch.nn.Identity):
    def get_extra_state(self) -> Any:
        return {"format": 1}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"format": 1}


def with_extra_state() -> Any:
    G = small()
    G.extra = Extra()
    return G


def test_a_state_dict_that_holds_more_than_tensors(tmp_path: Path) -> None:
    config = settings(tmp_path, with_extra_state)
    record(config)
    found = check(config, only=["names", "weights", "deepcopy", "state_dict"])
    assert found.count("holds") == 4, str(found)


def a_buffer() -> Any:
    """Its state dict stays as it is, and its gradients, of those that are parameters, too."""
    G = small()
    G.synthesis.b8.excite.register_buffer("weight", G.synthesis.b8.excite._parameters.pop("weight").detach())
    return G


def frozen() -> Any:
    G = small()
    G.synthesis.b8.excite.requires_grad_(False)
    return G


def at_rest() -> Any:
    return small().requires_grad_(False)


@pytest.mark.parametrize(("factory", "name"), [(a_buffer, "names"), (frozen, "gradients"), (at_rest, "")])
def test_parameters_that_do_not_train_any_more(recorded_small: Path, factory: Any, name: str) -> None:
    found = check(settings(recorded_small.parent, factory), only=["names", "gradients"])
    wrong = {outcome.check: outcome.place for outcome in found.outcomes if outcome.state != "holds"}
    assert set(wrong) == ({name} if name else set()), str(found)
    assert all("b8.excite.weight" in place or "b8.excite" in place for place in wrong.values())


def shifted() -> Any:
    G = small()
    with torch.no_grad():
        G.synthesis.b8.conv1.bias.add_(1)
    return G


def not_finite() -> Any:
    G = small()
    with torch.no_grad():
        G.synthesis.b8.conv1.bias.fill_(float("nan"))
    return G


def test_a_picture_that_cannot_be_written_hides_nothing(recorded_small: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("mine")
    config = settings(recorded_small.parent, shifted, pictures=tmp_path / "pictures")
    (outcome,) = check(config, only=["images"]).outcomes
    assert outcome.state == "short"
    assert "images differ" in outcome.message
    assert "picture: none" in outcome.message
    assert (tmp_path / "pictures").read_text() == "mine"


def test_names_of_generators_are_no_paths(tmp_path: Path) -> None:
    name = "a/../../../up"
    record(settings(tmp_path, lambda: {name: small()}))
    pictures = tmp_path / "in" / "pictures"
    found = check(settings(tmp_path, lambda: {name: shifted()}, pictures=pictures), only=["images"])
    assert found.exit_code == 1
    assert [file.parent for file in tmp_path.rglob("*.png")] == [pictures]


def test_outcomes_are_strict_json(recorded_small: Path) -> None:
    found = check(settings(recorded_small.parent, not_finite), only=["images", "features", "weights"])
    assert found.count("short") == 3
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("more", [["--only", "state"], ["--json", "a.json"]])
def test_options_that_recording_would_ignore(folder: Path, more: List[str]) -> None:
    code, _, errors = cli("check", "--record", *more)
    assert code == 2
    assert "--record runs no checks" in errors
    assert not (folder / "squeeze-baseline.json").exists()


def test_a_factory_that_prints_and_goes_elsewhere(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    head = "import os\nfrom tests.checks.test_attacks import small\n"
    write(folder, f"{head}def make():\n    print('loading')\n    os.chdir('elsewhere')\n    return small()\n")
    code, out, errors = cli("check", "squeeze.toml", "--only", "state", "--json", "-", "--junit", "report.xml")
    assert code == 0, errors
    assert json.loads(out)["exit_code"] == 0
    assert (folder / "report.xml").is_file()
    assert Path.cwd() == folder


def test_fidelity_within_float_error_is_no_alarm(tmp_path: Path) -> None:
    """Of a squeeze that changes no image, the PSNR is that of rounding, which is another one on another machine."""
    config = settings(tmp_path, lambda: small(ratio=1.0, init="weights"), dense=Recipe(dense))
    config = config.only(["fidelity"])
    record(config)
    data = json.loads(config.baseline.read_text())
    data["generators"][""]["fidelity"] = {"psnr": 160.0, "frechet": 1e-15}
    config.baseline.write_text(json.dumps(data))
    (outcome,) = check(config).outcomes
    assert outcome.state == "holds", outcome.message
    assert "float error" in outcome.message


def test_a_dense_generator_that_is_squeezed(tmp_path: Path) -> None:
    """Held against itself, no generator would ever be slower."""

    def squeezed() -> Any:
        return squeeze_patch.apply(trained_generator(), ratio=2, init="weights", keep_original=False)

    paths = {"path": tmp_path / "squeeze.toml", "baseline": tmp_path / "baseline.json"}
    config = replace(CheckConfig.of(squeezed), **paths, dense=Recipe(squeezed))
    with pytest.raises(ConfigError, match=r"\[dense\] makes a generator that is squeezed"):
        record(config)
    assert not config.baseline.exists()
    found = check(config, only=["fidelity"])
    assert found.exit_code == 2


def test_a_generator_that_makes_the_dense_images(tmp_path: Path) -> None:
    """Their PSNR is infinite, or almost: what is recorded of it can be read again."""

    def nothing_lost() -> Any:
        return squeeze_patch.apply(trained_generator(), ratio=1, init="weights", keep_original=False)

    paths = {"path": tmp_path / "squeeze.toml", "baseline": tmp_path / "baseline.json"}
    config = replace(CheckConfig.of(nothing_lost), **paths, dense=Recipe(trained_generator))
    record(config)
    assert check(config, only=["fidelity"]).holds

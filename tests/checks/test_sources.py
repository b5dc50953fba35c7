"""Where the generators of a configuration come from: hosts of factories, files of states, addresses."""

from __future__ import annotations

import copy
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.checks.answers import Context
from squeeze_patch.checks.config import CheckConfig, Recipe, read_config
from squeeze_patch.checks.copy_checks import without_squeeze_patch
from squeeze_patch.checks.structure_checks import channel_order
from squeeze_patch.checks.subjects import Subject, importable, make_dense, make_subjects
from squeeze_patch.cli import main
from squeeze_patch.demo import trained_generator
from squeeze_patch.errors import ConfigError
from tests.servers import file, file_server


def no_progress(what: str, done: int, total: int) -> None:
    """For checks that are over in an instant."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    G = squeeze_patch.apply(trained_generator(), ratio=2, init="random", keep_original=False)
    torch.save(G.state_dict(), tmp_path / "G.pt")
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def configured(folder: Path, *lines: str) -> Any:
    (folder / "squeeze.toml").write_text("\n".join(["[generator]", *lines]))
    return read_config(folder / "squeeze.toml")


def test_the_host_of_a_factory_needs_no_marker(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "model_of_host.py").write_text("MADE = 3\n")
    (tmp_path / "of_host.py").write_text(
        "from squeeze_patch.demo import trained_generator\nimport model_of_host\n\n\n"
        "def make():\n    return trained_generator() if model_of_host.MADE == 3 else None\n"
    )
    config = configured(tmp_path, 'factory = "of_host:make"', 'host = "host"')
    with importable(config):
        assert list(make_subjects(config)) == [""]
    assert not {str(tmp_path), str(tmp_path / "host")} & set(sys.path)
    for name in ("of_host", "model_of_host"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['factory = "a:b"', 'host = "nowhere"'], "nowhere: there is no such folder"),
        (['checkpoint = "G.pt"', 'host = "."'], "in this folder; host names the folder of a host's checkout"),
    ],
)
def test_a_host_that_is_none(repository: Path, lines: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error, importable(configured(repository, *lines)):
        pass
    assert str(error.value).startswith("[generator] host: ")
    assert message in str(error.value)
    assert "--host" not in str(error.value)


def test_a_device_that_is_not_there(repository: Path) -> None:
    """The cure is a setting: the command has no such option."""
    config = replace(configured(repository, 'checkpoint = "G.pt"'), device="nowhere")
    with pytest.raises(ConfigError, match='^device nowhere cannot be used: .*device = "cpu" always can$'):
        make_subjects(config)


@pytest.mark.parametrize("trust", ["true", "false"])
def test_files_of_states_hold_no_pickled_generator(repository: Path, trust: str) -> None:
    config = configured(repository, 'checkpoint = "G.pt"', f"trust = {trust}")
    subjects = make_subjects(config)
    answer = without_squeeze_patch(subjects[""], Context(config, None, subjects, no_progress), {})
    assert (answer.state, answer.found) == ("skipped", "the file holds a state dict, no pickled generator")


def test_what_does_not_run_or_travel_is_told_its_cure() -> None:
    def generator() -> Any:
        return squeeze_patch.apply(trained_generator(), ratio=2, init="random")

    failed = squeeze_patch.check(lambda: generator().double(), only=["gradients"]).outcomes[0]
    assert (failed.state, failed.wanted) == ("short", "a generator that runs")
    assert failed.cure == "its parameters are float64, and latents float32: let the factory return G.float()"
    failed = squeeze_patch.check(generator, only=["without_squeeze_patch"]).outcomes[0]
    assert failed.state == "short"
    assert failed.cure.endswith("without_squeeze_patch = false in [checks]")


def test_a_folder_stands_for_its_configuration(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a repository that has several; what is recorded in a job of a CI is said to be held against nothing."""
    configured(repository, 'checkpoint = "G.pt"')
    (repository / "empty").mkdir()
    monkeypatch.chdir(repository / "empty")
    monkeypatch.setenv("CI", "true")
    run = CliRunner()
    done = run.invoke(main, ["check", "..", "--record"])
    assert done.exit_code == 0
    assert "(CI is set)" in done.output
    assert read_config("..").folder == repository.resolve()
    assert run.invoke(main, ["check", "..", "--only", "weights"]).exit_code == 0
    done = run.invoke(main, ["check", "."])
    assert done.exit_code == 2
    assert "Error: .: in this folder is neither a squeeze.toml" in done.output


def test_an_address_with_its_sum_is_downloaded_once(repository: Path) -> None:
    body = (repository / "G.pt").read_bytes()
    with file_server() as server:
        address = server.says("/G.pt", file(body))
        config = configured(repository, f'checkpoint = "{address}"', f'sha256 = "{hashlib.sha256(body).hexdigest()}"')
        for _ in range(2):
            assert squeeze_patch.status(make_subjects(config)[""].root).state == "squeezed"
        assert len(server.asked) == 1
        wrong = configured(repository, f'checkpoint = "{address}"', f'sha256 = "{"0" * 64}"')
        with pytest.raises(ConfigError, match="as asked for: another file"):
            make_subjects(wrong)
    local = configured(repository, 'checkpoint = "G.pt"', f'sha256 = "{"0" * 64}"')
    with pytest.raises(ConfigError, match="as asked for: another file"):
        make_subjects(local)
    with pytest.raises(ConfigError, match="has 64 hexadecimal digits"):
        configured(repository, 'checkpoint = "G.pt"', 'sha256 = "abc"')


def test_a_single_channel_has_its_like() -> None:
    G = squeeze_patch.apply(trained_generator(), widths={4: 1, 8: 1, 16: 1}, init="random", keep_original=False)
    average = copy.deepcopy(G)
    for parameter in average.parameters():
        parameter.data *= 0.9
    subjects = {name: Subject(name, root, locate(root)) for name, root in (("G_ema", average), ("G", G))}
    context = Context(CheckConfig.of(lambda: G), None, subjects, no_progress)
    answer = channel_order(subjects["G_ema"], context, {})
    assert answer.state == "holds", answer


@pytest.mark.parametrize(("name", "its"), [("G", "G"), ("G_ema", "G_ema"), ("", "G_ema"), ("g_ema", "G_ema")])
def test_every_generator_has_its_own_dense_one(name: str, its: str) -> None:
    """By its name or its part in training; else the moving average."""
    dense = {each: trained_generator() for each in ("G", "G_ema")}
    config = replace(CheckConfig.of(lambda: None), dense=Recipe(lambda: dense))
    assert make_dense(config, Subject(name, torch.nn.Module(), None)) is dense[its]

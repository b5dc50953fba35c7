"""docs/commands.md: its block, and that it has every command and option."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from squeeze_patch.cli import main
from tests.docs.pages import Page, shell

PAGE = Page("docs/commands.md")


def test_completion(tmp_path: Path) -> None:
    done = shell(PAGE["completion"] + "complete -p squeeze-patch", tmp_path)
    assert done.stdout.endswith("squeeze-patch\n")


@pytest.mark.parametrize("command", main.commands.values(), ids=lambda command: str(command.name))
def test_every_option(command: click.Command) -> None:
    (section,) = re.findall(rf"^## {command.name}\n(.*?)(?=^## |\Z)", PAGE.text, flags=re.DOTALL | re.MULTILINE)
    assert f"squeeze-patch {command.name}" in section
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    names = {max(option.opts, key=len) for option in options if not option.hidden} - {"--help"}
    assert names - set(re.findall(r"`(--[\w-]+)", section)) == set()


def test_commands_of_a_group() -> None:
    for name, group in main.commands.items():
        for command in group.commands.values() if isinstance(group, click.Group) else ():
            (paragraph,) = re.findall(
                rf"^`squeeze-patch {name} {command.name}.*?(?=\n\n|\Z)", PAGE.text, re.DOTALL | re.M
            )
            options = {max(option.opts, key=len) for option in command.params if isinstance(option, click.Option)}
            assert options - {"--help"} - set(re.findall(r"`(--[\w-]+)", paragraph)) == set()


def test_options_of_all() -> None:
    for option in main.params:
        assert max(option.opts, key=len) in PAGE.text

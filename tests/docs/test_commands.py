"""docs/commands.md: its block, and that it has every command and option."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Dict, Set

import click
import pytest

from squeeze_patch.cli import main
from tests.docs.pages import Page, shell
from tests.helpers import ROOT

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


def test_whose_the_options_of_many_are() -> None:
    commands = {(name,): command for name, command in main.commands.items() if not isinstance(command, click.Group)}
    for name, group in main.commands.items():
        for inner in group.commands.values() if isinstance(group, click.Group) else ():
            commands[name, str(inner.name)] = inner
    of = {" ".join(name): {opt for each in command.params for opt in each.opts} for name, command in commands.items()}
    named: Dict[str, Set[str]] = {}
    for options, whose in re.findall(r"^\| `(--[^|]*) \| ([^|]*) \| ", PAGE.text, flags=re.MULTILINE):
        (option,) = re.findall(r"^--[\w-]+", options)
        found = set(re.findall(r"`([a-z ]+)`", whose))
        if whose.startswith("all but "):
            found = set(of) - found
        if found and "all that" not in whose:
            named.setdefault(option, set()).update(found)
    assert {"--json", "--quiet", "--device", "--force"} <= set(named)
    del named["--budget"]  # milliseconds are a value of it, which some of its commands refuse
    for option, found in named.items():
        assert found == {name for name, options in of.items() if option in options}, option


def test_options_of_all() -> None:
    for option in main.params:
        assert max(option.opts, key=len) in PAGE.text


def test_messages_name_options_that_the_command_has() -> None:
    """ "convert --no-verify" in an error, also of what other commands call, which have no such option."""
    named = re.compile(rf"\b({'|'.join(main.commands)}) (--[a-z][\w-]+)")
    found = set()
    for path in [*(ROOT / "squeeze_patch").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(named.findall(node.value))
    assert ("convert", "--no-verify") in found
    for command, option in found:
        assert option in {name for each in main.commands[command].params for name in each.opts}, (command, option)

"""The fenced blocks of README.md and of every page in docs/, and how tests run them.

A block that runs has a name, in a comment in front of it: ``<!-- run: name -->``. The test module of a page
(`module_of`) holds it as ``PAGE = Page("docs/page.md")`` and asks for its blocks as ``PAGE["name"]``;
`tests/docs/test_pages.py` fails where a block is asked for by nobody.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from click.testing import CliRunner

from squeeze_patch.cli import main
from tests.processes import module_for, programs

ROOT = Path(__file__).parent.parent.parent
#: languages of blocks that are run, that show what is printed, and that are read by a parser
RUN, SHOWN, PARSED = ("sh", "python"), ("text",), ("bibtex", "json", "toml", "yaml")

_FENCE = re.compile(r"(?:<!-- run: ([\w-]+) -->\n)?^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``name`` is "" where it has none, ``language`` where it says none."""

    name: str
    language: str
    text: str
    line: int


class Page:
    """One Markdown file, by its path from the project's folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (ROOT / path).read_text(encoding="utf-8")
        self.blocks = [
            Block(found[1] or "", found[2], found[3], self.text.count("\n", 0, found.start(2)) + 1)
            for found in _FENCE.finditer(self.text)
        ]

    def __getitem__(self, name: str) -> str:
        (text,) = (block.text for block in self.blocks if block.name == name)
        return text

    def __repr__(self) -> str:
        return self.path

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)


def pages() -> List[Page]:
    found = sorted((ROOT / "docs").rglob("*.md"))
    return [Page("README.md"), *(Page(path.relative_to(ROOT).as_posix()) for path in found)]


def module_of(page: Page) -> Path:
    """The test module of a page: tests/docs/test_hosts_nvidia.py for docs/hosts/nvidia.md."""
    if page.path == "README.md":
        return ROOT / "tests" / "test_readme.py"
    stem = page.path[len("docs/") : -len(".md")]
    return ROOT / "tests" / "docs" / f"test_{re.sub(r'[/-]', '_', stem)}.py"


def shell(text: str, cwd: Path, environment: Optional[Mapping[str, str]] = None) -> subprocess.CompletedProcess[str]:
    """Run a block in bash, as written; `squeeze-patch` is this environment's, without the seconds that torch takes."""
    variables: Dict[str, str] = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    folders = [programs(module_for(variables)), Path(sys.executable).parent, variables["PATH"]]
    variables["PATH"] = os.pathsep.join(map(str, folders))
    done = subprocess.run(
        ["bash", "-ec", text], cwd=cwd, env=variables, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def commands(text: str) -> str:
    """Run a block of `squeeze-patch` commands, line by line, in this process and folder; returns what they print.

    It is `shell` without the seconds that torch takes to be imported for every command.
    """
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        name, *arguments = shlex.split(line)
        assert name == "squeeze-patch", line
        target = arguments.pop() if ">" in arguments else ""
        done = CliRunner().invoke(main, arguments[:-1] if target else arguments)
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
        if target:
            Path(target).write_text(done.stdout, encoding="utf-8")
        else:
            printed += done.stdout
    return printed


def python(text: str, **names: Any) -> Dict[str, Any]:
    """Run a block of Python in this process and folder, where ``names`` are known; returns all names."""
    namespace: Dict[str, Any] = {"__name__": "block", **names}
    exec(compile(text, "<block>", "exec"), namespace)
    return namespace


def shows(pattern: str, printed: str) -> bool:
    """Whether every line of a block that shows output was printed; ``...`` in it stands for anything."""
    lines = [".*".join(map(re.escape, line.split("..."))) for line in pattern.splitlines()]
    return all(re.search(f"^{line}$", printed, flags=re.MULTILINE) for line in lines)

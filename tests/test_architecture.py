"""The tree shows the architecture: arrows go one way, nothing imports in a circle, and the core names no host."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest

from tests.helpers import ROOT

#: rooms from the ground up; a module may import what is on a lower floor, and what is in its own room
FLOORS = (
    {"errors", "process_settings", "version"},
    {"precision", "conditioning"},
    {"connection", "progress", "reporting"},
    {"handing_on"},
    {"fused_convolution"},
    {"adapters"},
    {"sampling", "initialization"},
    {"timing"},
    {"planning"},
    {"surgery"},
    {"checkpoints", "evaluation"},
    {"recovery", "training", "demo", "checks"},
    {""},  # squeeze_patch itself: the public names
    {"cli", "testing"},
    {"__main__"},
)
#: words of the NVIDIA family's hosts, in no file of the core but that of its scripts; persistent_load is pickle's own
HOST_WORDS = re.compile(r"torch_utils|dnnlib|\blegacy\b|fused_modconv|persisten(?!t_load)|subprocess_fn")


def source_files() -> Dict[str, Path]:
    """{dotted name: file} of the package as it is installed, adapters inside."""
    found = {}
    for folder, prefix in ((ROOT / "squeeze_patch", "squeeze_patch"), (ROOT / "adapters", "squeeze_patch.adapters")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([prefix, *parts]).replace(".__init__", "")] = path
    return found


FILES = source_files()


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "squeeze_patch":
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from submodules & set(FILES)
            if submodules - set(FILES):
                yield node.module


GRAPH: Dict[str, Set[str]] = {name: set(imported(path)) - {name} for name, path in FILES.items()}


def circles(graph: Dict[str, Set[str]]) -> List[str]:
    """The modules from which their own imports lead back to them."""

    def reached(start: str) -> Set[str]:
        seen: Set[str] = set()
        todo = list(graph[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(graph[name])
        return seen

    return sorted(name for name in graph if name in reached(name))


def room(name: str) -> str:
    return [*name.split("."), ""][1]


def floor(name: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if room(name) in rooms)


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]


def test_no_module_is_in_an_import_circle() -> None:
    assert len(GRAPH) > 80
    assert circles(GRAPH) == []


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in FILES} == set().union(*FLOORS)


@pytest.mark.parametrize("name", sorted(FILES))
def test_arrows_go_down(name: str) -> None:
    wrong = [other for other in GRAPH[name] if room(other) != room(name) and floor(other) >= floor(name)]
    assert wrong == []


def test_imports_stand_at_the_top() -> None:
    """An import inside a function can hide an arrow; those of optional packages go by importlib."""
    hidden = []
    for name, path in FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))):
            hidden += [name for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert hidden == []


def test_the_core_names_no_host() -> None:
    found = {
        name: HOST_WORDS.findall(path.read_text(encoding="utf-8"))
        for name, path in FILES.items()
        if room(name) != "adapters" and name != "squeeze_patch.training.nvidia"
    }
    assert {name: words for name, words in found.items() if words} == {}
    assert HOST_WORDS.search(FILES["squeeze_patch.training.nvidia"].read_text(encoding="utf-8"))


def test_a_name_means_one_thing() -> None:
    """Families have the same file names on purpose, and a command is named after what it does."""
    core = [name for name in FILES if room(name) not in ("adapters", "cli", "demo") and name.count(".") == 2]
    families = {"nvidia", "rosinality", "lucidrains"}
    leaves = Counter(name.rpartition(".")[2] for name in core if name.rpartition(".")[2] not in families)
    assert [leaf for leaf, count in leaves.items() if count > 1] == []
    classes = Counter(
        node.name
        for name, path in FILES.items()
        if room(name) not in ("adapters", "demo")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in classes.items() if count > 1] == []


def test_tests_import_no_other_test_and_no_benchmark() -> None:
    wrong = []
    for path in (ROOT / "tests").rglob("*.py"):
        if "packages" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.split(".")[0] in ("benchmarks", "experiments") or ".test_" in module:
                wrong.append(f"{path.name}: {module}")
    assert wrong == []


def test_no_file_is_long() -> None:
    long = {
        str(path): lines
        for folder in ("squeeze_patch", "adapters", "tests", "benchmarks", "experiments")
        for path in [*(ROOT / folder).rglob("*.py"), ROOT / "squeeze_patch_pytest.py"]
        if "packages" not in path.parts
        for lines in [len(path.read_text(encoding="utf-8").splitlines())]
        if lines > 350
    }
    assert long == {}

"""A hook of mkdocs: lets mkdocstrings read the library in the layout in which it is installed.

In the source tree adapters/ lies beside squeeze_patch/, installed it is squeeze_patch.adapters. And where a public
function has the name of its module, whoever reads the sources finds the module: it gets another name here.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, List

from mkdocs.plugins import event_priority

ROOT = Path(__file__).parent.parent


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: Any) -> None:
    layout = tempfile.TemporaryDirectory(prefix="squeeze_patch_docs_")
    config.squeeze_patch_layout = layout  # it lives as long as the settings do
    package = Path(layout.name) / "squeeze_patch"
    ignored = shutil.ignore_patterns("__pycache__", "*.npz")
    shutil.copytree(ROOT / "squeeze_patch", package, ignore=ignored)
    shutil.copytree(ROOT / "adapters", package / "adapters", ignore=ignored)
    for name in public_names(package / "__init__.py"):
        rename_module(package, name)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [layout.name]


def public_names(init: Path) -> List[str]:
    """What ``__all__`` lists."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            names: List[str] = ast.literal_eval(node.value)
            return names
    raise ValueError(f"{init} has no __all__")


def rename_module(package: Path, name: str) -> None:
    """Put an underscore behind the name of the module or package ``name``, where there is one, in every import."""
    found = next((path for path in (package / f"{name}.py", package / name) if path.exists()), None)
    if found is None:
        return
    found.rename(found.with_name(found.name.replace(name, f"{name}_", 1)))
    imported = re.compile(rf"^(\s*(?:from|import) squeeze_patch\.{name})\b", flags=re.MULTILINE)
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        file.write_text(imported.sub(r"\1_", text), encoding="utf-8")

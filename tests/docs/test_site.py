"""The pages as a site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import squeeze_patch
from tests.docs.pages import ROOT, pages


def test_it_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in pages()[1:]:
        name = page.path[len("docs/") : -len(".md")]
        assert (tmp_path / "site" / f"{name}.html").is_file()
    reference = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in squeeze_patch.__all__:
        assert f'<h3 id="squeeze_patch.{name}"' in reference

"""`python -m benchmarks kill_files` in short: no file is ever half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.kill_files import JOBS, FileOutcome


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="half a minute each; SQUEEZE_SLOW=1 runs them")
@pytest.mark.parametrize("job", JOBS)
def test_never_half(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at random moments; the command does it 100 times."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outcome = JOBS[job](tmp_path, kills=4, seed=1)
    assert outcome.kills >= 2  # some runs may have ended before
    assert outcome.sound


def test_half_a_file_is_no_success() -> None:
    assert FileOutcome(3, {"old": 2, "new": 1}, []).sound
    assert not FileOutcome(3, {"old": 2, "half": 1}, []).sound
    assert not FileOutcome(3, {"old": 3}, [".out.pkl.squeeze-00000000.part"]).sound

"""`python -m benchmarks kill` in short: a recovery that is killed and taken up ends with the same bits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.kill import disturb


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="half a minute; SQUEEZE_SLOW=1 runs it")
def test_killed_and_taken_up_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at random moments; the command does it 20 times."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outcome = disturb(tmp_path, kills=3, seed=1)
    assert outcome.kills == 3
    assert outcome.equal
    assert outcome.left_over == []

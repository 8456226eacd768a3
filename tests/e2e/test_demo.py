"""The demo, as a stranger runs it: it checks each outcome itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

from processes import ROOT


def test_the_tour_comes_to_its_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set((ROOT / ".mitmgate").glob("demo-*"))
    done = subprocess.run(
        [ROOT / "scripts" / "demo", "--once"],
        cwd=tmp_path,  # from any directory
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything that the demo started is stopped" in done.stdout
    assert "jane.doe@example.com" in done.stdout  # what the model says, shown on purpose
    assert "The caller gets: You can reach Jane Doe at [EMAIL]" in done.stdout
    assert set((ROOT / ".mitmgate").glob("demo-*")) == before

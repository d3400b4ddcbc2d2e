"""Every example runs, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_edges(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    picture = np.zeros((40, 60, 3))
    picture[:, 30:] = 1  # one vertical edge
    image.imsave(tmp_path / "photo.png", picture)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, str(ROOT / "examples" / "edges.py"), "photo.png", "--output", "out.png"],
                          capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 x 40 pixels, 4 filters" in done.stdout and "im2col" in done.stdout and "a crop of 60 x 40" in done.stdout
    assert image.imread(tmp_path / "out.png").shape[1] > 1000

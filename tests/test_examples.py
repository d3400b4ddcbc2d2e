"""Every example runs, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(example: str, *arguments: str, folder: Path) -> str:
    """What an example prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, str(ROOT / "examples" / example), *arguments], capture_output=True, text=True,
                          cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_edges(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    picture = np.zeros((40, 60, 3))
    picture[:, 30:] = 1  # one vertical edge
    image.imsave(tmp_path / "photo.png", picture)
    said = run("edges.py", "photo.png", "--output", "out.png", folder=tmp_path)
    assert "60 x 40 pixels, 4 filters" in said and "im2col" in said and "a crop of 60 x 40" in said
    assert image.imread(tmp_path / "out.png").shape[1] > 1000


def test_scikit_image(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    said = run("scikit_image.py", "--size", "48", folder=tmp_path).splitlines()
    assert len(said) == 6 and said[0].split()[0] == "filter" and all("x   " in line for line in said[1:])

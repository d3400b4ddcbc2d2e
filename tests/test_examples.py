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


SAID = {
    "volume.py": ["32 x 32 x 3    28 x 28 x 1    76", "28 x 28 x 6    24 x 24 x 10   1,510"],
    "curve_detector.py": ["30·50 + 30·50 + 30·50 + 30·20 + 30·50 = 6,600", "where it is not:        0\n"],
    "vertical_lines.py": [" -2  -2   5\n -1  -2   5\n  0  -2   5\n", "row 0, column 2"],
    "square.py": ["squares of 6 x 6, by their upper left corners:  row 2, column 1\n",
                  "corners, lower right:  row 7, column 6\n"],
    "output_sizes.py": ["     5       2         2          3          4\n", "is no size: 3*", "it spans 5"],
    "poolings.py": ["max:\n       6      5\n       7      9\n", "minimum:\n       1      0\n       0      3\n",
                    "   7.874  5.477"],
}


@pytest.mark.parametrize("example", SAID)
def test_tables(example: str, tmp_path: Path) -> None:
    said = run(example, folder=tmp_path)
    assert all(each in said for each in SAID[example]), said


def test_the_curve_as_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("curve_detector.py", "--output", "curve.png", folder=tmp_path)
    assert (tmp_path / "curve.png").stat().st_size > 3000


def test_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    said = run("digits.py", "--epochs", "12", folder=tmp_path)
    assert "61,706" in said and "1,198 digits, 12 epochs" in said
    assert float(said.splitlines()[-1].partition("%")[0]) > 90

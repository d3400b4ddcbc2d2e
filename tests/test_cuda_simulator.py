"""The CUDA kernels in Numba's simulator, which needs no GPU: a process of its own, since Numba reads the choice once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cuda_cases
import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="numba-cuda is tested on Linux")


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run([sys.executable, HERE / "cuda_cases.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", cuda_cases.names())
def test_case(results: dict[str, dict], name: str) -> None:
    assert name in results, "the case did not run"
    assert results[name]["wrong"] is None, results[name]["wrong"]

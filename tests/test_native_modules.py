"""Native modules that do not load: the others go on, `info` and the errors say why, and what may pass is not remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fastconv
from fastconv import native

pytest.importorskip("fastconv._runtime")

HEAD = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]  # this copy, nothing else
sys.modules["numba"] = None  # it would compile for seconds
import numpy as np, fastconv
from fastconv import native
x, w = np.ones((1, 8, 20, 20), np.float32), np.ones((8, 8, 3, 3), np.float32)
"""
# all that is asked of a damaged installation, in one process
REPORT = HEAD + """
import json
from fastconv.bench import machine
plan = fastconv.explain("ic8ih20oc8kh3")
forced = "ran"
try:
    with fastconv.config(isa=sys.argv[1]):
        fastconv.conv2d(x, w, backend="cython")
except fastconv.Unavailable as error:
    forced = str(error)
facts = machine.describe()
value = round(float(fastconv.conv2d(x, w)[0, 0, 0, 0]), 4)
print(json.dumps({"value": value, "backend": plan.backend, "isa": plan.isa, "forced": forced, "facts": facts,
                  "info": machine.as_text(facts)}))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be damaged."""
    here = Path(fastconv.__file__).parent
    shutil.copytree(here, tmp_path / "fastconv", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for module in here.glob("_*.so"):
        (tmp_path / "fastconv" / module.name).symlink_to(module)
    return tmp_path / "fastconv"


def module(package: Path, name: str) -> Path:
    found, = package.glob(f"_{name}.*so")
    return found


def python(package: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(package.parent), "FASTCONV_ISA": "", "FASTCONV_NO_NATIVE": "", **environment}
    return subprocess.run([sys.executable, *arguments], cwd=package.parent, env=variables, capture_output=True, text=True)


def answer(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def foreign(path: Path) -> None:
    """Another ISA's module under this name."""
    source = module(path.parent, "baseline").resolve()
    path.unlink()
    shutil.copy(source, path)


def replaced(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        sound = path.read_bytes()
        path.unlink()
        path.write_bytes(content(sound))

    return damage


DAMAGES = {
    "empty": replaced(lambda sound: b""), "header": replaced(lambda sound: sound[:64]),
    "first page": replaced(lambda sound: sound[:4096]), "half": replaced(lambda sound: sound[: len(sound) // 2]),
    "last byte": replaced(lambda sound: sound[:-1]), "text": replaced(lambda sound: b"no module at all\n" * 100),
    "other machine": replaced(lambda sound: sound[:18] + b"\xb7" + sound[19:]), "foreign": foreign,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_next_isa_takes_over(package: Path, damage: str) -> None:
    isas = native.runnable_isas()
    if len(isas) < 2:
        pytest.skip("one ISA runs here")
    DAMAGES[damage](module(package, isas[-1]))
    found = json.loads(answer(python(package, "-c", REPORT, isas[-1])))
    assert (found["value"], found["backend"], found["isa"]) == (72, "cython", isas[-2])
    failed = found["facts"]["native_failed"]
    assert list(failed) == [isas[-1]] and found["facts"]["isas_built"] == list(native.built_isas())
    assert f"does not load: {isas[-1]}: {failed[isas[-1]]}" in found["info"] and failed[isas[-1]] in found["forced"]


@pytest.mark.parametrize("damage", ["half", "text", "foreign"])
def test_without_the_runtime_the_other_backends_go_on(package: Path, damage: str) -> None:
    DAMAGES[damage](module(package, "runtime"))
    found = json.loads(answer(python(package, "-c", REPORT, "baseline")))
    assert found["value"] == 72 and found["backend"] != "cython"
    reason = found["facts"]["native_failed"]["runtime"]
    assert reason in found["facts"]["backends"]["cython"] and reason in found["forced"] and reason in found["info"]


def test_without_any_kernels_the_reasons_are_told(package: Path) -> None:
    for isa in native.built_isas():
        DAMAGES["text"](module(package, isa))
    found = json.loads(answer(python(package, "-c", REPORT, "baseline")))
    assert found["value"] == 72 and found["backend"] != "cython"
    assert all(f"_{isa}." in found["facts"]["backends"]["cython"] for isa in native.runnable_isas())


def test_a_module_that_was_not_built_is_looked_for_once(package: Path) -> None:
    module(package, "runtime").unlink()
    program = HEAD + """
import importlib.util
asked = []
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: asked.append(name) or find(name, *rest)
assert native.runtime() is None and native.failures() == {} and "not built" in fastconv.backends()["cython"]
for size in range(20, 30):
    fastconv.conv2d(x[:, :, :size], w)
print(asked.count("fastconv._runtime"))
"""
    assert answer(python(package, "-c", program)) == "1"


MEMORY = HEAD + """
import resource
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[1]), -1))
try:
    fastconv.conv2d(x, w)
except MemoryError:
    pass
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(np.round(fastconv.conv2d(x, w)[0, 0, 0, 0], 3), fastconv.explain("ic8ih20oc8kh3").backend, native.failures())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
@pytest.mark.parametrize("room", [0, 200_000, 3_000_000])
def test_want_of_memory_passes(room: int) -> None:
    assert answer(python(Path(fastconv.__file__).parent, "-c", MEMORY, str(room))) == "72.0 cython {}"


def test_want_of_file_descriptors_passes() -> None:
    program = HEAD + """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    fastconv.conv2d(x, w)
except (MemoryError, OSError):
    pass
for descriptor in taken:
    os.close(descriptor)
print(np.round(fastconv.conv2d(x, w)[0, 0, 0, 0], 3), fastconv.explain("ic8ih20oc8kh3").backend, native.failures())
"""
    assert answer(python(Path(fastconv.__file__).parent, "-c", program)) == "72.0 cython {}"

"""What holds the project together: one direction of imports, a light import, documented names, files of one subject."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv

PACKAGE = Path(fastconv.__file__).parent
ROOT = PACKAGE.parent

# each layer may import what stands before it: ops -> problem -> plan -> backend -> kernel, read from the right
LAYERS = (
    {"errors", "reasons", "files", "hardware", "kept", "streams", "terminal", "cuda_arrays", "spent"},
    {"settings", "arguments", "storage", "batches", "receptive_field"}, {"native", "window", "lifetimes"}, {"wisdom_file"},
    {"problem_text", "dtypes", "machine"},
    {"problem", "pool_problem"}, {"activations", "unit_axes", "native_problem"},
    {"algorithms", "lowering", "weight_gradient"}, {"lowering_costs", "phases_at_once"}, {"backends"}, {"wisdom", "candidates"},
    {"verify", "timing"}, {"tuning"}, {"plan"}, {"torch_arrays"}, {"arrays"}, {"operands"}, {"ops", "channels"},
    {"directions", "image", "pool_calls", "pointwise", "normalization", "losses"}, {"prepared", "pooling"},
    {"adaptive_pooling", "unpooling", "layer_normalization"}, {"pooling_gradients"}, {"nn"}, {"viz"}, {"stated"},
    {"bench"}, {"demo"}, {"cli"}, {"__main__"},
)


def _level(module: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if module in layer]
    assert found, f"fastconv/{module} stands in no layer"
    return found[0]


def _imports(path: Path):
    """(top-level fastconv module, line) that a file imports, wherever and whenever."""
    depth = len(path.relative_to(PACKAGE).parts) - 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            up = node.level - 1 - depth
            if node.level and up == 0:
                names = [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]
            elif (node.module or "").startswith("fastconv"):
                names = [node.module.partition(".")[2].partition(".")[0]]
            else:
                continue
            yield from ((name, node.lineno) for name in names if name)


def _sources():
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def _module(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward(path):
    module = _module(path)
    if module == "__init__":
        return
    for imported, line in _imports(path):
        if imported.startswith("_") or imported == module:
            continue  # native modules; siblings in a folder
        if not (PACKAGE / f"{imported}.py").exists() and not (PACKAGE / imported).is_dir():
            continue  # a name of the package itself
        assert _level(imported) < _level(module), f"{path.name}:{line} imports {imported}, which stands above {module}"


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def _import_graph() -> dict[str, set[str]]:
    """The modules that each module's file imports, wherever and whenever; folders stand for their __init__.py."""
    files = {_dotted(path): path for path in _sources()}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
                target = (base + (node.module or "")).rstrip(".")
                named = {f"{target}.{alias.name}" for alias in node.names}
                found |= named & set(files) or {target} & set(files)
        found -= {name, "fastconv"}
    return graph


def test_no_imports_go_in_circles():
    with_nothing_left, graph = set(), _import_graph()
    while free := {name for name, needs in graph.items() if name not in with_nothing_left and needs <= with_nothing_left}:
        with_nothing_left |= free
    circle = sorted(set(graph) - with_nothing_left)
    assert not circle, f"in a circle, or above one: {circle}"


def test_the_layers_name_every_file():
    for path in _sources():
        if _module(path) != "__init__":
            _level(_module(path))


_LIGHT = """
import sys
import numpy
before = set(sys.modules)
import fastconv
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"fastconv"}))
print(float(numpy.finfo("f4").smallest_subnormal), float(numpy.finfo("f8").smallest_subnormal))
heavy = {"subprocess", "fastconv.bench", "fastconv.checks", "fastconv.tuning", "fastconv.viz"}
print(sorted(heavy & set(sys.modules) - before))
"""


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_takes_numpy_and_nothing_heavier():
    lines = _python(_LIGHT).splitlines()
    assert lines[0] == "[]", "import fastconv imports " + lines[0]
    assert lines[2] == "[]", "import fastconv imports " + lines[2]


def test_importing_leaves_denormals_alone():
    """Row 28 of the failures: a library linked with -ffast-math sets flush-to-zero in the whole process."""
    single, double = map(float, _python(_LIGHT).splitlines()[1].split())
    assert single > 0 and double > 0


def test_computing_leaves_denormals_alone(backend):
    x, w = np.ones((1, 8, 9, 9), np.float32), np.ones((8, 8, 3, 3), np.float32)
    for accuracy in ("strict", "fast", "loose"):
        fastconv.conv2d(x, w, accuracy=accuracy, backend=backend)
        tiny = np.array([1e-40], np.float32)
        assert (tiny * np.float32(0.5))[0] > 0 and float(tiny[0]) > 0


def test_the_verdict_of_no_test_depends_on_time():
    """What hangs is ended by pytest-timeout; what is slow is none of the tests' business."""
    for path in Path(__file__).parent.glob("test_*.py"):
        found = re.findall(r"\b(?:perf_counter|process_time|monotonic|timeout=)", path.read_text())
        assert not found or path == Path(__file__), f"{path.name} uses {found[0]}"


def test_every_public_name_is_annotated_and_documented():
    for name in fastconv.__all__:
        thing = getattr(fastconv, name)
        assert inspect.getdoc(thing), f"fastconv.{name} has no docstring"
        if inspect.isfunction(thing):
            _check_annotations(thing, name)
        elif inspect.isclass(thing):
            for key, member in vars(thing).items():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if inspect.isfunction(function) and (not key.startswith("_") or key == "__call__"):
                    _check_annotations(function, f"{name}.{key}")


def _check_annotations(function, name):
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty, f"{name}: no return annotation"
    for parameter in signature.parameters.values():
        annotated = parameter.annotation is not inspect.Parameter.empty
        assert annotated or parameter.name in ("self", "cls"), f"{name}: {parameter.name}"


def test_all_lists_what_is_public():
    for name in fastconv.__all__:
        assert hasattr(fastconv, name)
    assert fastconv.__version__ in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_have_one_subject(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 500, f"{path.name} has {len(lines)} lines"
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} does not say what it is for"


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 90, f"{path.name}: {node.name} has {node.end_lineno - node.lineno + 1} lines"


def test_every_backend_keeps_the_protocol():
    package = importlib.import_module("fastconv.backends")
    for name, who in package.registry().items():
        assert who.name == name and who.device in ("cpu", "cuda")
        assert who.unavailable() is None or isinstance(who.unavailable(), str)
        for method in ("candidates", "refuses", "seconds", "bind"):
            assert callable(getattr(who, method)), f"{name}.{method}"

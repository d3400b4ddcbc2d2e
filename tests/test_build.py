"""The build: its flags, what it recompiles, what it says without a compiler, and what the wheel and the sdist hold."""

import json
import os
import platform
import runpy
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ISAS = ("baseline", "avx2", "avx512")

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")

# Stands in for g++: notes its arguments, writes what a compiler would.
COMPILER = """
import json, pathlib, sys
arguments = sys.argv[1:]
with open(LOG, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
pathlib.Path(arguments[arguments.index("-o") + 1]).write_text("")
if "-MF" in arguments:
    source = arguments[arguments.index("-c") + 1]
    pathlib.Path(arguments[arguments.index("-MF") + 1]).write_text(f"object: {source} \\\\\\n kernels/abi.hpp\\n")
"""


# What distributions, conda and people set, and more
HOSTILE = {
    "CFLAGS": "-march=native -mtune=native -Ofast -ffast-math -DKEPT -D_FORTIFY_SOURCE=2 -fstack-protector-strong -flto=auto",
    "CXXFLAGS": "-mcpu=native -mavx2 -mfma -mavx512f -msse4.2 -funsafe-math-optimizations -fassociative-math -O0 -std=c++11 "
    "-Werror -fno-exceptions -fvisibility=default -ffp-contract=off -Xclang -target-feature -Xclang +avx2 @flags.txt",
    "CPPFLAGS": "-mbmi2 -mf16c -isystem /m -mno-omit-leaf-frame-pointer -m64",
    "LDFLAGS": "-ffinite-math-only -freciprocal-math -mavx -pie -Wl,-z,now",
}


class Tree:
    """A copy of the sources, built by a stand-in compiler."""

    def __init__(self, root, folder):
        self.root = root
        self.log = folder / "log"
        script = folder / "compiler.py"
        script.write_text(COMPILER.replace("LOG", repr(str(self.log))))
        self.compiler = f"{sys.executable} {script}"

    def run(self, *arguments, **environment):
        for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "FASTCONV_NO_NATIVE"):
            environment.setdefault(name, "")
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.root, env={**os.environ, **environment}, capture_output=True, text=True)

    def build(self, **environment):
        """The arguments of every run of the compiler."""
        self.log.write_text("")
        done = self.run("setup.py", "build_ext", "--inplace", **{"CXX": self.compiler, **environment})
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def copy_sources(target, with_objects=False):
    def ignored(folder, names):
        skipped = {".git", ".venv", "dist", "__pycache__", ".hypothesis", ".pytest_cache", ".ci", "results"}
        if not with_objects:
            skipped.add("build")
        return [
            name for name in names if name in skipped or name.endswith((".so", ".egg-info")) or name.startswith("lib.")
        ]

    shutil.copytree(ROOT, target, ignore=ignored)
    return target


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    pytest.importorskip("Cython")
    folder = tmp_path_factory.mktemp("build")
    copy_sources(folder / "sources")
    (folder / "sources" / "flags.txt").write_text("-mavx2 -funsafe-math-optimizations -DFROM_A_FILE")
    return Tree(folder / "sources", folder)


@pytest.fixture(scope="module")
def commands(tree):
    return tree.build(**HOSTILE)


def isa_of(command):
    return next((word.partition("=")[2] for word in command if word.startswith("-DFASTCONV_ISA=")), None)


def test_no_flag_that_changes_arithmetic_or_needs_this_cpu(commands):
    ours = {"-m64", "-mno-omit-leaf-frame-pointer", "-mprefer-vector-width=512"}
    ours |= {f"-march=x86-64{level}" for level in ("", "-v3", "-v4")}
    assert commands
    for command in commands:
        assert not [word for word in command if word.startswith("-m") and word not in ours]
        for word in command:
            assert not word.startswith(("-Ofast", "-funsafe", "-fassociative", "-ffinite", "-freciprocal", "-ffast", "-flto"))
            assert word not in ("-Xclang", "+avx2", "-Werror", "-fno-exceptions", "-pie", "-O0", "-std=c++11")
    compiled = [command for command in commands if "-c" in command]
    for word in ("-DKEPT", "-DFROM_A_FILE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-m64", "/m"):
        assert all(word in command for command in compiled), word
    assert all("-Wl,-z,now" in command for command in commands if "-shared" in command)
    for flag in ("-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=fast", "-std=c++17"):
        assert all(flag in command for command in compiled), flag
    for flag in ("-fvisibility=hidden", "-ffp-contract=fast"):  # the last of its kind counts
        kind = flag.partition("=")[0]
        assert all([word for word in command if word.startswith(f"{kind}=")][-1] == flag for command in compiled)


@pytest.mark.parametrize("name", ["g++", "clang++"])
@pytest.mark.parametrize("source", ["threads", "peak"])
def test_the_baseline_runs_on_any_x86_64(commands, tmp_path, name, source):
    """What the runtime and the baseline kernels are made of has no instruction above SSE2, whatever CFLAGS say."""
    compiler, objdump = shutil.which(name), shutil.which("objdump")
    if not (compiler and objdump) or platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip(f"needs {name} and objdump for x86-64")
    command = next(list(c) for c in commands if f"kernels/{source}.cpp" in c and isa_of(c) in (None, "baseline"))
    command[command.index("-o") + 1] = str(tmp_path / "x.o")
    command[command.index("-MF") + 1] = str(tmp_path / "x.d")
    subprocess.run([compiler, *command], cwd=ROOT, check=True)
    listing = subprocess.check_output([objdump, "-d", "--no-show-raw-insn", str(tmp_path / "x.o")], text=True)
    code = [line.split("\t", 1)[1] for line in listing.splitlines() if "\t" in line]
    assert len(code) > 100
    assert not [line for line in code if line.startswith("v") or "%ymm" in line or "%zmm" in line]


def test_each_isa_has_its_flags_and_each_object_its_path(commands):
    compiled = [command for command in commands if "-c" in command]
    objects = [command[command.index("-o") + 1] for command in compiled]
    assert len(set(objects)) == len(objects)
    march = {
        isa: {word for c in compiled if isa_of(c) == isa for word in c if word.startswith("-march")} for isa in ISAS
    }
    if march["avx2"]:
        assert march == {"baseline": {"-march=x86-64"}, "avx2": {"-march=x86-64-v3"}, "avx512": {"-march=x86-64-v4"}}
        runtime = [command for command in compiled if isa_of(command) is None]
        assert runtime and all("-march=x86-64" in command for command in runtime)
    sources = {isa: sorted(c[c.index("-c") + 1] for c in compiled if isa_of(c) == isa) for isa in ISAS if march[isa]}
    assert all(listed == sources["baseline"] for listed in sources.values())


def test_only_what_changed_is_compiled(tree, commands):
    def compiled(**environment):
        return [c[c.index("-c") + 1] for c in tree.build(**environment) if "-c" in c]

    everything = sum("-c" in command for command in commands)
    assert len(compiled()) == everything  # other flags than `commands`
    assert compiled() == []
    (tree.root / "kernels" / "peak.cpp").touch()
    assert set(compiled()) == {str(Path("kernels") / "peak.cpp")}
    (tree.root / "kernels" / "shortcut.pxi").touch()  # included by runtime.pyx
    assert [Path(source).name for source in compiled()] == ["runtime.cpp"]
    (tree.root / "kernels" / "abi.hpp").touch()
    assert len(compiled()) == everything
    assert len(compiled(CXXFLAGS="-DOTHER")) == everything


def test_no_compiler(tree, tmp_path):
    done = tree.run("setup.py", "build_ext", "--inplace", CC="/nonexistent/gcc", PATH=str(tmp_path))
    assert done.returncode != 0
    for text in (
        "/nonexistent/g++",
        "apt install g++",
        "dnf install gcc-c++",
        "xcode-select",
        "FASTCONV_NO_NATIVE=1 pip",
    ):
        assert text in done.stderr
    frame = [line for line in done.stderr.splitlines() if line[:1] in "+|" and line]
    assert len({len(line) for line in frame}) == 1 and frame[0] == frame[-1] == "+" + "-" * (len(frame[0]) - 2) + "+"


@pytest.fixture(scope="module")
def setup():
    """The functions of setup.py."""
    setuptools = pytest.importorskip("setuptools")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **keywords: None)
        return runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize(
    "command, wanted",
    [
        ("gcc", "g++"),
        ("ccache gcc", "ccache g++"),
        ("distcc gcc", "distcc g++"),
        ("icecc clang", "icecc clang++"),
        ("sccache cc -pthread", "sccache c++ -pthread"),
        ("ccache distcc /opt/gcc/bin/gcc -B/opt/gcc", "ccache distcc /opt/gcc/bin/g++ -B/opt/gcc"),
        ("gcc -B /opt/gcc", "g++ -B /opt/gcc"),
        ("/usr/lib/ccache/x86_64-linux-gnu-gcc-12", "/usr/lib/ccache/x86_64-linux-gnu-g++-12"),
        ("env PATH=/opt/gcc gcc", "env PATH=/opt/gcc g++"),
        ("/opt/cc/clang-18", "/opt/cc/clang++-18"),
        ("'/opt/my gcc/gcc'", "'/opt/my gcc/g++'"),
        ("g++-13", "g++-13"),
        ("ccache", ""),
        ("nvcc", ""),
    ],
)
def test_the_partner_for_c_plus_plus(setup, command, wanted):
    assert shlex.join(setup["partner"](shlex.split(command))) == wanted


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder of programs that are there, and no others."""
    for name in ("ccache", "g++", "clang++-18", "x86_64-linux-gnu-g++-12"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "environment, wanted, note",
    [
        ({}, "g++", ""),
        ({"CC": "ccache gcc -B/opt/gcc"}, "ccache g++ -B/opt/gcc", ""),
        ({"CC": "x86_64-linux-gnu-gcc-12"}, "x86_64-linux-gnu-g++-12", ""),
        ({"CXX": "clang++-18 -march=native --target=x", "CC": "gcc"}, "clang++-18 --target=x", ""),
        ({"CXX": "clang++-99", "CC": "ccache gcc"}, "ccache g++", "clang++-99 not found"),
        ({"CC": "gcc-99"}, "g++", "g++-99 not found"),
        ({"CC": "distcc gcc"}, "g++", "distcc g++ not found"),
        ({"CC": "ccache clang"}, "g++", "ccache clang++ not found"),
    ],
)
def test_a_compiler_that_is_not_there_gives_way(setup, tools, monkeypatch, capsys, environment, wanted, note):
    monkeypatch.setattr(setup["sysconfig"], "get_config_var", lambda name: "icpx-9")
    for name in ("CC", "CXX"):
        monkeypatch.setenv(name, environment.get(name, ""))
    assert shlex.join(setup["compiler"].__wrapped__()) == wanted
    said = capsys.readouterr().err
    assert (note in said and f"compiling with {wanted}" in said) if note else not said


@pytest.mark.parametrize("text", ["", "0", "1", "no", "No", "off", "FALSE", "true", "yes", " 0 ", " ", "2"])
def test_no_native_means_the_same_when_built_and_when_run(setup, monkeypatch, text):
    from fastconv import settings

    monkeypatch.setenv("FASTCONV_NO_NATIVE", text)
    assert settings._from_environment().no_native is setup["switched_on"]("FASTCONV_NO_NATIVE") is (setup["extensions"]() == [])


def wheel(tree, out, **environment):
    done = tree.run("-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(out), ".", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_pure_python_install(tree, tmp_path):
    path = wheel(tree, tmp_path / "wheel", FASTCONV_NO_NATIVE="1", CC="/nonexistent")
    assert path.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(path).namelist()
    assert not [name for name in names if name.endswith((".so", ".pyd", ".cpp", ".pyx"))]
    zipfile.ZipFile(path).extractall(tmp_path / "site")
    program = (
        "import fastconv, numpy; print(fastconv.conv2d(numpy.ones((1, 1, 3, 3)), numpy.ones((1, 1, 3, 3))).item())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "9.0", done.stderr


@pytest.mark.slow
def test_wheel(tmp_path):
    pytest.importorskip("Cython")
    if not shutil.which("c++") and not shutil.which("g++"):
        pytest.skip("no compiler")
    tree = Tree(copy_sources(tmp_path / "sources", with_objects=True), tmp_path)
    path = wheel(tree, tmp_path / "wheel")
    assert path.stat().st_size < 5_000_000
    names = zipfile.ZipFile(path).namelist()
    modules = {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")}
    assert {"_runtime", "_baseline"} <= modules <= {"_runtime", "_baseline", "_avx2", "_avx512"}
    assert "fastconv/py.typed" in names
    suites = {f"fastconv/bench/suites/{path.name}" for path in (ROOT / "fastconv/bench/suites").glob("*.txt")}
    assert suites <= set(names)
    outside = [name for name in names if not name.startswith(("fastconv/", "fastconv-"))]
    assert not outside
    assert not [name for name in names if name.endswith((".cpp", ".hpp", ".pyx", ".o", ".pyc"))]
    for name in names:
        if name.endswith(".so"):
            zipfile.ZipFile(path).extract(name, tmp_path / "site")
            check_exports(tmp_path / "site" / name)


def check_exports(library):
    nm = shutil.which("nm")
    if nm and sys.platform.startswith("linux"):
        done = subprocess.run([nm, "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True)
        names = [line.split()[-1] for line in done.stdout.splitlines()]
        assert names == [f"PyInit_{library.name.partition('.')[0]}"]


def test_installed_modules_export_only_their_init():
    runtime = pytest.importorskip("fastconv._runtime")
    for library in Path(runtime.__file__).parent.glob("_*.so"):
        check_exports(library)


@pytest.mark.slow
def test_sdist_is_complete(tree, tmp_path):
    done = tree.run("setup.py", "-q", "sdist", "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked")  # our own archive; no filter= in older 3.11
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wanted = [
        "kernels/abi.hpp",
        "kernels/runtime.pyx",
        "Makefile",
        "LICENSE",
        "fastconv/py.typed",
        "tests/test_build.py",
    ]
    for pattern in (
        "kernels/*.?pp",
        "fastconv/**/*.py",
        "fastconv/bench/suites/*.txt",
        "benchmarks/*.py",
        "examples/*.py",
    ):
        wanted += [str(path.relative_to(tree.root)) for path in tree.root.glob(pattern)]
    assert [name for name in wanted if not (unpacked / name).exists()] == []
    assert not list(unpacked.rglob("*.so"))
    assert Tree(unpacked, tmp_path).build()


# ---- the inner loops: all of a tile's sums stay in registers

TILES = {  # kernel: function, as it is mangled, and how many sums it keeps in registers (AVX2 has 16)
    "gemm": ("GemmTileIfLi6ELi2ELb0E", 12),
    "winograd": ("WinogradTileIfLi6ELi2ELb0E", 12),
    "direct": ("microIfLi6ELi2E", 12),
    "broadcast": ("microIfLi6ELi2E", 12),
    "grouped": ("microIfLi6ELNS1_6InputsE0E", 6),
    "dot": ("DotTileIfLi4ELi3E", 12),
    "outer": ("OuterTileIfLi6ELi2ELb0E", 12),
    "winograd_weight": ("OuterTileIfLi6ELi2ELb1E", 12),
    "inner": ("InnerTileIfLi3ELi4E", 12),
    "pairs": ("PairTileIfLi6ELi2ELb0E", 12),
    "col2im": ("ColumnTileIfLi6ELi2E", 12),
    "depthwise": ("sum_outputsIfLi6ELi2E", 12),
    "depthwise_input": ("7strandsIfLi6E", 6),
}


def loops(assembly, function):
    """The instructions of every innermost loop of the function."""
    lines = assembly.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("_Z") and line.endswith(":") and function in line)
    end = next(i for i in range(begin, len(lines)) if ".cfi_endproc" in lines[i])
    labels = {line[:-1]: i for i, line in enumerate(lines[begin:end], begin) if line.startswith(".L") and line.endswith(":")}
    jumps = [(labels.get(words[-1]), i) for i in range(begin, end) if (words := lines[i].split()) and words[0][0] == "j"]
    spans = [(start, i) for start, i in jumps if start is not None and start < i]
    inner = [a for a in spans if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [[line.strip() for line in lines[start:stop]] for start, stop in inner]


@pytest.mark.parametrize("kernel", TILES)
def test_sums_stay_in_registers(commands, tmp_path, kernel):
    compiler = shutil.which("g++")
    if compiler is None or platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("needs g++ for x86-64")
    command = next(list(c) for c in commands if f"kernels/{kernel}.cpp" in c and isa_of(c) == "avx2")
    command[command.index("-c")], target = "-S", tmp_path / "kernel.s"
    command[command.index("-o") + 1] = str(target)
    subprocess.run([compiler, *command], cwd=ROOT, check=True)
    function, sums = TILES[kernel]
    loop = max(loops(target.read_text(), function), key=lambda lines: sum("vfmadd" in line for line in lines))
    multiply_adds = [line for line in loop if line.startswith("vfmadd")]
    assert multiply_adds and len(multiply_adds) % sums == 0
    assert not [line for line in loop if line.startswith("call")]
    spilled = [line for line in loop if "(%rsp" in line or "(%rbp" in line]
    assert 40 * len(spilled) <= len(multiply_adds), spilled  # one sum in eight steps, off the critical path, costs nothing

"""Builds the native modules: fastconv._runtime, and the kernels of each ISA from one source (see kernels/README.md).

setuptools compiles an extension's files one after another, always, and to one object per source path. Here all objects
of all extensions are compiled side by side into build/, and only those whose source, headers or flags changed.
FASTCONV_NO_NATIVE=1 builds none: a pure-Python fastconv.
"""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# kernels/<name>.cpp, defining `const Algorithm& <name>_algorithm()`
ALGORITHMS = ["gemm", "direct", "winograd", "depthwise", "fft"]

X86 = platform.machine().lower() in ("x86_64", "amd64")
ISAS = {"baseline": []}
if X86:
    ISAS["baseline"] = ["-march=x86-64"]
    ISAS["avx2"] = ["-march=x86-64-v3"]
    ISAS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]

FLAGS = (
    "-std=c++17 -O3 -g0 -DNDEBUG -fPIC -pthread -fvisibility=hidden -fvisibility-inlines-hidden "
    "-ffp-contract=fast -fno-math-errno -fno-trapping-math -Wall -Wextra"
).split()
# Never taken over from CFLAGS: they would put other instructions, or other arithmetic, into every build.
FORBIDDEN = ("-march=", "-mcpu=", "-mtune=native", "-Ofast", "-ffast-math", "-funsafe-math-optimizations",
             "-fassociative-math", "-ffinite-math-only", "-freciprocal-math", "-fno-signed-zeros")  # fmt: skip

ROOT = Path(__file__).resolve().parent
KERNELS = Path("kernels")
BUILD = (
    Path("build") / f"objects-{sysconfig.get_platform()}-{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
)
SANITIZE = os.environ.get("FASTCONV_SANITIZE", "")  # "address" (and undefined behaviour), "thread": see `make sanitize`
SANITIZERS = [f"-fsanitize={SANITIZE}{',undefined' if SANITIZE == 'address' else ''}"] if SANITIZE else []
if SANITIZE:
    BUILD = BUILD.with_name(f"{BUILD.name}-{SANITIZE}")
    FLAGS += [*SANITIZERS, "-fno-sanitize-recover=all", "-O1", "-g1", "-fno-omit-frame-pointer"]


class BuildFailed(Exception):
    pass


def compiler():
    """The C++ compiler: $CXX, the partner of $CC, or the first of the usual names that exists."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    if os.environ.get("CC"):
        words = shlex.split(os.environ["CC"])
        partner = {"gcc": "g++", "clang": "clang++", "cc": "c++"}
        return [re.sub(r"(gcc|clang|cc)(-[\d.]+)?$", lambda m: partner[m[1]] + (m[2] or ""), word) for word in words]
    configured = shlex.split(sysconfig.get_config_var("CXX") or "")
    for command in (configured, ["c++"], ["g++"], ["clang++"]):
        if command and shutil.which(command[0]):
            return command
    return ["c++"]


def environment_flags(*names):
    words = [word for name in names for word in shlex.split(os.environ.get(name, ""))]
    return [word for word in words if not word.startswith(FORBIDDEN)]


def run(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BuildFailed(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise BuildFailed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)


def write_if_changed(path, text):
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def dependencies(depfile):
    """The files named by a make rule `target: file file \\`; nothing before the first build."""
    if not depfile.exists():
        return []
    _, _, files = depfile.read_text().replace("\\\n", " ").partition(": ")
    return [Path(name) for name in shlex.split(files)]


def up_to_date(target, sources, key):
    """Whether `key` made the target, and after the last change of all its sources."""
    keyfile = Path(f"{target}.key")
    if not (target.exists() and keyfile.exists()) or keyfile.read_text() != key:
        return False
    made = target.stat().st_mtime_ns
    return all(file.exists() and file.stat().st_mtime_ns < made for file in sources)


def make(target, sources, command, key):
    """Run the command, which writes `target`.new, unless the target is up to date."""
    key = hashlib.sha256(f"{key} {sys.version}".encode()).hexdigest()
    if not up_to_date(target, sources, key):
        target.parent.mkdir(parents=True, exist_ok=True)
        started = time.time_ns()
        run([*command, "-o", f"{target}.new"])
        os.utime(f"{target}.new", ns=(started, started))  # an edit while the compiler ran counts as a change
        os.replace(f"{target}.new", target)
        Path(f"{target}.key").write_text(key)
    return target


def compile_object(source, target, flags, includes=(), versions=""):
    depfile = target.with_suffix(".d")
    flags = [*environment_flags("CPPFLAGS", "CFLAGS", "CXXFLAGS"), *FLAGS, *flags]
    command = [*compiler(), *flags, f"-I{KERNELS}", "-MMD", "-MF", str(depfile), "-MT", "object", "-c", str(source)]
    key = f"{command} {versions}"  # without the include folders: pip's isolated builds have new ones every time
    return make(target, [source, *dependencies(depfile)], command + [f"-isystem{path}" for path in includes], key)


def compile_runtime():
    import Cython
    import numpy

    source, generated = KERNELS / "runtime.pyx", BUILD / "runtime" / "runtime.cpp"
    versions = f"cython {Cython.__version__} numpy {numpy.__version__}"
    command = [sys.executable, "-m", "cython", "--cplus", "-3", "-M", "--module-name", "fastconv._runtime", str(source)]
    included = [file for file in dependencies(Path(f"{generated}.new.dep")) if KERNELS in file.parents]
    make(generated, [source, *included], command, f"{command[1:]} {versions}")
    includes = [sysconfig.get_path("include"), numpy.get_include()]
    flags = [*ISAS["baseline"], "-Wno-unused-function", "-Wno-cpp"]
    return compile_object(generated, BUILD / "runtime" / "runtime.o", flags, includes, versions)


def jobs():
    """(extension, function) of every object, the slowest first."""
    listed = " ".join(f"A({name})" for name in ALGORITHMS)
    python = [sysconfig.get_path("include")]
    yield "_runtime", compile_runtime
    for name in [*ALGORITHMS, "peak", "module"]:
        for isa, flags in reversed(ISAS.items()):
            flags = [*flags, f"-DFASTCONV_ISA={isa}"]
            if name == "module":
                flags.append(f"-DFASTCONV_ALGORITHMS={listed}")
            yield f"_{isa}", partial(compile_object, KERNELS / f"{name}.cpp", BUILD / isa / f"{name}.o", flags, python)
    yield "_runtime", partial(compile_object, KERNELS / "pool.cpp", BUILD / "runtime" / "pool.o", ISAS["baseline"])


def link(name, objects, target):
    init = f"PyInit_{name}"
    if sys.platform == "darwin":
        flags = ["-bundle", "-undefined", "dynamic_lookup", f"-Wl,-exported_symbol,_{init}"]
    else:
        exports = BUILD / f"{name}.exports"
        write_if_changed(exports, f"{{ global: {init}; local: *; }};\n")
        flags = ["-shared", "-Wl,--as-needed", f"-Wl,--version-script={exports}"]
        flags += SANITIZERS or ["-Wl,-s"]
    target.parent.mkdir(parents=True, exist_ok=True)
    flags += environment_flags("CXXFLAGS", "LDFLAGS")
    run([*compiler(), "-pthread", *flags, *map(str, objects), "-o", f"{target}.new"])
    os.replace(f"{target}.new", target)


@contextmanager
def locked(path):
    """One build at a time in this folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:
            pass
        yield


def framed(text):
    lines = [part for line in text.splitlines() for part in (line[i : i + 96] for i in range(0, max(len(line), 1), 96))]
    width = max(map(len, lines))
    bar = "+" + "-" * (width + 2) + "+"
    return "\n".join(["", bar, *(f"| {line:<{width}} |" for line in lines), bar])


HELP = """\
fastconv could not build its native kernels.

A C++17 compiler (gcc 11 or clang 15, or newer) and Python's headers are needed:
  Debian, Ubuntu   apt install g++ python3-dev
  Fedora, RHEL     dnf install gcc-c++ python3-devel
  macOS            xcode-select --install
Another compiler is chosen by CXX=/path/to/g++.

Without one, fastconv works in pure Python (NumPy, and Numba where it is installed):
  FASTCONV_NO_NATIVE=1 pip install .
"""


class BuildNative(build_ext):
    def build_extensions(self):
        os.chdir(ROOT)
        names = [extension.name.rpartition(".")[2] for extension in self.extensions]
        try:
            with locked(BUILD / "lock"), ThreadPoolExecutor(os.cpu_count() or 1) as workers:
                built = {name: [] for name in names}
                for name, job in jobs():
                    built[name].append(workers.submit(job))
                try:
                    for name in names:
                        objects = [job.result() for job in built[name]]
                        link(name, objects, Path(self.get_ext_fullpath(f"fastconv.{name}")).absolute())
                except BaseException:
                    workers.shutdown(cancel_futures=True)
                    raise
        except BuildFailed as failure:
            sys.exit(f"{failure}\n{framed(HELP)}")


def extensions():
    if os.environ.get("FASTCONV_NO_NATIVE", "0") not in ("", "0"):
        return []
    return [Extension(f"fastconv.{name}", sources=[]) for name in ["_runtime", *(f"_{isa}" for isa in ISAS)]]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative})

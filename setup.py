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
from functools import cache, partial
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# kernels/<name>.cpp, defining `const Algorithm& <name>_algorithm()`
ALGORITHMS = ["gemm", "direct", "winograd", "depthwise", "depthwise_input", "fft", "dot", "winograd_weight", "outer", "pairs",
              "inner", "col2im", "broadcast", "grouped"]
POOLING = ["pool", "pool_indices", "pool_gradient", "pool_apart"]  # all of a module's: `const Pool& pool()` in the first

X86 = platform.machine().lower() in ("x86_64", "amd64")
ISAS = {"baseline": []}
if X86:
    ISAS["baseline"] = ["-march=x86-64"]
    ISAS["avx2"] = ["-march=x86-64-v3"]
    ISAS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]

FLAGS = (
    "-std=c++17 -O3 -g0 -DNDEBUG -fPIC -pthread -fvisibility=hidden -fvisibility-inlines-hidden "
    "-ffp-contract=fast -fno-math-errno -fno-trapping-math -fstack-usage -Wall -Wextra"
).split()
# What CFLAGS and the like may not bring along (distributions and conda set them): other instructions, which would reach the
# runtime and the baseline kernels, loaded before the CPU is asked; other arithmetic; what the build would break on. Each
# stands for all words that start so.
DROPPED = (
    "-m", "-Wa,-m", "-O", "-ffast-math", "-funsafe-math-optimizations", "-fassociative-math", "-ffinite-math-only",
    "-freciprocal-math", "-fno-signed-zeros", "-fno-honor-", "-fapprox-func", "-ffp-", "-fp-model", "-fdenormal-fp-math",
    "-fexcess-precision", "-fsingle-precision-constant", "-fcx-", "-fveclib", "-flto", "-ffat-lto-objects", "-std=", "-ansi",
    "-Werror", "-Wfatal-errors", "-pedantic-errors", "-fno-exceptions", "-fno-rtti", "-pie", "-no-pie", "-static-pie",
)  # fmt: skip
# But these -m words are about the ABI, the system, or hardening that older CPUs take for no-operations
KEPT = (
    "-m32", "-m64", "-mx32", "-mabi=", "-mfloat-abi=", "-mcmodel=", "-mmacos", "-mbranch-protection=", "-mharden-sls=",
    "-mindirect-branch", "-mfunction-return=", "-mno-omit-leaf-frame-pointer", "-mstack-protector-guard", "-mtls-",
)  # fmt: skip
PAIRS = ("-Xclang", "-Xassembler", "-Xarch_", "-mllvm")  # dropped with the word that follows

# A compiler among the words of a command: gcc, /usr/bin/clang-15, x86_64-linux-gnu-g++-12; not ccache, distcc, icecc
COMPILER = re.compile(r"(?P<head>(?:[^=]*[-/])?)(?P<name>gcc|clang|cc|icx|g\+\+|clang\+\+|c\+\+|icpx)(?P<version>-[\d.]+)?")
PARTNERS = {"gcc": "g++", "clang": "clang++", "cc": "c++", "icx": "icpx"}

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


def place_of_compiler(words):
    """Where the compiler stands in a command, behind launchers and before its flags; None if no word looks like one."""
    return next((i for i, word in enumerate(words) if word[:1] != "-" and COMPILER.fullmatch(word)), None)


def partner(words):
    """The command for C++ where this one is for C: only the compiler's own word changes."""
    place = place_of_compiler(words)
    if place is None:
        return []
    found = COMPILER.fullmatch(words[place])
    name = found["head"] + PARTNERS.get(found["name"], found["name"]) + (found["version"] or "")
    return [*words[:place], name, *words[place + 1 :]]


def exists(words):
    """Whether a command's program, and the compiler that it launches, are there."""
    place = place_of_compiler(words) or 0
    return bool(words) and all(shutil.which(word) for word in {words[0], words[place]})


@cache
def compiler():
    """The command of the C++ compiler: the first that exists of $CXX, the partner of $CC, Python's own, and the usual names."""
    asked = [split("CXX"), partner(split("CC"))]
    usual = [shlex.split(sysconfig.get_config_var("CXX") or ""), ["c++"], ["g++"], ["clang++"]]
    for words in filter(exists, [*asked, *usual]):
        missing = [shlex.join(other) for other in asked[: asked.index(words) if words in asked else None] if other]
        if missing:
            print(f"fastconv: {', '.join(missing)} not found; compiling with {shlex.join(words)}", file=sys.stderr)
        place = place_of_compiler(words) or 0
        return [*words[: place + 1], *harmless(words[place + 1 :])]
    raise BuildFailed(f"no C++ compiler found: {', '.join(shlex.join(words) for words in [*asked, *usual] if words)}")


def split(name):
    """The words of an environment variable."""
    return shlex.split(os.environ.get(name, ""))


def harmless(words):
    """Flags without those that are not for others to choose: see DROPPED. Files of flags (@file) are opened."""
    kept, words = [], list(words)
    while words:
        word = words.pop(0)
        if word[:1] == "@" and os.path.isfile(word[1:]):
            words[:0] = shlex.split(Path(word[1:]).read_text())
        elif word.startswith(PAIRS):
            del words[:1]
        elif word == "-Xlinker":
            kept += [word, *words[:1]]
            del words[:1]
        elif word.startswith(KEPT) or not word.startswith(DROPPED):
            kept.append(word)
    return kept


def environment_flags(*names):
    return harmless([word for name in names for word in split(name)])


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
    for name in [*ALGORITHMS, *POOLING, "pointwise", "piecewise", "peak", "module"]:
        for isa, flags in reversed(ISAS.items()):
            flags = [*flags, f"-DFASTCONV_ISA={isa}"]
            if name == "module":
                flags.append(f"-DFASTCONV_ALGORITHMS={listed}")
            yield f"_{isa}", partial(compile_object, KERNELS / f"{name}.cpp", BUILD / isa / f"{name}.o", flags, python)
    yield "_runtime", partial(compile_object, KERNELS / "threads.cpp", BUILD / "runtime" / "threads.o", ISAS["baseline"])


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
    flags = [*environment_flags("CXXFLAGS", "LDFLAGS"), *flags]
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
                compiler()
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


def switched_on(name):
    """As fastconv.settings reads it when it runs."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


def extensions():
    if switched_on("FASTCONV_NO_NATIVE"):
        return []
    return [Extension(f"fastconv.{name}", sources=[]) for name in ["_runtime", *(f"_{isa}" for isa in ISAS)]]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative})

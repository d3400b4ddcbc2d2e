# mypy: disable-error-code="import-untyped"
"""Compilation of the stages of the Numba backend, once per dtype, and their cache on disk.

`frontend` has Numba write a stage in LLVM's language; here that is optimised, once, for this CPU. Machine code is kept in files
of ours, which are read without Numba: its import alone takes half a second.

What a first call takes with no cache, CPU seconds of one Zen 4 core (numba 0.68): 0.2 Numba's import and 0.3 its waking up (in
which it imports SciPy, if there is one), then 0.1 to 0.5 each stage, half of it LLVM's: 4 of gemm and direct, 6 of winograd, 8
of fft, 2 of depthwise; 0.02 what is vector code alone: register tiles, which are compiled one by one as sizes of blocks want
them, and winograd's transforms. Stages for what is not finite are compiled where it is first met.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import importlib.metadata
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from ... import settings

SPEED = 3  # of LLVM's levels: at 2, tiles are scheduled alike, but loops of the epilogue are slower
BESIDE = Path(__file__).parent / "__pycache__"
_DIGEST = hashlib.sha256().digest_size

_compiled: dict[tuple[str, str, str | None], Stage] = {}
_lock = threading.RLock()  # a signal handler may come back here
_spent = [0.0]  # seconds


def spent() -> float:
    """Seconds that compiling has taken in this process, the import of Numba included."""
    return _spent[0]


class Code(NamedTuple):
    """Machine code, and what must be there before it is loaded."""

    arguments: int
    needs: list[str]  # functions of other libraries
    machine: bytes


class Stage:
    """A compiled stage: `address` for native callers, `ctypes` for Python."""

    def __init__(self, code: Code) -> None:
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code.machine))
        self._engine.finalize_object()
        self.address = self._engine.get_function_address("stage")
        self.ctypes = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * code.arguments)(self.address)


def stage(name: str, dtype: str) -> Stage:
    """A stage, or activation. Compiled when first needed, then kept on disk: in the cache directory of the settings, else the
    user's cache, else beside this file; nowhere if none can be written. A file that is damaged is replaced.
    """
    directory = settings.current().cache_dir
    key = (name, dtype, directory)
    found = _compiled.get(key)
    if found is None:
        with _lock:
            found = _compiled.get(key) or Stage(_code(name, dtype, directory))
            _compiled[key] = found
    return found


def _code(name: str, dtype: str, directory: str | None) -> Code:
    key = f"{stamp()} {name} {dtype}"
    places = [folder / f"{name.replace(' ', '-')}-{dtype}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.o"
              for folder in _folders(directory)]
    for place in places:
        found = _read(place, key)
        if found is not None and _has_all(found):
            return found
    begin = time.perf_counter()
    with _no_collection():
        made = _optimised(*_written(name, dtype))
    _spent[0] += time.perf_counter() - begin
    for place in places:
        if _write(place, key, made):
            break
    return made


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's search for cycles, among all that a compiler keeps, would take a seventh of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _written(name: str, dtype: str) -> tuple[str, str, int]:
    from .frontend import written

    return written(name, dtype)


def _optimised(text: str, entry: str, arguments: int) -> Code:
    """All but the entry are seen by nobody else: what is called once, or never, is gone."""
    module = llvm.parse_assembly(text)
    for each in (*module.functions, *module.global_variables):
        if not each.is_declaration and each.name != entry:
            each.linkage = "internal"
    module.get_function(entry).name = "stage"
    machine = _machine()
    options = llvm.create_pipeline_tuning_options(speed_level=SPEED)
    options.loop_vectorization, options.slp_vectorization = True, False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    needs = [each.name for each in module.functions if each.is_declaration and not each.name.startswith("llvm.")]
    return Code(arguments, needs, machine.emit_object(module))


@functools.cache
def _cpu() -> tuple[str, str]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _machine() -> Any:
    cpu, features = _cpu()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=cpu, features=features, opt=3, codemodel="jitdefault", jit=True)


# ---- the cache


def _folders(directory: str | None) -> list[Path]:
    if directory is not None:
        return [Path(directory) / "numba"]
    user = settings.user_cache()
    return ([] if user is None else [user / "fastconv" / "numba"]) + [BESIDE]


def _read(place: Path, key: str) -> Code | None:
    """None for a file that is not there, or not what was written: damaged machine code would be run as it is."""
    try:
        content = place.read_bytes()
        digest, content = content[:_DIGEST], content[_DIGEST:]
        if digest != _digest(key, content):
            return None
        head, machine = content.split(b"\n", 1)
        arguments, needs = json.loads(head)
        return Code(arguments, needs, machine)
    except OSError:
        return None


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\n" + content).digest()


def _has_all(code: Code) -> bool:
    """LLVM ends the process where a function is missing."""
    return all(llvm.address_of_symbol(name) for name in code.needs)


def _write(place: Path, key: str, code: Code) -> bool:
    """Whether it could be: a full disk is no reason to fail. Others see all of a file, or none."""
    content = json.dumps([code.arguments, code.needs]).encode() + b"\n" + code.machine
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(key, content) + content)
            os.replace(name, place)
        except OSError:
            os.unlink(name)
            raise
    except OSError:
        return False
    return True


@functools.cache
def stamp() -> str:
    """Differs between versions of what a stage is made of, and between CPUs."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parents[1] / "activations.py", here.parents[1] / "algorithms" / "winograd.py"]
    made = hashlib.sha256()
    for file in files:
        with suppress(OSError):
            made.update(file.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    made.update(repr((versions, _cpu())).encode())
    return made.hexdigest()

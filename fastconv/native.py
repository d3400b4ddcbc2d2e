"""The native modules: `_runtime`, and one of kernels per ISA; which there are, which load, and why one does not.

What does not load costs no more than itself: without an ISA's kernels the next lower ones are used, without `_runtime` the
other backends. A module that is not there, or that the loader refuses, stays so for the life of the process; want of memory
or of file descriptors passes, so it is raised, and the next call asks again.
"""

from __future__ import annotations

import errno
import functools
import importlib
import importlib.util
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from . import hardware, settings

# how the loader's reasons end where another moment may do; glibc names no errno for the first
_PASSING = ("failed to map segment from shared object",
            *(os.strerror(number) for number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)))


class Loaded(NamedTuple):
    """A module, or the reason why there is none: "" where it was not built."""

    module: Any = None
    reason: str = ""


def runtime() -> Any:
    """The module fastconv._runtime, or None where there is none (`why_not` tells why).

    Raises:
        MemoryError: there is no memory, or no file descriptor, to load it now.
    """
    return _runtime().module


def isa_module(isa: str) -> Any:
    """The kernels of one of `runnable_isas`."""
    return _kernels(isa).module


def why_not(name: str = "runtime") -> str:
    """Why `_runtime`, or the kernels of an ISA, do not load; "" where they do, or were not built."""
    return (_runtime() if name == "runtime" else _kernels(name)).reason


@functools.cache
def built_isas() -> tuple[str, ...]:
    """ISAs whose kernels were built, best last."""
    return tuple(isa for isa in settings.ISAS if _file(isa))


@functools.cache
def runnable_isas() -> tuple[str, ...]:
    """ISAs that were built, that this CPU runs, and whose kernels load; best last. Raises as `runtime`."""
    return tuple(isa for isa in _supported() if isa_module(isa) is not None)


def failures() -> dict[str, str]:
    """What was built for this CPU and does not load, with the loader's reason."""
    names = ("runtime", *_supported())
    return {name: reason for name in names if (reason := why_not(name))}


@functools.cache
def _supported() -> tuple[str, ...]:
    found = runtime()
    return () if found is None else tuple(isa for isa in built_isas() if isa in found.supported_isas())


@functools.cache
def _runtime() -> Loaded:
    def told(module: Any) -> Any:
        module.limit_cpus(hardware.whole_cpus(hardware.cpu_quota()) or 0)
        return module

    return _load("runtime", told)


@functools.cache
def _kernels(isa: str) -> Loaded:
    return _load(isa, lambda module: runtime().Module(module.capsule))


def _load(name: str, take: Callable[[Any], Any]) -> Loaded:
    try:
        file = _file(name)
        if file is None:
            return Loaded()
        _check_whole(file)
        return Loaded(take(importlib.import_module(f"fastconv._{name}")))
    except MemoryError:
        raise
    except Exception as error:  # a foreign module may raise anything
        if str(error).endswith(_PASSING):
            raise MemoryError(f"fastconv._{name} cannot be loaded now: {error}") from error
        return Loaded(None, str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}")


def _file(name: str) -> str | None:
    found = importlib.util.find_spec(f"fastconv._{name}")
    return None if found is None else found.origin


def _check_whole(file: str) -> None:
    """The loader maps what an ELF file's headers promise; the first touch of what is not there would be a bus error.

    Raises:
        ImportError: the file is shorter than its headers say.
    """
    size = os.stat(file).st_size
    with open(file, "rb") as opened:
        head = opened.read(64)
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":  # 64 bits, little endian; of others the loader speaks itself
        return
    sections, = struct.unpack_from("<Q", head, 40)
    entry, count = struct.unpack_from("<HH", head, 58)
    if sections + entry * count > size:  # the table of sections is what linkers write last
        raise ImportError(f"{file}: truncated, {size} of {sections + entry * count} bytes")

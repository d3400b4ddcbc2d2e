"""Settings: environment variables, `set_num_threads` and the `config()` context, in one immutable object.

Environment (each is also a keyword of `config`):

=======================  ==============================================================================
FASTCONV_BACKEND         the backend that ``backend="auto"`` means
FASTCONV_BACKENDS        comma-separated third-party backends to enable
FASTCONV_ISA             force one build of the native kernels: baseline, avx2, avx512
FASTCONV_NUM_THREADS     threads per call; default: the physical cores this process may use, or its container's share of CPUs
FASTCONV_EXPECTED_BATCH  images that a call is expected to have, for the choice of an algorithm: packing the weights counts for
                         one of so many; default: 1, in training 8. What a call really has never changes the choice
FASTCONV_ACCURACY        default of ``accuracy``: strict, fast or loose
FASTCONV_AUTOTUNE        1: measure the candidates of a problem when it is planned first, and remember the fastest
FASTCONV_WISDOM          file with what ``fastconv tune`` measured: plans use it; autotuning adds to it
FASTCONV_CACHE_DIR       where compiled kernels are cached, and ``fastconv tune`` keeps its file unless told otherwise
FASTCONV_VERBOSE         1: print one line per new problem to stderr
FASTCONV_NO_NATIVE       1: behave as if no native kernels were built (at build time: build none)
=======================  ==============================================================================
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from . import hardware
from .errors import shown

ACCURACIES = ("strict", "fast", "loose")
ISAS = ("baseline", "avx2", "avx512")
MOST = 8192  # threads: Linux itself counts no more CPUs; and images
BATCH_IN_TRAINING = 8

_generations = itertools.count()


@dataclass(frozen=True)
class Settings:
    """One consistent set of settings.

    `generation` is a new number whenever wisdom was named or a backend registered: what lies behind such a name may have
    changed, and is looked at again.
    """

    backend: str = "auto"
    backends: tuple[str, ...] = ()
    isa: str | None = None
    num_threads: int = 1
    expected_batch: int | None = None
    accuracy: str = "fast"
    autotune: bool = False
    wisdom: str | None = None
    cache_dir: str | None = None
    verbose: bool = False
    no_native: bool = False
    generation: int = dataclasses.field(default_factory=lambda: next(_generations), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_threads", _count("num_threads", self.num_threads))
        if self.expected_batch is not None:
            object.__setattr__(self, "expected_batch", _count("expected_batch", self.expected_batch))
        for name, value, words in (("accuracy", self.accuracy, ACCURACIES), ("isa", self.isa, (None, *ISAS))):
            if not (value is None or isinstance(value, str)) or value not in words:
                raise ValueError(f"{name} must be one of {', '.join(filter(None, words))}, got {shown(value)}")
        if not isinstance(self.backend, str):
            raise TypeError(f"backend must be a name, got {shown(self.backend)}")
        if not isinstance(self.backends, (tuple, list)) or not all(isinstance(name, str) for name in self.backends):
            raise TypeError(f"backends must be a tuple of names, got {shown(self.backends)}")
        object.__setattr__(self, "backends", tuple(self.backends))
        for name, path in (("wisdom", self.wisdom), ("cache_dir", self.cache_dir)):
            if not (path is None or isinstance(path, (str, os.PathLike))):
                raise TypeError(f"{name} must be a path or None, got {shown(path)}")
        for name, switch in (("autotune", self.autotune), ("verbose", self.verbose), ("no_native", self.no_native)):
            if not isinstance(switch, int) or switch not in (0, 1):
                raise TypeError(f"{name} must be True or False, got {shown(switch)}")

    @functools.cached_property
    def planning(self) -> tuple[Any, ...]:
        """All that a plan, and the meaning of a call's arguments, depend on: what is remembered of them is keyed by it.
        Neither threads nor the folder of a cache choose an algorithm."""
        return (self.generation, self.backend, self.backends, self.isa, self.accuracy, self.autotune, self.wisdom, self.verbose,
                self.no_native, self.expected_batch)

    @functools.cached_property
    def in_training(self) -> Settings:
        """These, where calls have batches unless somebody said how large they are."""
        return self if self.expected_batch is not None else dataclasses.replace(self, expected_batch=BATCH_IN_TRAINING)

    def changed(self, **changes: Unpack[Changes]) -> Settings:
        """These settings but for the changes; no changes: a new generation."""
        if not changes or "wisdom" in changes:
            return dataclasses.replace(self, generation=next(_generations), **changes)
        if all(type(value) is type(getattr(self, name)) and value == getattr(self, name) for name, value in changes.items()):
            return self
        return dataclasses.replace(self, **changes)


def _count(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)
    except Exception:  # whatever an object's __index__ does
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None
    if not 1 <= count <= MOST:
        raise ValueError(f"{name} must be positive, and at most {MOST}, got {shown(count)}")
    return count


class Changes(TypedDict, total=False):
    """The fields of `Settings` that a user may set, as keywords."""

    backend: str
    backends: tuple[str, ...]
    isa: str | None
    num_threads: int
    expected_batch: int | None
    accuracy: str
    autotune: bool
    wisdom: str | None
    cache_dir: str | None
    verbose: bool
    no_native: bool


def _physical_cores() -> int:
    """Physical cores among the CPUs this process may run on (hyper-threads share the FMA units), at least 1."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = set()
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def _default_threads() -> int:
    """One per physical core; under a CPU quota no more than it lets run at a time, as the others would only wait."""
    return min(_physical_cores(), hardware.whole_cpus(hardware.cpu_quota()) or sys.maxsize)


def _flag(text: str | None) -> bool:
    return (text or "").strip().lower() not in ("", "0", "false", "no", "off")  # so does setup.py


def _from_environment() -> Settings:
    env = {name: os.environ.get(f"FASTCONV_{name}") or None for name in (
        "BACKEND", "BACKENDS", "ISA", "NUM_THREADS", "EXPECTED_BATCH", "ACCURACY", "AUTOTUNE", "WISDOM", "CACHE_DIR", "VERBOSE",
        "NO_NATIVE")}
    counts = {name: env[name] for name in ("NUM_THREADS", "EXPECTED_BATCH")}
    for name, text in counts.items():
        if text is not None and not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST):
            raise ValueError(f"FASTCONV_{name} must be a positive integer, at most {MOST}, got {shown(text)}")
    threads, batch = counts.values()
    try:
        return Settings(
            backend=env["BACKEND"] or "auto",
            backends=tuple(name.strip() for name in (env["BACKENDS"] or "").split(",") if name.strip()),
            isa=env["ISA"],
            num_threads=int(threads) if threads else _default_threads(),
            expected_batch=int(batch) if batch else None,
            accuracy=env["ACCURACY"] or "fast",
            autotune=_flag(env["AUTOTUNE"]),
            wisdom=env["WISDOM"],
            cache_dir=env["CACHE_DIR"],
            verbose=_flag(env["VERBOSE"]),
            no_native=_flag(env["NO_NATIVE"]),
        )
    except ValueError as error:
        field, _, rule = str(error).partition(" ")
        raise ValueError(f"FASTCONV_{field.upper()} {rule}") from None


_global: Settings | None
try:
    _global = _from_environment()
except ValueError:
    _global = None  # said when the settings are first needed, where a caller can catch it; so does the command line
_local: ContextVar[Settings | None] = ContextVar("fastconv_settings", default=None)


def current() -> Settings:
    """The settings in force here: those of the innermost `config()` of this context, else the global ones."""
    return _local.get() or _global or _from_environment()


def update(**changes: Unpack[Changes]) -> None:
    """Change the global settings (all threads), and those of an enclosing `config()`. No changes: whatever was planned is
    planned anew."""
    global _global
    _global = (_global or _from_environment()).changed(**changes)
    local = _local.get()
    if local is not None:
        _local.set(local.changed(**changes))


def user_cache() -> Path | None:
    """The folder below which programs cache for this user; None where nobody says: containers and services run without HOME,
    and what takes the word ``~`` for a folder makes one of that name wherever it happens to be."""
    found = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(found) if os.path.isabs(found) else None


def set_num_threads(n: int) -> None:
    """Use at most `n` threads per call, in every thread of this process.

    Results do not depend on the number of threads.

    Raises:
        ValueError: n is not positive, or beyond 8192.
        TypeError: n is not an integer.
    """
    update(num_threads=n)


def get_num_threads() -> int:
    """The number of threads a call may use here."""
    return current().num_threads


class using:
    """As `config`, of settings that there are already, in a tenth of the time.

    >>> with using(current().in_training):
    ...     y = fastconv.conv2d(x, w)
    """

    __slots__ = ("_settings", "_token")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        self._token = _local.set(self._settings)

    def __exit__(self, *_: Any) -> None:
        _local.reset(self._token)


@contextmanager
def config(**changes: Unpack[Changes]) -> Iterator[Settings]:
    """Settings for the body of a `with` statement, in this thread (or asyncio task) only.

    Keywords are the fields of `Settings`: backend, backends, isa, num_threads, expected_batch, accuracy, autotune,
    wisdom, cache_dir, verbose, no_native.

    >>> with fastconv.config(num_threads=1, accuracy="strict"):
    ...     y = fastconv.conv2d(x, w)
    """
    known = Changes.__annotations__
    unknown = set(changes) - set(known)
    if unknown:
        raise TypeError(f"config() got unknown settings {shown(sorted(unknown))}; known: {', '.join(sorted(known))}")
    token = _local.set(current().changed(**changes))
    try:
        yield current()
    finally:
        _local.reset(token)

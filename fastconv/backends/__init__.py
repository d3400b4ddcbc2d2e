"""The backends: a protocol, an ordered list, and a registry.

Adding a backend is one file in this folder that ends in ``backend = MyBackend()``, and its module name in `ORDER`. Modules
must be cheap to import; what is heavy is imported when first needed. Third parties register a module or object with a
``backend`` under the entry-point group ``fastconv.backends``; it takes part once `enable_backend(name)` or
``FASTCONV_BACKENDS`` names it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Hashable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from .. import settings
from ..errors import Unavailable, clipped, shown

if TYPE_CHECKING:
    from ..pool_problem import PoolProblem
    from ..problem import ConvProblem
    from ..spent import Parts

ORDER = ("cython_native", "numba_jit", "im2col", "naive", "numba_cuda")  # fastest first; the last never for NumPy by itself


class Candidate(NamedTuple):
    """One way in which a backend could compute a problem."""

    algorithm: str
    isa: str | None = None
    tile: tuple[int, ...] | None = None  # lengths along axes, of an algorithm that has tiles; None: the backend's own choice

    def __str__(self) -> str:
        tile = "" if self.tile is None else " " + "x".join(map(str, self.tile))
        return self.algorithm + tile + ("" if self.isa is None else f"/{self.isa}")


class Kernel(Protocol):
    """A candidate bound to a problem. Holds no weights; may be used by several threads at once. One that has compiled code may
    say in `compile_seconds` how long that took, 0 where it was there already."""

    packed_bytes: int  # what pack() keeps
    pack_key: Hashable  # kernels with equal keys accept each other's packed weights: it names all that their bytes depend on

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory while running."""

    def pack(self, second: np.ndarray, bias: np.ndarray | None, /) -> Any:
        """The second array (forward: the weights) and the bias in the form that `run` wants; may refer to these arrays, which
        stay as they are."""

    def run(self, first: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None, /) -> None:
        """Compute into `out`, overwriting all of it.

        All arrays are in the problem's layout, dtype and shape (batch included), native-endian and aligned, with any
        strides; `residual` may be `out` itself, nothing else overlaps.
        """


class Shortcut(Protocol):
    """A call that was validated once, to be taken again with other arrays. May be used by several threads at once."""

    def take(self, made_for: settings.Settings, arguments: tuple[Any, ...], input: Any, weight: Any, bias: Any, residual: Any,
             out: Any) -> Any | None:
        """The result of the call; None, with `out` as it was, unless what plans depend on and the arguments are what they were
        (of the same types: 1 is not True), and the arrays such that `run` takes them as they are: exactly `numpy.ndarray`, of
        the problem's dtype and shapes, `out` apart from all others or `residual` itself. Whatever is not plain is left to
        the general path, which alone knows rules and messages."""


class ShortcutKernel(Kernel, Protocol):
    """A kernel may offer this as well: for calls so short that what Python does around `run` counts."""

    def shortcut(self, made_for: settings.Settings, arguments: tuple[Any, ...], batched: bool,
                 packed: Any = None) -> Shortcut | None:
        """A shortcut for a validated call, if there is one.

        Args:
            made_for: the settings it was validated under; compared by their `planning`. Threads may differ.
            arguments: None, int, str, float, and tuples of these; compared with their types.
            batched: whether the input has the batch axis.
            packed: what `pack` returned, for a call without weight and bias; None: these are packed in every call.
        """


class OnceKernel(Kernel, Protocol):
    """A kernel may offer this as well: where weights are read in place, for a call that has them for itself."""

    def once(self, second: np.ndarray, bias: np.ndarray | None) -> Any:
        """The same as `pack`, for the next run of this kernel and no other; both arrays stay until then."""


class Backend(Protocol):
    """Who executes."""

    name: str
    device: str  # "cpu" or "cuda"
    # optional: the methods of `Varied`, `Itemized` and `Pooling`; `directions`, those it computes itself, else only "forward",
    # and the others as forward problems (see `lowering`); `computes(direction, candidate)`, where some candidates compute
    # others, too

    def unavailable(self) -> str | None:
        """Why it cannot run here, with what would change that; None if it can."""

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        """Its algorithms (and ISAs), best first; asked only while available."""

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        """Why this candidate does not compute the problem, in one line; None if it does."""

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        """Estimated time; None: ranked by order alone.

        Args:
            prepared: whether the weights are packed beforehand, so that packing takes no time.
        """

    def bind(self, problem: ConvProblem, candidate: Candidate) -> Kernel: ...

    def __hash__(self) -> int:
        """Kernels are remembered by the object."""
        return object.__hash__(self)


@runtime_checkable
class Itemized(Protocol):
    """A backend whose estimates are sums, of which `explain` shows the parts."""

    def spent(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> tuple[Parts, float]:
        """(what `seconds` are spent on, see `fastconv.spent`; how many of that make a second)."""


@runtime_checkable
class Varied(Protocol):
    """A backend whose candidates come in variants. None is planned unless it was measured: see `fastconv tune`."""

    def variants(self, problem: ConvProblem, candidate: Candidate) -> tuple[Candidate, ...]:
        """Other tiles of a candidate that may be faster, best first; without that candidate itself."""


class PoolKernel(Protocol):
    """A pooling bound to its problem; may be used by several threads at once. It reads the problem's tables, and nothing else
    of how the windows were stated: see `pool_problem`. One that has `finds_extremes` set takes, for a gradient of max or min,
    the forward call's input in place of the indices."""

    def run(self, first: np.ndarray, result: np.ndarray, indices: np.ndarray | None = None, input: np.ndarray | None = None,
            /) -> None:
        """Compute into `result`, overwriting all of it; the same bits for any number of threads.

        All arrays are in the problem's layout, dtype (`indices`: int64) and shape, native-endian and aligned, with any strides,
        and apart from each other.

        Args:
            first: the input; of `backward_input` the output's gradient.
            indices: where each output of max and min lies in its plane of the input, as a flat index of its spatial axes: the
                first of equals; of several NaN the last. Forward: written, where the problem's `return_indices` is set, and
                else None. `backward_input`: read, and known to lie in the plane; None for the other ops.
            input: of the forward call; of `backward_input` for lp, and where `finds_extremes`.

        `backward_input` adds up what a position gets in the order of the outputs; lp multiplies the sum of
        ``∂y · s^(1/p - 1) · scale / divisor`` by ``x^(p - 1)``, where s, of each window, is what the root is taken of, and a
        window with s = 0 adds nothing. What no window reads is 0. Powers are NumPy's: x^0.5 is the square root, also of -Inf.
        """


@runtime_checkable
class Pooling(Protocol):
    """A backend that pools as well."""

    def refuses_pool(self, problem: PoolProblem) -> str | None:
        """Why it does not compute the problem, in one line; None if it does. Asked only while available."""

    def bind_pool(self, problem: PoolProblem) -> PoolKernel: ...


def weights_of(problem: ConvProblem) -> tuple[Hashable, ...]:
    """What a problem says of its weights and bias alone: a part of every `pack_key`."""
    return problem.dtype, problem.groups, problem.second_shape, problem.bias


_SPOKEN = {"forward": "the forward direction", "backward_input": "the gradient of the input",
           "backward_weight": "the gradient of the weight"}


def refuses_direction(problem: ConvProblem, directions: tuple[str, ...] = ("forward",)) -> str | None:
    """The reason of whoever computes only `directions` itself."""
    if problem.direction in directions:
        return None
    return f"computes {' and '.join(map(_SPOKEN.__getitem__, directions))} only, not {problem.direction}"


_METHODS = ("unavailable", "candidates", "refuses", "seconds", "bind")  # of a Backend
_registry: dict[str, Backend] = {}


_enabled: dict[str, str] = {}  # entry points that were loaded, and the names of their backends


def registry() -> dict[str, Backend]:
    """All backends that take part, by name, in order."""
    if not _registry:
        found = [importlib.import_module(f".{module}", __name__).backend for module in ORDER]
        _registry.update({backend.name: backend for backend in found})
    for name in settings.current().backends:
        if _enabled.get(name) not in _registry:
            _add(_load(name), name)
    return _registry


def get(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ValueError: there is none.
    """
    found = registry().get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"backend must be 'auto' or one of {clipped(', '.join(registry()), 300)}, got {shown(name)}")
    return found


def enable_backend(name: str) -> None:
    """Let a third party's backend take part: the one registered under `name` in the group ``fastconv.backends``.

    It is ranked by its own estimates, and behind fastconv's backends where it gives none.

    Raises:
        Unavailable: nothing is registered under that name, or it does not import.
    """
    registry()
    _add(_load(name), name)
    settings.update()  # whatever was planned before is planned anew


def register(backend: Backend) -> None:
    """Add a backend object, for this process; one of the same name is replaced.

    Raises:
        TypeError: it does not keep the protocol.
    """
    registry()
    _add(backend)
    settings.update()


def _add(backend: Backend, entry_point: str = "") -> None:
    _check_protocol(backend)
    _registry[backend.name] = backend
    if entry_point:
        _enabled[entry_point] = backend.name


def _check_protocol(backend: Any) -> None:
    """What can be told without a call."""
    wrong = [f"a method {name}" for name in _METHODS if not callable(getattr(backend, name, None))]
    if isinstance(backend, type):
        wrong = ["an instance, not a class"]
    name = getattr(backend, "name", None)
    if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+", name)) or name == "auto":
        wrong.insert(0, f"a name of letters, digits and .-_, not 'auto' (it has {shown(name)})")
    if getattr(backend, "device", None) not in ("cpu", "cuda"):
        wrong.append(f"a device, 'cpu' or 'cuda' (it has {shown(getattr(backend, 'device', None))})")
    if wrong:
        raise TypeError(f"backend {shown(backend, 60)} does not keep the protocol of fastconv.backends.Backend; "
                        f"it needs {', '.join(wrong)}")


def _load(name: str) -> Backend:
    """The backend of an entry point: an object, or a module with a ``backend``."""
    if not isinstance(name, str):
        raise TypeError(f"backend must be the name of an entry point, got {shown(name)}")
    found = [point for point in entry_points(group="fastconv.backends") if point.name == name]
    if not found:
        raise Unavailable(f"no installed package registers a fastconv backend named {shown(name)} "
                          f"(entry-point group fastconv.backends)")
    try:
        loaded = found[0].load()
    except Exception as error:
        raise Unavailable(f"backend {shown(name)} does not import: {clipped(str(error), 300)}") from error
    return getattr(loaded, "backend", loaded)

"""torch's tensors: which of them are taken, how the backends see them, what comes out.

Nothing here imports torch; whoever has a tensor did. A convolution of fastconv reads and writes memory behind torch's back, so
whatever torch would record, transform or trace (autograd, torch.func, torch.jit.trace, ...) is refused: it would see nothing of
it, and go on with a wrong number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from . import cuda_arrays

_Function = TypeVar("_Function", bound=Callable[..., Any])
_DTYPES = frozenset("float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split())  # that NumPy has
_CHANNELS_FIRST = ("channels_first", "NCHW", "NCDHW")


def library() -> Any:
    """torch, where it has been imported."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "Tensor") else None


def opaque(function: _Function) -> _Function:
    """As `torch.compiler.disable`, without torch: a compiled program calls the function, and does not try to see inside."""
    function.__dict__.update(_torchdynamo_disable=True, _torchdynamo_disable_msg="fastconv computes outside of torch")
    return function


@functools.cache
def _keep_the_compiler_out() -> None:
    """What a compiled program calls is compiled as well, each function by itself, again and again: not what is in here."""
    rules: Any = getattr(sys.modules["torch._dynamo"], "trace_rules", None)
    if hasattr(rules, "add"):
        rules.add(__package__)


class TorchKind:
    """Dense tensors on one device; the backends' views share their memory.

    Results are plain tensors, or of the tensors' common subclass, as torch's own functions return them.
    """

    name = "torch"

    def __init__(self, tensor: Any) -> None:
        with _plainly(library(), tensor):
            self.device = str(tensor.device)
        if self.device != "cpu" and not self.device.startswith("cuda"):
            raise TypeError(f"torch tensors must be on the CPU or a CUDA device, got device {self.device}")
        self.result_type: Any = None  # None: a plain tensor

    def join(self, tensors: list[Any]) -> None:
        """Let the results be those of a call with all these tensors.

        Raises:
            TypeError: torch is recording what is called.
        """
        torch = library()
        if "torch._dynamo" in sys.modules:
            _keep_the_compiler_out()
        _refuse_tracing(torch)
        types = {type(tensor) for tensor in tensors if _is_subclass(torch, type(tensor))}
        self.result_type = next((t for t in types if all(issubclass(t, other) for other in types)), None)

    def view(self, name: str, array: Any) -> Any:
        """The tensor as a NumPy array or `CudaView`.

        Raises:
            TypeError: it is not what its memory says, or NumPy lacks its dtype.
        """
        torch = library()
        with _plainly(torch, array):
            _check(torch, name, array)
            if array.is_neg():
                if name == "out":
                    raise TypeError("out must not have its negative bit set; pass out.resolve_neg()")
                array = array.resolve_neg()
            if name == "out" and not array.is_inference():
                torch.autograd.graph.increment_version(array)  # so that autograd notices if it has saved what is overwritten
            array = array.detach()
            if self.device == "cpu":
                return array.numpy()
        return cuda_arrays.device_view(array)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        torch = library()
        made = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
        return made if self.result_type is None else made.as_subclass(self.result_type)


class ChannelsLastKind:
    """Tensors whose shapes say (N, C, ...) while their memory is channels_last: seen as the latter, without a copy."""

    name = "torch"

    def __init__(self, kind: TorchKind) -> None:
        self.kind, self.device = kind, kind.device

    def view(self, name: str, array: Any) -> Any:
        return channels_moved_last(self.kind.view(name, array))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        made = self.kind.empty(shape, dtype)
        with _plainly(library(), made):
            moved = made.movedim(-1, 1)
        return moved if self.kind.result_type is None else moved.as_subclass(self.kind.result_type)


def in_memory_order(kind: Any, ndim: int, layout: Any, deciding: tuple[Any, ...],
                    views: tuple[Any, ...]) -> tuple[Any, ...]:
    """(kind, layout, views) of a convolution, such that tensors in torch's channels_last memory format are what they are:
    channels_last arrays. As in torch, one of those that decide (input, weight) is enough, and one image alone never is.

    Args:
        deciding: how the backends see these.   views: of the input, and of what has the output's shape.
    """
    if layout not in _CHANNELS_FIRST or len(views[0].shape) != ndim + 2 or 0 in views[0].shape:
        return kind, layout, views
    if not any(is_channels_last(array.shape, array.strides) for array in deciding):
        return kind, layout, views
    if any(view is not None and len(view.shape) != ndim + 2 for view in views):
        return kind, layout, views  # wrong, and said so elsewhere
    return ChannelsLastKind(kind), "channels_last", tuple(None if v is None else channels_moved_last(v) for v in views)


def is_channels_last(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether torch takes these strides for its channels_last memory format: from the channels outwards through the last axes
    to the first, each steps over all of the one before it. Where sizes of 1 leave it open, it is not."""
    if len(shape) not in (4, 5) or strides[1] == 0:
        return False
    least = 0
    for axis in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[axis] == 0 or strides[axis] < least or axis == 0 and least == strides[1]:
            return False
        least = strides[axis] * shape[axis]
    return True


def channels_moved_last(view: Any) -> Any:
    """A view (N, C, ...) as (N, ..., C)."""
    if isinstance(view, np.ndarray):
        return np.moveaxis(view, 1, -1)
    (n, c, *shape), (n_step, c_step, *steps) = view.shape, view.strides
    return dataclasses.replace(view, shape=(n, *shape, c), strides=(n_step, *steps, c_step))


# ---- what is refused


def _is_subclass(torch: Any, cls: Any) -> bool:
    """Whether torch's functions would return this class: no plain tensor or parameter."""
    return cls is not torch.Tensor and cls.__torch_function__ is not torch.nn.Parameter.__torch_function__


def _plainly(torch: Any, tensor: Any) -> Any:
    """Methods of the tensor are torch's own inside, not overridden by its class."""
    if type(tensor) is torch.Tensor:
        return contextlib.nullcontext()
    return torch._C.DisableTorchFunctionSubclass()


def _refuse_tracing(torch: Any) -> None:
    """
    Raises:
        TypeError: what is called now becomes part of a program that runs later.
    """
    if torch._C._get_tracing_state() is not None:
        raise TypeError("fastconv cannot be traced by torch.jit.trace, whose program would return uninitialised memory; call "
                        "torch.nn.functional's function while tracing")
    modes, find = getattr(torch._C, "_TorchDispatchModeKey", None), getattr(torch._C, "_get_dispatch_mode", None)
    if modes is not None and find is not None:
        for key in ("PROXY", "FAKE", "FUNCTIONAL"):
            if hasattr(modes, key) and find(getattr(modes, key)) is not None:
                raise TypeError("fastconv cannot be traced by torch.export, make_fx or a FakeTensorMode, which record "
                                "torch's own operations; call torch.nn.functional's function there")


def _check(torch: Any, name: str, tensor: Any) -> None:
    cls: Any = type(tensor)
    if cls is not torch.Tensor and (cls.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
                                    or torch.nn.parameter.is_lazy(tensor)):
        raise TypeError(f"{name} must be a tensor with memory of its own, got {cls.__module__}.{cls.__qualname__}"[:400])
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise TypeError(f"{name} is being transformed by torch.func (vmap, grad, jvp, functionalize, ...), which cannot see "
                        f"what fastconv computes; call torch.nn.functional's function there")
    if str(tensor.layout) != "torch.strided" or tensor.is_nested:
        found = "a nested one" if tensor.is_nested else f"layout {tensor.layout}"
        raise TypeError(f"{name} must be a dense tensor, got {found}")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise TypeError(f"{name} requires grad, and fastconv does not record gradients; pass {name}.detach(), or call fastconv "
                        f"under torch.no_grad()")
    forward = torch.autograd.forward_ad
    if forward._current_level >= 0 and forward.unpack_dual(tensor).tangent is not None:
        raise TypeError(f"{name} has a tangent, and fastconv computes no forward-mode derivatives; pass "
                        f"torch.autograd.forward_ad.unpack_dual({name}).primal")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise TypeError(f"{name} must be of a real dtype that NumPy has, float32 or float64 above all, got {dtype}; "
                        f"convert it: {name}.float()")
    if getattr(tensor, "has_names", bool)():
        raise TypeError(f"{name} has named dimensions {tensor.names}; pass {name}.rename(None)")
    if name == "out" and any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape)):
        raise ValueError(f"out must have memory for each of its elements, got strides {tensor.stride()}; pass out.clone()")

"""A stand-in for torch, with what fastconv asks of it, around NumPy arrays: for machines that lack torch."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np


def _disabled(*arguments: Any) -> None:
    """What a class whose functions return plain tensors has for __torch_function__."""


class Tensor:
    layout = "torch.strided"
    is_nested = requires_grad = False
    device = "cpu"
    names: tuple[str, ...] = ()
    negative = inference = wrapped = lazy = False
    tangent: Any = None
    version = 0
    __torch_dispatch__ = _disabled

    def __init__(self, array: Any, dtype: str = "", **flags: Any) -> None:
        array = array.array if isinstance(array, Tensor) else array
        self.array = array
        self.dtype = "torch." + (dtype or array.dtype.name)
        for name, value in flags.items():
            setattr(self, name, value)

    @classmethod
    def __torch_function__(cls, *arguments: Any) -> None: ...

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def stride(self) -> tuple[int, ...]:
        return tuple(step // self.array.itemsize for step in self.array.strides)

    def is_neg(self) -> bool:
        return self.negative

    def resolve_neg(self) -> Tensor:
        return Tensor(-self.array)

    def is_inference(self) -> bool:
        return self.inference

    def has_names(self) -> bool:
        return bool(self.names)

    def detach(self) -> Tensor:
        return Tensor(self.array, negative=self.negative)

    def numpy(self) -> np.ndarray:
        if self.requires_grad or self.negative or self.wrapped or self.layout != "torch.strided" or self.device != "cpu":
            raise RuntimeError("Can't call numpy() on this tensor")
        return self.array

    def movedim(self, source: int, destination: int) -> Tensor:
        return Tensor(np.moveaxis(self.array, source, destination))

    def as_subclass(self, cls: type) -> Any:
        made = cls.__new__(cls)
        made.__dict__.update(vars(self))
        return made


class Parameter(Tensor):
    __torch_function__ = _disabled  # type: ignore[assignment]


def module() -> Any:
    """A module to be put in torch's place."""
    torch: Any = types.ModuleType("torch")
    state = {"grad": True}

    @contextlib.contextmanager
    def no_grad() -> Iterator[None]:
        state["grad"] = False
        yield
        state["grad"] = True

    def increment_version(tensor: Tensor) -> None:
        tensor.version += 1

    torch.Tensor, torch.float32, torch.float64 = Tensor, "float32", "float64"
    torch.nn = types.SimpleNamespace(Parameter=Parameter, parameter=types.SimpleNamespace(is_lazy=lambda tensor: tensor.lazy))
    torch.empty = lambda shape, dtype, device: Tensor(np.empty(shape, dtype), device=device)
    torch.tensor = lambda array, **flags: Tensor(np.array(array), **flags)
    torch.no_grad, torch.is_grad_enabled = no_grad, lambda: state["grad"]
    torch._C = types.SimpleNamespace(
        DisableTorchFunctionSubclass=contextlib.nullcontext, _get_tracing_state=lambda: torch.tracing,
        _functorch=types.SimpleNamespace(is_functorch_wrapped_tensor=lambda tensor: tensor.wrapped),
        _TorchDispatchModeKey=types.SimpleNamespace(PROXY=0, FAKE=1, FUNCTIONAL=2), _get_dispatch_mode=lambda key: torch.mode)
    torch.tracing = torch.mode = None
    torch.autograd = types.SimpleNamespace(
        graph=types.SimpleNamespace(increment_version=increment_version),
        forward_ad=types.SimpleNamespace(_current_level=0, unpack_dual=lambda tensor: tensor))
    return torch

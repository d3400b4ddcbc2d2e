"""What every layer is: a `Module`, with `Parameter`s that training changes and `Buffer`s that it keeps.

There is no tape: `forward` keeps what `backward` needs, and `backward` takes the gradient of the output, adds the gradients of
the parameters to their `.grad` and returns that of the input. Names, shapes and order of a `state_dict` are PyTorch's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ..errors import shown
from ..receptive_field import Window

_versions = itertools.count(1)  # no two changes have the same


class Buffer:
    """An array that belongs to a module's state and is not trained.

    `data` is replaced by assignment or written in place. While a prepared operator holds a copy of it (in eval mode) it is
    read-only: assign to it, or call `train()`, which drops such operators.
    """

    trained: ClassVar[bool] = False
    latest: ClassVar[int] = 0  # the version of the buffer that changed last: while it is the same, none has changed

    def __init__(self, data: Any) -> None:
        self._data = np.array(data)
        self.version = 0  # of the values: who has made something of them sees that they changed

    def changed(self) -> None:
        self.version = Buffer.latest = next(_versions)

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, values: Any) -> None:
        made = np.array(values, self._data.dtype)
        if made.shape != self._data.shape:
            raise ValueError(f"data must have shape {self._data.shape}, got {made.shape}")
        self.own(made)

    def own(self, values: np.ndarray) -> Self:
        """Take an array that nobody else has."""
        self._data = values
        self.changed()
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def size(self) -> int:
        return self._data.size

    def freeze(self) -> None:
        """No value changes in place from here on."""
        self._data.flags.writeable = False

    def thaw(self) -> None:
        """Values may change in place: whatever was made of them is out of date."""
        if not self._data.flags.writeable:
            self._data.flags.writeable = True
            self.changed()

    def cast(self, dtype: Any) -> None:
        if self._data.dtype.kind == "f":
            self._data = self._data.astype(dtype)
            self.changed()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._data, dtype) if copy or dtype not in (None, self._data.dtype) else self._data

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.shape} {self.dtype.name}"


class Parameter(Buffer):
    """An array that an optimiser changes.

    Attributes:
        grad: the sum of its gradients since `zero_grad`, of its shape and dtype, or None.
    """

    trained = True

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.grad: np.ndarray | None = None

    def add_grad(self, gradient: np.ndarray) -> None:
        if self.grad is None:
            self.grad = gradient
        else:
            self.grad = self.grad + gradient

    def cast(self, dtype: Any) -> None:
        super().cast(dtype)
        self.grad = None


class Module:
    """A layer, or several: `module(x)` is its output, `module.backward(g)` the gradient of its input for one of its output.

    What a subclass assigns to its attributes, Parameters, Buffers and Modules, is its state, in this order and by these names;
    a child by the name "" adds none. It defines `forward(input)` and `backward(grad_output, needs_input=True)`.
    """

    training = True

    def forward(self, input: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        """Adds to the parameters' gradients.

        Args:
            grad_output: of the shape of the latest output, which was computed in training mode.
            needs_input: False: the gradient of the input is not computed, and None is returned.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, input: Any) -> np.ndarray:
        x = np.asarray(input)
        with located(self, x):
            return self.forward(x)

    def applies(self, behind: Module) -> bool:
        """Whether its `forward`, given the module behind it as well, does in training what that one would."""
        return False

    def layers(self, place: str = "") -> list[tuple[str, Module]]:
        """What runs one after the other in eval mode, with its place."""
        return [(place, self)]

    # ---- what `summary` asks

    parallel: ClassVar[bool] = False  # whether its children all read its input

    def window(self) -> Window | None:
        """What of the input one element of the output sees; None: all of an image."""
        return Window()

    def multiply_adds(self, input: tuple[int, ...], output: tuple[int, ...]) -> int:
        """For arrays of these shapes, in the direct algorithm; 0 where nothing is multiplied by weights."""
        return 0

    # ---- what forward keeps

    def keep(self, *values: Any) -> None:
        """For `backward`; nothing in eval mode."""
        if self.training:
            self._kept = values

    def kept(self) -> tuple[Any, ...]:
        """What the latest forward in training mode kept; it is forgotten."""
        values = vars(self).pop("_kept", None)
        if values is None:
            raise RuntimeError(f"backward of {self!r} needs a forward in training mode before it, one for each")
        return values

    # ---- what there is

    def _of(self, kind: type) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in vars(self).items() if isinstance(value, kind))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return self._of(Module)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Itself and all below, by their places: ("", self), ("features", ...), ("features.0", ...)."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(joined(prefix, name))

    def _named(self, kind: type) -> Iterator[tuple[str, Any]]:
        for place, module in self.named_modules():
            for name, value in module._of(kind):
                yield joined(place, name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return self._named(Parameter)

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def modules(self) -> list[Module]:
        return [module for _, module in self.named_modules()]

    # ---- modes

    def train(self, mode: bool = True) -> Module:
        """Training mode: batch norm uses the batch's statistics, dropout drops, `backward` works."""
        for module in self.modules():
            module.training = mode
            for made in ("_kept", "_program"):  # for backward; for eval mode
                vars(module).pop(made, None)
        if mode:
            for _, buffer in self._named(Buffer):
                buffer.thaw()
        return self

    def eval(self) -> Module:
        """Eval mode: nothing is kept, and convolutions run with what follows them as one prepared operator."""
        return self.train(False)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype: Any) -> Module:
        """All floating-point state as float32 or float64."""
        made = np.dtype(dtype)
        if made.name not in ("float32", "float64"):
            raise TypeError(f"dtype must be float32 or float64, got {shown(dtype)}")
        for _, buffer in self._named(Buffer):
            buffer.cast(made)
        return self

    # ---- state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers, by PyTorch's names."""
        return {name: buffer.data.copy() for name, buffer in self._named(Buffer)}

    def load_state_dict(self, state: Mapping[str, Any]) -> Module:
        """Take all parameters and buffers from arrays (or tensors) by these names.

        Raises:
            ValueError: names that are missing, or too many, or shapes that differ: all of them; nothing is changed.
        """
        own = dict(self._named(Buffer))
        given = {name: np.asarray(state[name]) for name in own if name in state}
        wrong = [f"missing {name} {buffer.shape}" for name, buffer in own.items() if name not in state]
        wrong += [f"unknown {name} {np.shape(state[name])}" for name in state if name not in own]
        wrong += [f"{name} must have shape {own[name].shape}, got {array.shape}" for name, array in given.items()
                  if array.shape != own[name].shape]
        if wrong:
            raise ValueError(f"the state does not fit {type(self).__name__}: {'; '.join(wrong)}")
        for name, array in given.items():
            own[name].data = array
        return self

    # ---- what is printed

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        inside = "".join(f"\n  {child}" for child in children) + "\n" if children else self.extra_repr()
        return f"{type(self).__name__}({inside})"


def joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place and name else place or name


def written(made: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """`made`; where there is an `out`, in there."""
    if out is None or made is out:
        return made
    out[...] = made
    return out


class located:
    """An error in here says in which module it happened, and where that one is: by its `name` in the one that runs it, "" where
    it runs by itself, or, if that is `whole`, by its place in all of the model."""

    def __init__(self, module: Module, x: np.ndarray, name: str = "", whole: bool = False) -> None:
        self.given = module, x, name, whole

    def __enter__(self) -> None: ...  # a generator would take five times as long

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        module, x, name, whole = self.given
        if not isinstance(error, (ValueError, TypeError)) or whole and "what" in vars(error):
            return
        found = vars(error)
        if "what" not in found:
            one_line = repr(module).splitlines()[0].rstrip("(")
            found["what"], found["place"] = f"{one_line} got input of shape {x.shape}, {x.dtype.name}: {error}", ""
        found["place"] = joined(name, found["place"])
        error.args = (f"{found['place']}: {found['what']}" if found["place"] else found["what"],)

"""What a container runs in eval mode: its layers as a list of steps, with convolutions and what follows them as one.

A convolution, the batch norm (or scale) behind it and an activation become one prepared operator, which also adds the shortcut
of a `Residual` that it is the last layer of; branches of a `Concat` write into their part of the result. Operators hold copies
of the parameters, which are read-only from then on; a program whose parameters were assigned to since is no longer fresh.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import shown
from ..lifetimes import Memories, Plain
from ..prepared import PreparedConv
from .activation import Activation
from .convolution import Weighted
from .module import Buffer, Module, joined, located, written
from .normalization import Affine

Placed = tuple[str, Module]


class Step:
    """A module by itself."""

    def __init__(self, place: str, module: Module) -> None:
        self.place, self.module = place, module

    def __call__(self, x: np.ndarray, out: np.ndarray | None, residual: np.ndarray | None, memory: Plain) -> np.ndarray:
        with located(self.module, x, self.place, whole=True):
            return written(self.run(x, out, residual, memory), out)

    def run(self, x: np.ndarray, out: np.ndarray | None, residual: np.ndarray | None, memory: Plain) -> np.ndarray:
        """The result; a step that can writes it into `out`. Only a `Fused` one adds a residual."""
        made = self.module.forward(x)
        memory.shares(made, x)
        if not type(self.module).__module__.startswith(__package__) or "forward" in vars(self.module):
            memory.stays(x)  # for all that is known
        return made


class Fused(Step):
    """A layer with weights, and what follows it."""

    def __init__(self, place: str, layer: Weighted, norm: Any = None, function: Activation | None = None) -> None:
        super().__init__(place, layer)
        self.layer, self.norm, self.function = layer, norm, function

    @functools.cached_property
    def operator(self) -> PreparedConv:
        for module in filter(None, (self.layer, self.norm)):
            for _, buffer in module._named(Buffer):
                buffer.freeze()
        bias, scale = None if self.layer.bias is None else self.layer.bias.data, None
        if self.norm is not None:
            scale, shift = self.norm.scale_and_shift()
            bias = (shift if bias is None else shift + scale * bias).astype(self.layer.weight.dtype)
        return self.layer.prepared(bias, scale, None if self.function is None else self.function.epilogue)

    def run(self, x: np.ndarray, out: np.ndarray | None, residual: np.ndarray | None, memory: Plain) -> np.ndarray:
        place = memory.place(self, x.shape) if out is None else out
        made = self.layer.apply(self.operator, x, residual, place)
        if out is None:
            memory.made(made, self, x.shape)
        memory.computed(self.operator, x, residual, made)
        return made


class Chain(Step):
    """Steps that are calls of prepared operators, one after the other: once these are known, nothing is done in between.

    What Python runs for each step is gone from the caches by then, and takes five times as long as in a short loop.
    """

    def __init__(self, steps: list[Step]) -> None:
        super().__init__(steps[0].place, steps[0].module)
        self.steps = steps

    def run(self, x: np.ndarray, out: np.ndarray | None, residual: np.ndarray | None, memory: Plain) -> np.ndarray:
        return memory.chain(self, lambda: through(self.steps, x, out, memory), x, out)

    @staticmethod
    def takes(step: Step) -> bool:
        """Whether the step is such calls alone."""
        if isinstance(step, Sum):
            inside = [*step.body.steps, *(step.shortcut.steps if step.shortcut else ())]
            return step.last is not None and all(map(Chain.takes, [step.last, *inside]))
        return isinstance(step, Fused) and type(step.layer).apply is Weighted.apply


def through(steps: list[Step], x: np.ndarray, out: np.ndarray | None, memory: Plain) -> np.ndarray:
    """What they make of x, one after the other; at least one."""
    given, last = x, steps[-1]
    for step in steps:
        made = step(x, out if step is last else None, None, memory)
        if x is not given and made is not x:
            memory.drop(x)
        x = made
    return x


class Program:
    """Steps, one after the other.

    made_of: the buffers whose values they take, so that it is known when they have changed.
    memories: for calls with nothing around them.
    """

    def __init__(self, steps: list[Step], made_of: Iterable[tuple[str, Buffer]] = ()) -> None:
        self.steps = steps
        self.made_of = [(buffer, buffer.version) for _, buffer in made_of]
        self.memories = Memories()
        self.seen = -1  # the latest change of any buffer when all of these were as they had been

    def __call__(self, x: np.ndarray, out: np.ndarray | None, memory: Plain) -> np.ndarray:
        return through(self.chained, x, out, memory) if self.steps else written(x, out)

    @functools.cached_property
    def chained(self) -> list[Step]:
        """Its steps, with those in chains that can be."""
        groups = ((fits, [*some]) for fits, some in itertools.groupby(self.steps, Chain.takes))
        return [step for fits, some in groups for step in ([Chain(some)] if fits else some)]

    def alone(self, x: np.ndarray) -> np.ndarray:
        memory = self.memories.take(x)
        made = self(x, None, memory)
        self.memories.give(memory, x)
        return made

    def fresh(self) -> bool:
        """Whether nothing was assigned to since it was made."""
        latest = Buffer.latest  # before they are looked at
        if latest != self.seen:
            if any(buffer.version != version for buffer, version in self.made_of):
                return False
            self.seen = latest
        return True


class Sum(Step):
    """A body and its shortcut, and the activation behind them: by the body's last layer, where that has weights."""

    def __init__(self, place: str, module: Module, branches: list[Program], function: Activation | None) -> None:
        super().__init__(place, module)
        self.body, self.shortcut = branches[0], branches[1] if len(branches) > 1 else None
        self.function = function
        self.last: Fused | None = None
        steps = self.body.steps
        if steps and isinstance(steps[-1], Fused) and steps[-1].function is None:
            self.last = steps[-1]
            self.last.function = function
            del steps[-1]

    def run(self, x: np.ndarray, out: np.ndarray | None, residual: np.ndarray | None, memory: Plain) -> np.ndarray:
        other = x if self.shortcut is None else self.shortcut(x, None, memory)
        inside = self.body(x, None, memory)
        if self.last is not None:
            made = self.last(inside, out, other, memory)
        else:
            made = np.add(inside, other, out=out)
            made = made if self.function is None else self.function.forward(made)
        for read in (other, inside):
            if read is not x:
                memory.drop(read)
        return made


class Joined(Step):
    """Branches side by side along an axis: once it is known how much each gives, they write where the result is."""

    def __init__(self, place: str, module: Module, branches: list[Program], axis: int) -> None:
        super().__init__(place, module)
        self.branches, self.axis = branches, axis
        self.shapes: dict[tuple[int, ...], tuple[tuple[int, ...], list[tuple[slice, ...]]]] = {}  # by that of the input

    def run(self, x: np.ndarray, out: np.ndarray | None, residual: np.ndarray | None, memory: Plain) -> np.ndarray:
        if x.shape not in self.shapes:
            return self._first(x, memory)
        shape, parts = self.shapes[x.shape]
        made = out
        if made is None:
            place = memory.place(self, x.shape)
            made = np.empty(shape, x.dtype) if place is None else place
            memory.made(made, self, x.shape)
        for branch, part in zip(self.branches, parts):
            branch(x, made[part], memory)
        return made

    def _first(self, x: np.ndarray, memory: Plain) -> np.ndarray:
        made = [branch(x, None, memory) for branch in self.branches]
        whole = np.concatenate(made, self.axis)
        axis, begin, parts = self.axis % whole.ndim, 0, []
        for each in made:
            parts.append((*[slice(None)] * axis, slice(begin, begin + each.shape[axis])))
            begin += each.shape[axis]
        self.shapes[x.shape] = whole.shape, parts
        return whole


class Container(Module):
    """A module made of modules. In eval mode it runs its program, which is made once for all calls."""

    def __call__(self, input: Any) -> np.ndarray:
        if self.training or "_observed" in vars(self):
            return super().__call__(input)
        program = vars(self).get("_program")
        if program is None or not program.fresh():
            program = self._program = Program(steps(self.layers()), self._named(Buffer))
        return program.alone(np.asarray(input))

    def adopt(self, *modules: Any) -> None:
        """Make these its children, by their numbers, or those of one mapping by their names."""
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], Mapping) else enumerate(modules)
        seen: dict[int, str] = {}
        for name, child in ((str(key), child) for key, child in named):
            if not isinstance(child, Module):
                raise TypeError(f"{type(self).__name__} is made of modules, got {shown(child)} at {name!r}")
            for place, module in child.named_modules(name):
                if id(module) in seen:
                    raise ValueError(f"{type(self).__name__} has the same {type(module).__name__} at {seen[id(module)]!r} and "
                                     f"at {place!r}: each place needs one of its own, which keeps what its backward needs")
                seen[id(module)] = place
            if name in vars(self):
                raise ValueError(f"no module can have the name {name!r}")
            vars(self)[name] = child

    def through(self, name: str, child: Module, x: np.ndarray, *more: Any) -> np.ndarray:
        """What a child makes of x; an error says which one it was."""
        with located(child, x, name):
            return child.forward(x, *more)

    def step(self, place: str, rest: list[Placed]) -> Step:
        """What runs it. rest: the layers behind it, the next one last; those that the step does as well are taken off."""
        return Step(place, self)

    def programs(self, place: str) -> list[Program]:
        """Of its children."""
        return [Program(steps(child.layers(joined(place, name)))) for name, child in self.named_children()]


def steps(layers: list[Placed]) -> list[Step]:
    made: list[Step] = []
    rest = layers[::-1]
    while rest:
        place, layer = rest.pop()
        if isinstance(layer, Weighted):
            norm = rest.pop()[1] if rest and _folds(layer, rest[-1][1]) else None
            made.append(Fused(place, layer, norm, activation(rest)))
        else:
            made.append(layer.step(place, rest) if isinstance(layer, Container) else Step(place, layer))
    return made


def activation(rest: list[Placed]) -> Activation | None:
    """The next layer, taken off, if it is one."""
    if rest and isinstance(rest[-1][1], Activation):
        return rest.pop()[1]  # type: ignore[return-value]
    return None


def _folds(layer: Weighted, norm: Module) -> bool:
    """Whether that scales and shifts the layer's outputs, whatever the batch."""
    return (isinstance(norm, Affine) and layer.layout == norm.layout and layer.out_channels == norm.num_features
            and norm.scale_and_shift() is not None)

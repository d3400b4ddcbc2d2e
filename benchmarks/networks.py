"""Whole networks of `fastconv.nn.models` against PyTorch (eager) and ONNX Runtime, each verified before it is timed.

    python benchmarks/networks.py [inference] [memory] [training] [--models A,B] [--threads 2] [--rounds 9] [--json FILE]

inference: one image, eval mode, weights prepared; PyTorch in inference mode, ONNX Runtime with the file that PyTorch exports
and default options but for the number of threads. First, scores are compared with the same network's in float64 by NumPy alone.
memory: the peak of resident memory of a fresh process that makes the network and calls it three times, and what it was after
the imports. PyTorch and ONNX Runtime read the network from a file; fastconv draws its weights.
training: forward with the cross entropy, backward, SGD with momentum, over and over on one batch; no dropout. First, the loss,
and what a step changes of all parameters and running statistics, are compared with those in float64 by NumPy alone.

Each library has a process of its own; they take turns, block by block, while the others sleep: a block ends when its threads no
longer spin. A round gives each three blocks, of which the best counts; one beside which a small piece of work ran slower than
usual, because of other programs, is repeated. A time is that of the fastest call; a ratio the median over rounds, theirs by
fastconv's, with its 95 % interval. With one thread CPU time is what is measured, which other programs change least.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from _paired import Peer, fastest

import fastconv
from fastconv import files, nn
from fastconv.bench import machine, record
from fastconv.bench.peers.common import missing
from fastconv.bench.probes import small_work
from fastconv.nn import models
from fastconv.timing.paired import Entrant, WallClock, Watch, geometric_mean, ratios, rotate

Arrays = dict[str, np.ndarray]
Calls = tuple[Callable[[], Any], ...]
Keep = Callable[[dict[str, Any]], None]

SHAPES = dict.fromkeys(("resnet50", "vgg16", "mobilenet_v2", "googlenet", "convnext_tiny", "alexnet", "resnet18"),
                       (1, 3, 224, 224)) | {"lenet5": (1, 1, 32, 32), "unet": (1, 1, 128, 128)}
BATCHES = {"lenet5": (64, 1, 32, 32), "resnet18": (8, 3, 64, 64), "mobilenet_v2": (8, 3, 96, 96)}
PARTS = {"inference": SHAPES, "memory": SHAPES, "training": BATCHES}
NEEDS = {"fastconv": (), "torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx", "torch")}
BLOCK = 0.1  # seconds
RATE, MOMENTUM = 0.01, 0.9
# root mean square of what an array is off by, relative to its own; one ReLU on the other side of 0 changes a row of a gradient
TOLERANCE = {"scores": 1e-4, "loss": 1e-5, "change": 0.05}


# ---- networks and what they are given: the same in every process


def network(name: str) -> nn.Module:
    """Its weights and statistics let the input of every layer matter, as a trained network's do; nothing is dropped."""
    rng = np.random.default_rng(0)
    model = getattr(models, name)(rng=rng)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.data = rng.normal(0, 0.1, module.num_features)
            module.running_var.data = rng.uniform(0.5, 1.5, module.num_features)
        elif isinstance(module, nn.Scale):
            nn.init.uniform_(module.parameters()[0], 0.5, rng)
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "weight") and module.weight.data.ndim > 1:
            module.weight.data *= np.float32(math.sqrt(6))  # within √(6 / fan in), as He et al. have it, not 1 / √(fan in)
    return model


def given(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(images, classes)"""
    rng = np.random.default_rng(1)
    return rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[0])


def stepping(forward: Callable[[], Any], backward: Callable[[Any], Any], optimizer: Any,
             state: Callable[[], Arrays]) -> tuple[Calls, Arrays]:
    """The phases of a training step, and what the first one gave; forward is the loss, backward takes it."""
    latest: list[Any] = []

    def first() -> None:
        latest[:] = [forward()]

    def second() -> None:
        optimizer.zero_grad()
        backward(latest[0])

    before, calls = state(), (first, second, optimizer.step)
    for call in calls:
        call()
    changes = {f"change of {name}": now - before[name] for name, now in state().items()}
    return calls, {"loss": np.asarray(latest[0].item()), **changes}


def training(name: str, dtype: str = "float32") -> tuple[Calls, Arrays]:
    """fastconv's."""
    model, (x, classes) = network(name).to(dtype).train(), given(BATCHES[name])
    x, loss, optimizer = x.astype(dtype), nn.CrossEntropyLoss(), nn.SGD(model.parameters(), RATE, MOMENTUM)
    return stepping(lambda: loss(model(x), classes), lambda _: model.backward(loss.backward(), needs_input=False), optimizer,
                    model.state_dict)


def expected(part: str, name: str) -> Arrays:
    """By NumPy alone, in float64, layer by layer."""
    with fastconv.config(backend="im2col", no_native=True):
        if part == "training":
            return training(name, "float64")[1]
        return {"scores": network(name).to("float64").eval().forward(given(SHAPES[name])[0].astype(np.float64))}


def rms(values: np.ndarray) -> float:
    return math.sqrt(np.mean(np.square(values, dtype=np.float64)))


def errors(found: Arrays, exact: Arrays) -> dict[str, tuple[float, str]]:
    """How far scores, loss and changes are off, each in the array where that is most: relative to that array, or to a hundredth
    of what is usual among all, as some gradients are 0 but for rounding. NaN is infinitely far."""
    usual = float(np.median([rms(values) for values in exact.values()]))
    worst: dict[str, tuple[float, str]] = {}
    for name, values in exact.items():
        kind, far = name.split()[0], math.nan
        if name in found and found[name].shape == values.shape:
            far = rms(found[name] - values) / max(rms(values), usual / 100)
        worst[kind] = max(worst.get(kind, (0.0, name)), (far if far < math.inf else math.inf, name))
    return worst


# ---- the libraries, each in its process; `calls` are the phases of what is timed


class Fastconv:
    def __init__(self, threads: int) -> None:
        fastconv.set_num_threads(threads)
        self.version, self.calls = fastconv.__version__, ()

    def inference(self, name: str, folder: Path) -> Arrays:
        self.calls = functools.partial(network(name).eval(), given(SHAPES[name])[0]),
        self.calls[0]()  # prepares
        return {"scores": self.calls[0]()}

    def training(self, name: str, folder: Path) -> Arrays:
        self.calls, found = training(name)
        return found


class Torch:
    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.version, self.calls = torch, torch.__version__, ()

    def export(self, name: str, folder: Path) -> None:
        """For inference, as it is read by PyTorch and by ONNX Runtime."""
        from _as_torch import as_torch

        self.model, self.x = as_torch(network(name)).eval(), self.torch.from_numpy(given(SHAPES[name])[0])
        self.torch.save(self.model, folder / f"{name}.pt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this exporter is the old one, which needs no other package
            self.torch.onnx.export(self.model, (self.x,), folder / f"{name}.onnx", dynamo=False, opset_version=20,
                                   input_names=["x"])

    def inference(self, name: str, folder: Path) -> Arrays:
        self.export(name, folder)
        self.calls = self.torch.inference_mode()(functools.partial(self.model, self.x)),
        return {"scores": self.calls[0]().numpy()}

    def training(self, name: str, folder: Path) -> Arrays:
        from _as_torch import as_torch, plain

        model, (x, classes) = as_torch(network(name)).train(), map(self.torch.from_numpy, given(BATCHES[name]))
        loss, optimizer = self.torch.nn.CrossEntropyLoss(), self.torch.optim.SGD(model.parameters(), RATE, MOMENTUM)

        def state() -> Arrays:
            return {plain(name): tensor.numpy().copy() for name, tensor in model.state_dict().items()}

        self.calls, found = stepping(lambda: loss(model(x), classes), lambda latest: latest.backward(), optimizer, state)
        return found


class OnnxRuntime:
    def __init__(self, threads: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads  # which spin for 20 ms; calls take 1.02-1.15x as long where they may not
        self.session, self.version, self.calls = onnxruntime.InferenceSession, onnxruntime.__version__, ()

    def inference(self, name: str, folder: Path) -> Arrays:
        session = self.session(folder / f"{name}.onnx", self.options, providers=["CPUExecutionProvider"])
        self.calls = functools.partial(session.run, None, {"x": given(SHAPES[name])[0]}),
        return {"scores": self.calls[0]()[0]}


LIBRARIES: dict[str, Any] = {"fastconv": Fastconv, "torch": Torch, "onnxruntime": OnnxRuntime}


def serve(connection: Connection, library: str, threads: int) -> None:
    """What its methods return, a text where they fail; for "time", seconds of each phase."""
    contender = LIBRARIES[library](threads)
    connection.send(contender.version)
    while (asked := connection.recv()) is not None:
        what, *arguments = asked
        try:
            done = fastest(contender.calls, threads, BLOCK) if what == "time" else getattr(contender, what)(*arguments)
        except Exception as failure:
            done = f"{type(failure).__name__}: {failure}"
        connection.send(done)


# ---- inference and training


def compete(part: str, name: str, peers: dict[str, Peer], rounds: int, watch: Watch | None) -> dict[str, Any]:
    """Those whose results are right take turns; none without fastconv."""
    row: dict[str, Any] = dict(network=name, errors={}, left_out={}, seconds={}, samples={}, ratios={})
    exact, blocks = expected(part, name), dict[str, list[list[float]]]()
    with tempfile.TemporaryDirectory() as folder:
        for library, peer in peers.items():
            found = peer.ask(part, name, Path(folder))
            far = row["errors"][library] = {} if isinstance(found, str) else errors(found, exact)
            reasons = [f"wrong: {where} is off by {size:.1g} of its size" for kind, (size, where) in far.items()
                       if size > TOLERANCE[kind]]
            if isinstance(found, str) or reasons:
                row["left_out"][library] = found if isinstance(found, str) else reasons[0]
            else:
                blocks[library] = []

    def block(library: str) -> float:
        blocks[library].append(peers[library].ask("time"))
        return sum(blocks[library][-1])

    if "fastconv" in blocks:
        WallClock().settle()  # NumPy's BLAS spins
        entrants = [Entrant(library, functools.partial(block, library)) for library in blocks]
        rotate(entrants, rounds, 0.0, WallClock(), watch=watch)
        row["samples"] = {entrant.name: entrant.samples for entrant in entrants}
        row["seconds"] = {library: min(each, key=sum) for library, each in blocks.items()}
        for entrant in entrants[1:]:
            found = ratios(entrant.samples, entrants[0].samples)
            row["ratios"][entrant.name] = found.low, found.middle, found.high
    return row


def times(phases: Sequence[float]) -> str:
    """In ms, and how it splits."""
    each = [1e3 * seconds for seconds in phases]
    return (f"{sum(each):.4g}" if each else "-") + (f" ({' + '.join(f'{ms:.3g}' for ms in each)})" if each[1:] else "")


def measure(part: str, names: Sequence[str], peers: dict[str, Peer], rounds: int, keep: Keep) -> None:
    width = 28 if part == "training" else 11
    print(f"\n{part}, ms" + " (forward + backward + update)" * (part == "training") + "; ratios: theirs by fastconv's [95 %]")
    print(f"{'network':14} {'input':11}", *(f"{library:>{width}}" + f"{'ratio':>8}{'':13}" * (library != "fastconv")
                                            for library in peers))
    middles: dict[str, list[float]] = {library: [] for library in peers if library != "fastconv"}
    work = small_work()
    watch = None if work is None else Watch(work, WallClock())
    for name in names:
        row = compete(part, name, peers, rounds, watch)
        keep(row)
        cells = [f"{name:14} {'x'.join(map(str, PARTS[part][name])):11}"]
        for library in peers:
            cells.append(f"{times(row['seconds'].get(library, ())):>{width}}")
            if library in row["ratios"]:
                low, middle, high = row["ratios"][library]
                cells.append(f"{middle:7.2f} [{low:.2f}, {high:.2f}]")
                middles[library].append(middle)
        print(*cells, *(f"\n  {library}: {reason}" for library, reason in row["left_out"].items()), flush=True)
    summary(middles, "{} takes {:.2f} times as long")
    print(f"blocks that were repeated, as other programs ran: {'unknown' if watch is None else watch.repeated}")


def summary(found: dict[str, list[float]], says: str) -> None:
    for library, each in found.items():
        if mean := geometric_mean(each):
            print(f"geometric mean of {len(each)}:", says.format(library, mean.middle))


# ---- memory

# VmHWM and not getrusage's ru_maxrss: that of a new process begins with what the one had in memory that started it
PROGRAM = """
import re
import numpy as np
{imports}
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
imported = peak()
x = np.ones({shape}, np.float32)
{make}
for _ in range(3):
    call(x)
print(imported, peak())
"""
MEMORY = {
    "fastconv": ("import fastconv; from fastconv.nn import models; fastconv.set_num_threads({threads})",
                 "call = models.{name}(rng=np.random.default_rng(0)).eval()"),
    "torch": ("import torch; torch.set_num_threads({threads}); torch.set_grad_enabled(False)",
              "model = torch.load('{name}.pt', weights_only=False); call = lambda x: model(torch.from_numpy(x))"),
    "onnxruntime": ("import onnxruntime; options = onnxruntime.SessionOptions(); options.intra_op_num_threads = {threads}",
                    "session = onnxruntime.InferenceSession('{name}.onnx', options, providers=['CPUExecutionProvider'])\n"
                    "call = lambda x: session.run(None, dict(x=x))"),
}


def peak(library: str, name: str, threads: int, folder: str) -> list[int]:
    """Bytes: after the imports, and at most."""
    imports, make = (text.format(name=name, threads=threads) for text in MEMORY[library])
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(imports=imports, make=make, shape=SHAPES[name])], cwd=folder,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=True, text=True,
                          stdout=subprocess.PIPE)
    return [int(number) for number in done.stdout.split()]


def memory(names: Sequence[str], peers: dict[str, Peer], threads: int, keep: Keep) -> None:
    print("\nmemory, MB: peak (after the imports); ratios: theirs by fastconv's, of what came after the imports")
    print(f"{'network':14} {'weights':>7}", *(f"{library:>15}" + "  ratio" * (library != "fastconv") for library in peers))
    found: dict[str, list[float]] = {library: [] for library in peers if library != "fastconv"}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            if "torch" in peers:
                peers["torch"].ask("export", name, Path(folder))
            peaks = {library: peak(library, name, threads, folder) for library in peers}
        keep(dict(network=name, bytes=peaks))
        weights = sum(parameter.data.nbytes for parameter in network(name).parameters())
        cells = [f"{name:14} {weights / 1e6:7.0f}"]
        for library, (imported, most) in peaks.items():
            cells.append(f"{most / 1e6:8.0f} ({imported / 1e6:4.0f})")
            if library in found:
                found[library].append((most - imported) / (peaks["fastconv"][1] - peaks["fastconv"][0]))
                cells.append(f"{found[library][-1]:6.2f}")
        print(*cells, flush=True)
    summary(found, "{} takes {:.2f} times as much")


# ---- the command line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar=" | ".join(PARTS), help="all, if none is named")
    parser.add_argument("--models", default=",".join(SHAPES), metavar="A,B")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="for all samples")
    options = parser.parse_args()
    chosen = options.models.split(",")
    if unknown := [*({*options.parts} - {*PARTS}), *({*chosen} - {*SHAPES})]:
        parser.error(f"unknown: {', '.join(unknown)}")
    fastconv.set_num_threads(options.threads)
    peers, facts = {}, machine.describe()
    for library, packages in NEEDS.items():
        if reason := missing(" ".join(packages), *packages):
            print(f"{library}: {reason}")
        else:
            peers[library] = Peer(serve, library, options.threads)
    versions = {library: peer.version for library, peer in peers.items()}
    print(f"{machine.name(facts)}, {facts['cores']} cores, fingerprint {facts['fingerprint']}; threads: {options.threads};",
          ", ".join(map(" ".join, versions.items())))
    kept: dict[str, Any] = dict(machine=record._machine_info(facts), libraries=versions, threads=options.threads)

    def keep(part: str, row: dict[str, Any]) -> None:
        kept.setdefault(part, []).append(row)
        if options.json:
            files.write(options.json, json.dumps(kept, indent=1) + "\n")

    for part in options.parts or PARTS:
        names = [name for name in PARTS[part] if name in chosen]
        if part == "memory":
            memory(names, peers, options.threads, functools.partial(keep, part))
        else:
            can = {library: peer for library, peer in peers.items() if hasattr(LIBRARIES[library], part)}
            measure(part, names, can, options.rounds, functools.partial(keep, part))
    for peer in peers.values():
        peer.connection.send(None)


if __name__ == "__main__":
    main()

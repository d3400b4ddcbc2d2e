"""The CUDA kernels as compiled, without a GPU: registers, spills, shared memory and what the inner loops consist of.

    python benchmarks/cuda_gate.py           print the table
    python benchmarks/cuda_gate.py --json    one line of JSON per kernel

Needs numba-cuda, nvidia-nvvm and nvidia-nvjitlink: the compiler to PTX and the assembler, as wheels; no driver. libNVVM
must not be newer than the assembler, or that rejects its PTX.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FOUND = (  # what the assembler says
    ("registers", r"Used (\d+) registers"), ("stack", r"(\d+) bytes stack frame"),
    ("spill_stores", r"(\d+) bytes spill stores"),
    ("spill_loads", r"(\d+) bytes spill loads"), ("shared", r"(\d+) bytes smem"))
COUNTED = (  # instructions of the PTX
    ("fma", r"\bfma\.rn\.f\d\d"), ("shared_vectors", r"\bld\.shared\.v[24]"), ("global_vectors", r"\bld\.global(\.nc)?\.v[24]"),
    ("local", r"\b(ld|st)\.local"))


class _Device:
    """What Numba asks of the current device when device functions are compiled."""

    compute_capability = (9, 0)


def prepare() -> None:
    """Let Numba compile without a driver, and without NVRTC (90 MB), which it would only ask for a list of architectures."""
    import numba.cuda.cuda_paths
    import numba.cuda.cudadrv.nvrtc
    import numba.cuda.dispatcher

    numba.cuda.dispatcher.get_current_device = lambda: _Device
    numba.cuda.cuda_paths._get_nvrtc_path = lambda: None
    numba.cuda.cudadrv.nvrtc.get_supported_ccs = lambda: ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))


def compiled(kernel: Any, arguments: int, architecture: tuple[int, int]) -> dict[str, int]:
    """Counts of one kernel, whose arguments are all int64."""
    from cuda.bindings import nvjitlink
    from numba import cuda
    from numba.cuda import types

    _Device.compute_capability = architecture
    signature = types.void(*[types.int64] * arguments)
    bounds = kernel.targetoptions["launch_bounds"]
    ptx = cuda.compile_ptx(kernel.py_func, signature, cc=architecture, launch_bounds=bounds)[0]
    linker = nvjitlink.create(2, [f"-arch=sm_{architecture[0]}{architecture[1]}", "-verbose"])
    try:
        nvjitlink.add_data(linker, nvjitlink.InputType.PTX, ptx.encode(), len(ptx.encode()), "kernel")
        nvjitlink.complete(linker)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
    finally:
        nvjitlink.destroy(linker)
    text = log.decode(errors="replace")
    said = {name: int(match[1]) if (match := re.search(pattern, text)) else 0 for name, pattern in FOUND}
    return {"threads": bounds[0], **said, **{name: len(re.findall(pattern, ptx)) for name, pattern in COUNTED}}


def kernels() -> Iterator[tuple[str, Any, int, dict[str, int]]]:
    """(name, kernel, arguments, least counts) of each kind: every tile and input loader, and the costly epilogues."""
    from fastconv.backends.numba_cuda import kernels
    from fastconv.backends.numba_cuda.gemm import GemmSpec, gemm_kernel
    from fastconv.backends.numba_cuda.tiles import TILES

    for dtype, tiles in TILES.items():
        width = 4 if dtype == "float32" else 2
        for number, tile in enumerate(tiles):
            variants: list[tuple[str, dict[str, Any]]] = [("scalar", {"checked": "hw"})]
            variants += [("scalar, split", {"checked": "hw", "split": True})]
            if number == 0:
                variants += [("pixels", {"loader": "pixels", "checked": ""}),
                             ("channels", {"loader": "channels", "checked": "hw", "channels_last": True}),
                             ("3-D, residual, gelu", {"checked": "dhw", "residual": True, "activation": ("gelu", 0.0)})]
            for name, options in variants:
                vectors = 2 * (tile.tm + tile.tn) // width  # two steps of k are unrolled
                least = {"fma": 2 * tile.tm * tile.tn, "shared_vectors": vectors, "global_vectors": 1}
                title = f"gemm {dtype} {tile.bm}x{tile.bn}x{tile.bk}, {name}"
                yield title, gemm_kernel(GemmSpec(dtype, tile, width, **options)), 5, least
    for dtype, rows, slide, last in (("float32", 8, True, False), ("float32", 4, True, True), ("float64", 8, False, False)):
        spec = kernels.DirectSpec(dtype, rows, slide, last)
        name = f"direct {dtype}, {rows} rows{', sliding' * slide}{', channels last' * last}"
        yield name, kernels.direct_kernel(spec), 5, {"fma": rows}
    yield "reduce float32, residual, silu", kernels.reduce_kernel("float32", True, ("silu", 0.0)), 5, {}
    yield "gather float32", kernels.gather_kernel("float32", "float32"), 3, {}
    yield "pack float32", kernels.pack_kernel("float32"), 4, {}


def rows(architectures: tuple[tuple[int, int], ...] = ((9, 0), (8, 0))) -> Iterator[dict[str, Any]]:
    """All kernels for the first architecture; of the others, every fifth."""
    prepare()
    for architecture in architectures:
        for number, (name, kernel, arguments, least) in enumerate(kernels()):
            if architecture == architectures[0] or number % 5 == 0:
                yield {"kernel": name, "architecture": ".".join(map(str, architecture)),
                       **compiled(kernel, arguments, architecture), "least": least}


def main() -> None:
    if "--json" in sys.argv:
        for row in rows():
            print(json.dumps(row), flush=True)
        return
    names = ("threads", *(name for name, _ in FOUND), *(name for name, _ in COUNTED))
    print(f"{'kernel':<42} {'sm':>4} " + " ".join(f"{name.replace('_', ' '):>14}" for name in names))
    for row in rows():
        print(f"{row['kernel']:<42} {row['architecture']:>4} " + " ".join(f"{row[name]:>14}" for name in names), flush=True)


if __name__ == "__main__":
    main()

"""Edges of a photograph: four filters in one convolution, by every backend.

    python examples/edges.py [photograph] [--output edges.png]

Filters a grey image with Sobel x, Sobel y, Laplacian and Laplacian of Gaussian (one conv2d with four output channels),
checks every pixel against float64, within the error bound, prints how long each took, and draws the four feature maps. `naive`,
plain Python loops, gets a crop of the photograph. Needs matplotlib, whose sample photograph is the default.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import fastconv
from fastconv.verify import bounds

CROP = 128  # pixels each way; naive would take several seconds for all
REPEATS = 5
FILTERS = {
    "Sobel x": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "Sobel y": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "Laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "Laplacian of Gaussian": [[0, 0, -1, 0, 0], [0, -1, -2, -1, 0], [-1, -2, 16, -2, -1], [0, -1, -2, -1, 0], [0, 0, -1, 0, 0]],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photograph", nargs="?", help="any picture that matplotlib reads; default: its own sample")
    parser.add_argument("--output", default="edges.png", help="where the picture goes (default: edges.png)")
    arguments = parser.parse_args()
    grey = read(arguments.photograph)
    weight = weights()
    print(f"{grey.shape[1]} x {grey.shape[0]} pixels, {len(FILTERS)} filters of 5 x 5")
    maps = compare(grey, weight)
    draw(grey, maps, arguments.output)
    print(f"wrote {arguments.output}")


def read(path: str | None) -> np.ndarray:
    """A picture in shades of grey from 0 to 1, (height, width) float32."""
    from matplotlib import image
    from matplotlib.cbook import get_sample_data

    if path is None:
        with get_sample_data("grace_hopper.jpg") as file:
            picture = image.imread(file, format="jpg")
    else:
        picture = image.imread(path)
    scaled = picture / np.float32(255) if picture.dtype == np.uint8 else picture.astype(np.float32)
    if scaled.ndim == 3:
        scaled = scaled[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)  # luma as television weighs it
    return np.ascontiguousarray(scaled, np.float32)


def weights() -> np.ndarray:
    """(4, 1, 5, 5): the smaller kernels stand in the middle of a 5x5 one."""
    kernels = [np.array(rows, np.float32) for rows in FILTERS.values()]
    return np.stack([np.pad(kernel, (5 - len(kernel)) // 2) for kernel in kernels])[:, None]


def compare(grey: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A table of the backends; the feature maps (4, height, width) of the first that computes all of the photograph."""
    whole = None
    print(f"{'backend':<8} {'algorithm':<14} {'ms':>9}   worst error / bound")
    for name, reason in fastconv.backends().items():
        if reason is not None:
            print(f"{name:<8} not available: {reason}")
            continue
        image = grey[:CROP, :CROP] if name == "naive" else grey
        maps, milliseconds = timed(image, weight, name)
        problem = fastconv.ConvProblem.from_shapes(
            (1, 1, *image.shape), weight.shape, ndim=2, padding=2, padding_mode="replicate")
        plan = fastconv.explain(problem, backend=name)
        worst = error(problem, plan.algorithm, image, weight, maps)
        note = f"   (a crop of {image.shape[1]} x {image.shape[0]})" if name == "naive" else ""
        print(f"{name:<8} {plan.candidate!s:<14} {milliseconds:>9.3f}   {worst:.3f}{note}")
        if not worst <= 1:
            raise SystemExit(f"{name} is wrong by {worst:.3g} times its error bound")
        if whole is None and name != "naive":
            whole = maps
    assert whole is not None, "im2col is always available"
    return whole


def timed(image: np.ndarray, weight: np.ndarray, backend: str) -> tuple[np.ndarray, float]:
    """The feature maps and the best time in milliseconds; the first call may compile and does not count."""
    def filtered() -> Any:
        return fastconv.conv2d(image[None], weight, padding=2, padding_mode="replicate", backend=backend)

    maps = filtered()
    times = []
    for _ in range(1 if backend == "naive" else REPEATS):
        start = time.perf_counter()
        filtered()
        times.append(time.perf_counter() - start)
    return maps, min(times) * 1e3


def error(problem: fastconv.ConvProblem, algorithm: str, image: np.ndarray, weight: np.ndarray, maps: np.ndarray) -> float:
    """The worst error against the same filters in float64, as a multiple of what rounding may cause."""
    def exact(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return fastconv.conv2d(x[None, None].astype(np.float64), w.astype(np.float64), padding=2, padding_mode="replicate",
                               backend="im2col")

    expected, magnitude = exact(image, weight), exact(np.abs(image), np.abs(weight))
    allowed = bounds.bound(problem, algorithm, expected, magnitude, image, weight)
    return bounds.compare(maps[None], expected, allowed)


def draw(grey: np.ndarray, maps: np.ndarray, path: str) -> None:
    """The photograph and its feature maps side by side; grey is zero."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = grey.shape
    panel = 2.6
    figure = Figure(figsize=(5 * panel, panel * height / width + 0.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(FILTERS))
    panels[0].imshow(grey, cmap="gray", vmin=0, vmax=1)
    panels[0].set_title("photograph")
    for axes, title, values in zip(panels[1:], FILTERS, maps):
        largest = np.percentile(np.abs(values), 99) or 1  # a few extreme edges must not leave the rest grey
        axes.imshow(values, cmap="gray", vmin=-largest, vmax=largest)
        axes.set_title(title)
    for axes in panels:
        axes.set_axis_off()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

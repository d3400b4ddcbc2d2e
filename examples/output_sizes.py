"""Output sizes for every kernel, stride and padding of an input of 7 (or another), and the one that does not fit.

    python examples/output_sizes.py [size]

(W - K + 2P) / S + 1 outputs: W the input's size, K the kernel's, P the padding on each side, S the stride. Where S does not
divide W - K + 2P, the last windows would hang over the end: the libraries round down, and some input is never seen.
"""

from __future__ import annotations

import argparse

import numpy as np

import fastconv

KERNELS, STRIDES, PADDINGS = (1, 3, 5, 7), (1, 2, 3), (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("size", nargs="?", type=int, default=7, help="of the input (default: 7)")
    size = parser.parse_args().size
    hanging = "; - is where the kernel does not fit" if size < max(KERNELS) else ""
    print(f"an input of {size}; * is where some of it is never seen{hanging}\n")
    print("kernel  stride  " + "  ".join(f"padding {padding}" for padding in PADDINGS))
    for kernel in KERNELS:
        for stride in STRIDES:
            cells = (outputs(size, kernel, stride, padding) for padding in PADDINGS)
            print(f"{kernel:>6}  {stride:>6}  " + "  ".join(f"{cell:>9}" for cell in cells).rstrip())
    print(f"\n(10 - 3 + 0) / 3 + 1 = {(10 - 3) / 3 + 1:.2f} is no size: {outputs(10, 3, 3, 0)}, the last pixel is not seen")
    print("and a kernel of 5 on an input of 3:")
    try:
        fastconv.conv1d(np.zeros((1, 3), np.float32), np.zeros((1, 1, 5), np.float32))
    except ValueError as error:
        print(f"  {error}")


def outputs(size: int, kernel: int, stride: int, padding: int) -> str:
    """As a convolution gives them."""
    try:
        made = fastconv.conv1d(np.zeros((1, size), np.float32), np.zeros((1, 1, kernel), np.float32), stride=stride,
                               padding=padding)
    except ValueError:
        return "- "
    return f"{made.shape[-1]}{'*' if (size - kernel + 2 * padding) % stride else ' '}"


if __name__ == "__main__":
    main()

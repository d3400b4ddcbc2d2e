"""The digit four, 5 x 5, and a filter for vertical lines that goes over it window by window.

    python examples/vertical_lines.py

Each of the nine windows of 3 x 3 is multiplied by the filter, element by element, and added up: what is large marks a vertical
line in the middle of the window.
"""

from __future__ import annotations

import numpy as np

import fastconv

FOUR = """
# . . # .
# . . # .
# # # # .
. . . # .
. . . # .
"""
VERTICAL = np.array([[-1, 2, -1]] * 3, np.float32)


def main() -> None:
    four = np.array([[letter == "#" for letter in line.split()] for line in FOUR.strip().splitlines()], np.float32)
    found = fastconv.correlate(four, VERTICAL, "valid")
    print("the four:              the filter:")
    for number, row in enumerate(four):
        weights = " ".join(f"{value:>2.0f}" for value in VERTICAL[number]) if number < 3 else ""
        print(f"{' '.join('#' if value else '.' for value in row)}              {weights}".rstrip())
    print("\nthe nine windows, and what the filter makes of each:")
    for top in range(3):
        windows = [four[top:top + 3, left:left + 3] for left in range(3)]
        for line in range(3):
            print("      ".join(" ".join("#" if value else "." for value in window[line]) for window in windows))
        print("      ".join(f"{(window * VERTICAL).sum():>5.0f}" for window in windows) + "\n")
    assert all((four[i:i + 3, j:j + 3] * VERTICAL).sum() == found[i, j] for i in range(3) for j in range(3))
    print("all of it at once, correlate(four, filter, 'valid'):")
    print("\n".join(" ".join(f"{value:>3.0f}" for value in row) for row in found))
    row, column = np.unravel_index(found.argmax(), found.shape)
    print(f"\nthe clearest vertical line: {found.max():.0f}, in the window at row {row}, column {column}: the long stroke")


if __name__ == "__main__":
    main()

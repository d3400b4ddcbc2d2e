"""A filter that finds a curve: 6,600 where the curve is, 0 where it is not.

    python examples/curve_detector.py [--output curve.png]

The filter has 30 along a curve and 0 elsewhere. Over a drawing that has such a curve, of brightness 50, in the same place, the
products add up to a large number; over other lines they do not. That number, at every place, is the filter's activation map.
"""

from __future__ import annotations

import argparse

import numpy as np

import fastconv

CURVE = """
. . . . . # .
. . . . # . .
. . . # . . .
. . . # . . .
. . . # . . .
. . . # . . .
. . . . . . .
"""
DRAWN = """
. . . . . # #
. . . . # # .
. . . # # . .
. . . o . . .
. . . # . . .
. . . . . . .
. . . . . . .
"""
ELSEWHERE = """
# # . . . . .
# . . . . . .
. . . . . . #
. . . . . # #
. . # . . . .
. . # . . . .
. . # # . . .
"""
BRIGHT, FAINT, WEIGHT = 50, 20, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", help="a picture of drawing, filter and activation map (needs matplotlib)")
    arguments = parser.parse_args()
    curve, drawn, elsewhere = picture(CURVE) / BRIGHT * WEIGHT, picture(DRAWN), picture(ELSEWHERE)
    drawing = np.zeros((7, 21), np.float32)
    drawing[:, :7], drawing[:, 14:] = drawn, elsewhere
    activation = fastconv.correlate(drawing, curve, "valid")
    print("the filter, and the drawing under it at its first and last place:\n")
    for rows in zip(curve, drawn, elsewhere):
        print("   ".join(" ".join(f"{int(value):>2}" if value else " ." for value in row) for row in rows))
    print(f"\nwhere the curve is:     {' + '.join(map(str, products(curve, drawn)))} = {activation[0, 0]:,.0f}")
    print(f"where it is not:        {activation[0, -1]:,.0f}")
    print(f"at all places:          {', '.join(f'{value:,.0f}' for value in activation[0])}")
    if arguments.output:
        draw(drawing, curve, activation, arguments.output)
        print(f"wrote {arguments.output}")


def picture(text: str) -> np.ndarray:
    values = {".": 0, "#": BRIGHT, "o": FAINT}
    return np.array([[values[letter] for letter in line.split()] for line in text.strip().splitlines()], np.float32)


def products(curve: np.ndarray, drawn: np.ndarray) -> list[str]:
    return [f"{int(weight)}·{int(value)}" for weight, value in zip(curve.ravel(), drawn.ravel()) if weight * value]


def draw(drawing: np.ndarray, curve: np.ndarray, activation: np.ndarray, path: str) -> None:
    """Filter and drawing, and below it a bar for each place of the filter, at the window's middle."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(9, 4), layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2, width_ratios=(1, 3), height_ratios=(2, 1), sharex="col")
    titles = "the filter", "the drawing, and the filter's first and last place"
    for axes, values, title in zip(panels[0], (curve, drawing), titles):
        axes.imshow(values, cmap="gray_r", vmin=0, extent=(0, values.shape[1], values.shape[0], 0), aspect="equal")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("0.8")
    middles = np.arange(activation.shape[1]) + curve.shape[1] / 2
    bars = panels[1, 1].bar(middles, activation[0], 0.8, color="0.75")
    for place in (0, len(middles) - 1):
        colour = ("tab:blue", "tab:orange")[place > 0]
        panels[0, 1].add_patch(Rectangle((place + 0.06, 0.06), 6.88, 6.88, fill=False, color=colour, linewidth=2))
        bars[place].set_color(colour)
    for place, (middle, value) in enumerate(zip(middles, activation[0])):
        if value or place == len(middles) - 1:
            panels[1, 1].annotate(f"{value:,.0f}", (middle, value), (0, 4), textcoords="offset points", ha="center", fontsize=8,
                                  color=bars[place].get_facecolor() if place in (0, len(middles) - 1) else "0.45")
    panels[1, 1].set_title("the sum of the products at each place, below the middle of the window", fontsize=10, loc="left")
    panels[1, 1].set(ylim=(0, 1.25 * activation.max()), yticks=[], xticks=[])
    panels[1, 1].spines[["left", "right", "top"]].set_visible(False)
    panels[1, 0].set_axis_off()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

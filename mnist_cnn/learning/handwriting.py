"""Drawn digits, generated: twelve hands, each with its own way of writing.

Each digit is a few control points, as one writes it, in several ways for 1, 2, 4, 7 and 9. A hand
has a size, proportions, a slant, a place, a pen width, a speed (few points and cut corners, or
many) and a tremor. The drawings are scored by convert and never trained on.
"""

from __future__ import annotations

import numpy as np

HANDS = 12

# Strokes of control points in a box 1 high; x to the right, y down.
SHAPES: dict[int, list[str]] = {
    0: [".34,0 .06,.2 0,.55 .16,.93 .4,1 .62,.75 .66,.4 .56,.1 .34,0"],
    1: [".1,0 .1,1", "0,.22 .25,0 .25,1", "0,.2 .22,0 .22,1 | 0,1 .46,1"],
    2: [
        ".02,.24 .12,.05 .36,0 .58,.14 .55,.38 .3,.7 .02,1 | .02,1 .66,.97",
        ".04,.2 .25,0 .52,.1 .52,.4 .3,.75 .1,.95 .05,.8 .22,.78 .4,.95 .7,.97",
    ],
    3: [".04,.1 .3,0 .55,.12 .52,.36 .24,.47 .55,.56 .62,.8 .36,1 .02,.9"],
    4: [
        ".1,0 .04,.5 | .04,.5 .66,.5 | .52,.05 .48,1",
        ".5,0 0,.66 | 0,.66 .7,.66 | .5,0 .5,1",
    ],
    5: [".12,.02 .08,.42 .38,.38 .62,.6 .56,.88 .28,1 .0,.88 | .12,.02 .62,0"],
    6: [".5,0 .16,.3 .02,.7 .2,.98 .48,.95 .6,.72 .42,.54 .14,.6 .04,.76"],
    7: [
        "0,.04 .66,0 | .66,0 .4,.45 .26,1",
        "0,.04 .66,0 | .66,0 .4,.45 .26,1 | .14,.5 .6,.46",
    ],
    8: [
        ".54,.14 .3,0 .08,.14 .18,.4 .46,.58 .56,.82 .3,1 .04,.84 .14,.6 .44,.38 .54,.14",
    ],
    9: [
        ".58,.18 .34,0 .06,.18 .12,.46 .4,.5 .58,.2 .58,.2 .58,.6 .54,1",
        ".58,.16 .32,0 .06,.18 .12,.44 .4,.5 .58,.16 .6,.5 .5,.85 .26,1 .06,.9",
    ],
}


def curve(points: np.ndarray, count: int) -> np.ndarray:
    """`count` points (count, 2) along the Catmull-Rom spline through control points (n, 2)."""
    if len(points) == 2:
        return np.linspace(points[0], points[1], count)
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    at = np.linspace(0, len(points) - 1 - 1e-9, count)
    i, t = at.astype(int), (at % 1)[:, None]
    a, b, c, d = (ends[i + k] for k in range(4))
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )


def drawings() -> list[dict]:
    """All drawings: {digit, hand, strokes: [{width, points}]}, in units of the pad's side."""
    rng = np.random.default_rng(2026)
    found = []
    for hand in range(HANDS):
        height, stretch = rng.uniform(0.3, 0.75), rng.uniform(0.75, 1.3)
        slant, width = rng.uniform(-0.1, 0.45), rng.uniform(0.035, 0.12)
        tremor, count = rng.uniform(0.002, 0.008), int(rng.integers(7, 25))
        for digit, ways in SHAPES.items():
            strokes = []
            way = ways[hand % len(ways)]
            parts = [
                np.array([point.split(",") for point in part.split()], float)
                for part in way.split("|")
            ]
            own = {tuple(p): rng.normal(0, 0.02, 2) for part in parts for p in part}
            middle = np.concatenate(parts).mean(axis=0)
            place = 0.5 + rng.uniform(-0.5, 0.5, 2) * (0.9 - height)
            for part in parts:
                moved = part + [own[tuple(p)] for p in part]
                points = curve(moved, count if len(part) > 2 else max(4, count // 3)) - middle
                points[:, 0] = points[:, 0] * stretch - slant * points[:, 1]
                points = place + height * points + rng.normal(0, tremor, points.shape)
                strokes.append(
                    {"width": round(width, 3), "points": points.clip(0, 1).round(3).tolist()}
                )
            found.append({"digit": digit, "hand": hand, "strokes": strokes})
    return found

"""Drawn digits: the picture that a network sees of pen strokes, and a generator of such strokes.

`browser/static/prepare.js` prepares strokes in the same way in the browser; a test holds the two
together. The generator knows many ways of writing, and of drawing what is no digit
(`shapes.txt`); each drawing has proportions, a slant, a smooth warp, a speed and a tremor of its
own. Everything is a function of a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

SIDE, FIT = 28, 20  # pixels of the picture, and of the longer side of the ink in it, as MNIST has
PEN = 2.2  # pixels, the width of the line
SMALLEST = 0.05  # of the pad's side: what is smaller is not magnified
STEP = 0.01  # of the longer side: points nearer than this to the last one are left out
TAP = 0.1  # of the longer side of the largest stroke: a stroke below this is a tap
ASIDE = 0.35  # likewise: a tap further than this from the others is left out
EVEN = 1e-4  # pixels: where a move by either of two is as good, rounding errors do not choose


def prepare(strokes: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Picture float32 (28, 28) in [0, 1] of strokes of points (x, y), in units of the pad's side.

    Scaled into 20 pixels and placed by centre of mass, as MNIST's makers did (LeCun et al. 1998),
    but from vectors: the line is PEN wide whatever pen drew it. Raises ValueError without a point.
    """
    lines = _cleaned([np.asarray(points, np.float64) for points in strokes if len(points)])
    # A dot is a line of no length.
    lines = [np.repeat(line, 2, axis=0) if len(line) == 1 else line for line in lines]
    segments = np.concatenate([np.stack([line[:-1], line[1:]], axis=1) for line in lines])
    return render(segments, np.zeros(len(segments), int))[0]


def _cleaned(lines: list[np.ndarray]) -> list[np.ndarray]:
    """Lines without taps that fell beside the digit and without points on the spot."""
    if not lines:
        raise ValueError("there is no ink")
    sizes = np.array([np.ptp(line, axis=0).max() for line in lines])
    taps = sizes < TAP * sizes.max()
    main = np.concatenate([line for line, tap in zip(lines, taps, strict=True) if not tap])

    def aside(line: np.ndarray) -> bool:
        gap = np.maximum(line.min(axis=0) - main.max(axis=0), main.min(axis=0) - line.max(axis=0))
        return bool(np.hypot(*gap.clip(0)) > ASIDE * sizes.max())

    kept = [line for line, tap in zip(lines, taps, strict=True) if not (tap and aside(line))]
    step = STEP * np.ptp(np.concatenate(kept), axis=0).max()
    thinned = []
    for line in kept:
        chosen = [line[0]]
        for point in line[1:]:
            if np.hypot(*(point - chosen[-1])) > step:
                chosen.append(point)
        thinned.append(np.array(chosen))
    return thinned


def render(segments: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Pictures float32 (n, 28, 28) of drawings that consist of straight segments (m, 2, 2).

    `owner` (m,): which drawing each belongs to, 0 to n - 1 in this order, none without one. A pixel
    is as bright as its distance from the middle of the line says: the edge fades over one pixel.
    """
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    low = np.minimum.reduceat(segments.min(axis=1), first)
    size = np.maximum.reduceat(segments.max(axis=1), first) - low
    scale = ((FIT - PEN) / np.maximum(size.max(axis=1), SMALLEST))[:, None]
    placed = (segments - low[owner, None]) * scale[owner, None] + PEN / 2
    begin, move = placed[:, 0], placed[:, 1] - placed[:, 0]

    # Short pieces: each reaches no further than 5 x 5 pixels around its middle.
    pieces = np.ceil(np.hypot(*move.T) / 1.2).astype(int).clip(1)
    nth = np.arange(pieces.sum()) - np.repeat(pieces.cumsum() - pieces, pieces)
    move = np.repeat(move / pieces[:, None], pieces, axis=0)
    begin = np.repeat(begin, pieces, axis=0) + nth[:, None] * move
    corner = np.floor(begin + move / 2).astype(int) - 2
    offset = (corner - begin).astype(np.float32)
    across, down = move.astype(np.float32).T[:, :, None, None]
    x = offset[:, :1, None] + np.arange(0.5, 5, dtype=np.float32)
    y = offset[:, 1:, None] + np.arange(0.5, 5, dtype=np.float32)[:, None]
    along = (x * across + y * down) / np.maximum(across**2 + down**2, np.float32(1e-12))
    along = along.clip(0, 1)
    away = np.sqrt((x - along * across) ** 2 + (y - along * down) ** 2)
    value = (np.float32(PEN / 2 + 0.5) - away).clip(0, 1)

    margin, near = 3, np.arange(5)
    ink = np.zeros((len(first), SIDE + 2 * margin, SIDE + 2 * margin), np.float32)
    rows = np.repeat(owner, pieces) * ink.shape[1] + corner[:, 1] + margin
    at = (rows[:, None] + near)[:, :, None] * ink.shape[2]
    at = at + (corner[:, :1] + margin + near)[:, None, :]
    np.maximum.at(ink.reshape(-1), at.ravel(), value.ravel())
    extent = np.ceil(size * scale + PEN).astype(int)
    return _centred(ink[:, margin:-margin, margin:-margin], extent)


def _centred(ink: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Ink (n, 28, 28) in its first columns and rows, `extent` (n, 2), moved by whole pixels.

    Its centre of mass comes to the middle, as far as it all stays inside.
    """
    mass, places = ink.sum(axis=(1, 2)), np.arange(SIDE)
    centre = np.stack([ink.sum(axis=1) @ places, ink.sum(axis=2) @ places], axis=1) / mass[:, None]
    moved = np.floor(SIDE / 2 - centre + 0.5 + EVEN).astype(int).clip(0, SIDE - extent)
    across, down = ((places - moved[:, [axis]]) % SIDE for axis in (0, 1))
    return ink[np.arange(len(ink))[:, None, None], down[:, :, None], across[:, None, :]]


@dataclass(frozen=True)
class Way:
    """A way of writing: a label (-1: no digit), control points (n, 2), and strokes.

    A stroke is a list of smooth parts, each the places of its points in `control`.
    """

    label: int
    control: np.ndarray
    strokes: tuple[tuple[tuple[int, ...], ...], ...]


@cache
def ways() -> list[Way]:
    """All ways of `shapes.txt`."""
    found = []
    for line in Path(__file__).with_name("shapes.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        label, _, text = line.partition("  ")
        places: dict[str, int] = {}
        strokes = []
        for stroke in text.split("|"):
            parts: list[tuple[int, ...]] = [()]
            for word in stroke.split():
                place = places.setdefault(word.strip("!"), len(places))
                parts[-1] += (place,)
                if word.endswith("!"):
                    parts.append((place,))
            strokes.append(tuple(parts))
        control = np.array([place.split(",") for place in places], float)
        found.append(Way(-1 if label == "-" else int(label), control, tuple(strokes)))
    return found


def _curve(points: np.ndarray, per: int, tension: np.ndarray) -> np.ndarray:
    """Points (n, (m - 1) per + 1, 2) along the Catmull-Rom spline through points (n, m, 2).

    `tension` (n,): 0 for straight lines instead, 1 for the spline.
    """
    count = points.shape[1]
    ends = [2 * points[:, :1] - points[:, 1:2], points, 2 * points[:, -1:] - points[:, -2:-1]]
    padded = np.concatenate(ends, axis=1)
    at = np.linspace(0, count - 1, (count - 1) * per + 1)
    i = np.minimum(at.astype(int), count - 2)
    t = (at - i)[:, None]
    a, b, c, d = (padded[:, i + k] for k in range(4))
    straight = b + (c - b) * t
    bend = (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    return straight + tension[:, None, None] * (b + 0.5 * bend - straight)


def draw(
    way: Way, count: int, rng: np.random.Generator, style: np.random.Generator
) -> list[np.ndarray]:
    """The strokes of `count` drawings in one way, each (count, s, 2) in a box of about 1.

    The same state of `style` gives the same proportions, warp, slant and tremor: the same writer.
    """

    def normal(scale: float, *shape: int) -> np.ndarray:
        return rng.normal(0, scale, (count, *shape))

    size = np.ptp(way.control, axis=0).max()
    sloppy = size * np.exp(rng.uniform(np.log(0.008), np.log(0.05), (count, 1, 1)))
    control = way.control + sloppy * normal(1, *way.control.shape)
    tension = rng.uniform(0.5, 1.15, count)
    per = int(rng.choice([2, 3, 5]))
    strokes = []
    for parts in way.strokes:
        curves = []
        for number, part in enumerate(parts):
            points = control[:, list(part)]
            if number == 0:
                points[:, 0] += rng.uniform(-0.25, 0.2, (count, 1)) * (points[:, 0] - points[:, 1])
            if number == len(parts) - 1:
                end = points[:, -1] - points[:, -2]
                points[:, -1] += rng.uniform(-0.25, 0.2, (count, 1)) * end
            curves.append(
                _curve(points, per if len(part) > 2 else 2 * per, tension)[:, number > 0 :]
            )
        strokes.append(np.concatenate(curves, axis=1) + sloppy * normal(0.7, 1, 2))
    lengths = np.cumsum([stroke.shape[1] for stroke in strokes])[:-1]
    return np.split(_deformed(np.concatenate(strokes, axis=1), style), lengths, axis=1)


def _deformed(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drawings (n, s, 2) with a smooth warp, a stretch, a slant, a turn and a tremor."""
    count = len(points)

    def normal(scale: float) -> np.ndarray:
        return rng.normal(0, scale, (count, 1))

    points = points - (points.max(axis=1, keepdims=True) + points.min(axis=1, keepdims=True)) / 2
    x, y = points[..., 0], points[..., 1]
    terms = (x * x, x * y, y * y, y * y * y, x * y * y)
    x, y = (axis + sum(normal(0.12) * term for term in terms) for axis in (x, y))
    x = x * np.exp(normal(0.25)) - (0.12 + normal(0.2)) * y
    turn = normal(0.12)
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    moved = np.stack([x, y], axis=-1)
    tremor = np.exp(rng.uniform(np.log(0.001), np.log(0.012), (count, 1, 1)))
    tremor *= np.ptp(moved, axis=1, keepdims=True).max(axis=2, keepdims=True)
    return moved + tremor * rng.normal(0, 1, points.shape)


def _mixtures(rng: np.random.Generator) -> list[Way]:
    """Ways of drawing no digit that are random themselves: two digits side by side, scribbles."""
    digits = [way for way in ways() if way.label >= 0]
    found = []
    for _ in range(8):
        left, right = (digits[i] for i in rng.integers(len(digits), size=2))
        gap = np.ptp(left.control[:, 0]) + rng.uniform(0.05, 0.4)
        moved = right.control + np.array([gap, rng.uniform(-0.15, 0.15)])
        shifted = [
            tuple(tuple(i + len(left.control) for i in part) for part in stroke)
            for stroke in right.strokes
        ]
        found.append(Way(-1, np.concatenate([left.control, moved]), (*left.strokes, *shifted)))
        count = int(rng.integers(6, 14))
        found.append(Way(-1, rng.random((count, 2)), ((tuple(range(count)),),)))
    return found


def recordings() -> list[dict]:
    """Drawings as the page records them: {digit, hand, strokes: [{width, points}]}.

    Twelve hands write every digit; the hands after them draw what is no digit (-1). Another seed
    than any of `generated`.
    """
    rng = np.random.default_rng(2026)
    known = [*ways(), *_mixtures(rng)]
    found: list[dict] = []
    for hand in range(18):
        for digit in range(10):
            label = digit if hand < 12 else -1
            own = [way for way in known if way.label == label]
            way = own[rng.integers(len(own))]
            style = np.random.default_rng([2026, hand if label >= 0 else len(found)])
            strokes = [s[0] for s in draw(way, 1, rng, style)]
            height, width = style.uniform(0.3, 0.75), style.uniform(0.035, 0.12)
            low, size = (f(np.concatenate(strokes), axis=0) for f in (np.min, np.ptp))
            scale = height / max(size.max(), 0.1)
            corner = 0.05 + rng.random(2) * (0.9 - scale * size)
            lines = [(corner + scale * (s - low)).round(3).tolist() for s in strokes]
            drawn = [{"width": round(width, 3), "points": points} for points in lines]
            found.append({"digit": label, "hand": hand, "strokes": drawn})
    return found


def generated(count: int, seed: int, none: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Drawn images uint8 (count, 28, 28, 1) and labels int8 (count,), -1 for a share `none`.

    Every digit comes equally often, and so does every way of it.
    """
    rng = np.random.default_rng([seed, 22])
    others = round(count * none)
    labels = np.concatenate([np.arange(count - others) % 10, np.full(others, -1)])
    labels = rng.permutation(labels.astype(np.int8))
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for begin in range(0, count, 1000):  # bounds the memory
        images[begin : begin + 1000] = _drawn(labels[begin : begin + 1000], rng)
    return images[..., None], labels


def _drawn(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images uint8 (n, 28, 28) of drawings with these labels."""
    known = [*ways(), *_mixtures(rng)]
    chosen = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = [number for number, way in enumerate(known) if way.label == label]
        chosen[labels == label] = rng.choice(own, (labels == label).sum())
    segments, owner, done = [], [], 0
    for number in np.unique(chosen):
        count = int((chosen == number).sum())
        strokes = draw(known[number], count, rng, rng)
        lines = np.concatenate([np.stack([s[:, :-1], s[:, 1:]], axis=2) for s in strokes], axis=1)
        segments.append(lines.reshape(-1, 2, 2))
        owner.append(np.repeat(np.arange(done, done + count), lines.shape[1]))
        done += count
    images = np.empty((len(labels), SIDE, SIDE), np.uint8)
    pictures = render(np.concatenate(segments), np.concatenate(owner))
    images[np.argsort(chosen, kind="stable")] = np.rint(255 * pictures)
    return images

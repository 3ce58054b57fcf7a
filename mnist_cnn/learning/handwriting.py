"""A generator of drawn digits, and the picture that a network sees of their strokes.

It knows many ways of writing, and of drawing what is no digit (`shapes.txt`); each drawing has
proportions, slant, warp, speed and tremor of its own, all functions of a seed.
`browser/static/prepare.js` renders alike; a test holds the two together.
"""

import hashlib
import os
import re
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from mnist_cnn.learning.data import cache_folder

SHAPES = Path(__file__).with_name("shapes.txt")
SIDE, FIT = 28, 20  # pixels of the picture, and of the longer side of the ink in it, as MNIST has
PEN = 2.2  # pixels, the width of the line
SMALLEST = 0.05  # of the pad's side: what is smaller is not magnified
KEPT = 8  # files of `kept`
HOOKS = 0.3  # share of the ends of strokes at which the pen turns off before it is lifted
EVEN = 1e-4  # pixels: where a move by either of two is as good, rounding errors do not choose


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
    side = SIDE + 2 * margin
    ink = np.zeros(len(first) * side * side, np.float32)
    rows = (np.repeat(owner, pieces) * side + corner[:, 1] + margin)[:, None] + near
    at = rows[:, :, None] * side + (corner[:, :1] + margin + near)[:, None, :]
    np.maximum.at(ink, at.ravel(), value.ravel())
    ink = ink.reshape(-1, side, side)[:, margin:-margin, margin:-margin]

    # The centre of mass comes to the middle, by whole pixels, as far as all ink stays inside.
    mass, places = ink.sum(axis=(1, 2)), np.arange(SIDE)
    centre = np.stack([ink.sum(axis=1) @ places, ink.sum(axis=2) @ places], axis=1) / mass[:, None]
    room = SIDE - np.ceil(size * scale + PEN).astype(int)
    moved = np.floor(SIDE / 2 - centre + 0.5 + EVEN).astype(int).clip(0, room)
    to_x, to_y = ((places - moved[:, [axis]]) % SIDE for axis in (0, 1))
    return ink[np.arange(len(ink))[:, None, None], to_y[:, :, None], to_x[:, None, :]]


class Way(NamedTuple):
    """A way of writing: its strokes are lists of smooth parts, which are places in `control`."""

    label: int  # -1: no digit
    control: np.ndarray  # points (n, 2)
    strokes: list[list[list[int]]]


@cache
def ways() -> list[Way]:
    """All ways of `shapes.txt`."""
    found = []
    for label, text in re.findall(r"(?m)^(-?\d) +(.+)", SHAPES.read_text(encoding="utf-8")):
        points = list(dict.fromkeys(re.findall(r"[^\s|!]+", text)))
        strokes = []
        for stroke in text.split("|"):
            parts = [part.split() for part in stroke.split("!")]
            for before, part in pairwise(parts):
                part.insert(0, before[-1])
            strokes.append([[points.index(point) for point in part] for part in parts])
        control = np.array([point.split(",") for point in points], float)
        found.append(Way(int(label), control, strokes))
    return found


def _curve(points: np.ndarray, per: int, tension: np.ndarray) -> np.ndarray:
    """Points (n, (m - 1) per + 1, 2) along Catmull-Rom splines; `tension` (n,): 0 is straight."""
    count = points.shape[1]
    padded = np.pad(points, ((0, 0), (1, 1), (0, 0)), "reflect", reflect_type="odd")
    at = np.linspace(0, count - 1, (count - 1) * per + 1)
    i = np.minimum(at.astype(int), count - 2)
    t = (at - i)[:, None]
    a, b, c, d = (padded[:, i + k] for k in range(4))
    straight = b + (c - b) * t
    bend = (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    return straight + tension[:, None, None] * (b + 0.5 * bend - straight)


def draw(way: Way, count: int, rng: Generator, style: Generator) -> list[np.ndarray]:
    """The strokes, each (count, s, 2), of drawings in one way; the same `style`: one writer's."""
    size = np.ptp(way.control, axis=0).max()
    sloppy = size * np.exp(rng.uniform(np.log(0.008), np.log(0.05), (count, 1, 1)))
    control = way.control + sloppy * rng.normal(0, 1, (count, *way.control.shape))
    tension = rng.uniform(0.5, 1.15, count)
    per = int(rng.choice([2, 3, 5]))
    strokes = []
    for parts in way.strokes:
        curves = []
        for number, part in enumerate(parts):
            points = control[:, part]
            if number == 0:
                points[:, 0] += rng.uniform(-0.25, 0.2, (count, 1)) * (points[:, 0] - points[:, 1])
            if number == len(parts) - 1:
                more = rng.uniform(-0.25, 0.2, (count, 1))
                points[:, -1] += more * (points[:, -1] - points[:, -2])
            curve = _curve(points, per if len(part) > 2 else 2 * per, tension)
            curves.append(curve[:, number > 0 :])
        line = _hooked(np.concatenate(curves, axis=1), size, rng)
        strokes.append(line + sloppy * rng.normal(0, 0.7, (count, 1, 2)))
    lengths = np.cumsum([stroke.shape[1] for stroke in strokes])[:-1]
    return np.split(_deformed(np.concatenate(strokes, axis=1), style), lengths, axis=1)


def _hooked(lines: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    """Lines (n, s, 2) with a point more at either end: at a share HOOKS of them the pen turns."""
    count = len(lines)
    for _ in range(2):
        lines = lines[:, ::-1]
        x, y = (lines[:, -1] - lines[:, -2]).T
        turn = np.arctan2(y, x) + rng.choice([-1, 1], count) * rng.uniform(0.6, 2.6, count)
        reach = size * rng.uniform(0.05, 0.2, count) * (rng.random(count) < HOOKS)
        tip = lines[:, -1] + (reach * np.stack([np.cos(turn), np.sin(turn)])).T
        lines = np.concatenate([lines, tip[:, None]], axis=1)
    return lines


def _deformed(points: np.ndarray, rng: Generator) -> np.ndarray:
    """Drawings (n, s, 2) with a smooth warp, a stretch, a slant, a turn and a tremor."""
    normal = partial(rng.normal, 0, size=(len(points), 1))
    points = points - (points.max(axis=1, keepdims=True) + points.min(axis=1, keepdims=True)) / 2
    x, y = points[..., 0], points[..., 1]
    terms = (x * x, x * y, y * y, y * y * y, x * y * y)
    x, y = (axis + sum(normal(0.12) * term for term in terms) for axis in (x, y))
    x = x * np.exp(normal(0.25)) - (0.12 + normal(0.2)) * y
    turn = normal(0.12)
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    moved = np.stack([x, y], axis=-1)
    tremor = np.exp(rng.uniform(np.log(0.001), np.log(0.012), (len(points), 1, 1)))
    tremor *= np.ptp(moved, axis=1, keepdims=True).max(axis=2, keepdims=True)
    return moved + tremor * rng.normal(0, 1, points.shape)


def mixtures(rng: Generator) -> list[Way]:
    """Ways of drawing no digit that are random themselves: two digits side by side, scribbles."""
    digits = [way for way in ways() if way.label >= 0]
    found = []
    for _ in range(8):
        left, right = (digits[i] for i in rng.integers(len(digits), size=2))
        gap = np.ptp(left.control[:, 0]) + rng.uniform(0.05, 0.4)
        moved = right.control + np.array([gap, rng.uniform(-0.15, 0.15)])
        shift = len(left.control)
        shifted = [[[i + shift for i in part] for part in stroke] for stroke in right.strokes]
        found.append(Way(-1, np.concatenate([left.control, moved]), left.strokes + shifted))
        count = int(rng.integers(6, 14))
        found.append(Way(-1, rng.random((count, 2)), [[list(range(count))]]))
    return found


def generated(count: int, seed: int, none: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Drawn images uint8 (count, 28, 28, 1) and labels int8 (count,), -1 for a share `none`."""
    rng = np.random.default_rng([seed, 22])
    others = round(count * none)
    labels = np.concatenate([np.arange(count - others) % 10, np.full(others, -1)])
    labels = rng.permutation(labels.astype(np.int8))
    images = [_drawn(labels[i : i + 1000], rng) for i in range(0, count, 1000)]  # bounds memory
    return np.concatenate(images)[..., None], labels


def _drawn(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    known = [*ways(), *mixtures(rng)]
    label_of = np.array([way.label for way in known])
    chosen = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = labels == label
        chosen[own] = rng.choice(np.flatnonzero(label_of == label), own.sum())
    order = np.argsort(chosen, kind="stable")
    segments, pieces = [], []
    for number, count in zip(*np.unique(chosen, return_counts=True), strict=True):
        strokes = draw(known[number], count, rng, rng)
        lines = np.concatenate([np.stack([s[:, :-1], s[:, 1:]], axis=2) for s in strokes], axis=1)
        segments.append(lines.reshape(-1, 2, 2))
        pieces += [lines.shape[1]] * count
    pictures = render(np.concatenate(segments), np.repeat(np.arange(len(labels)), pieces))
    return np.rint(255 * pictures[np.argsort(order)]).astype(np.uint8)


def kept(count: int, seed: int, none: float) -> tuple[np.ndarray, np.ndarray]:
    """`generated`, kept in the cache folder: the newest KEPT files, each whole, of 11 MB each."""
    folder = cache_folder() / "drawings"
    sources = Path(__file__).read_bytes() + SHAPES.read_bytes() + np.__version__.encode()
    path = folder / f"{hashlib.sha256(sources).hexdigest()[:16]}-{count}-{seed}-{none}.npz"
    with suppress(Exception), path.open("rb") as file, np.load(file) as found:  # if not damaged
        return found["images"], found["labels"]
    images, labels = generated(count, seed, none)
    with suppress(OSError):  # a full disk costs time only
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{os.getpid()}-partial.npz"
        np.savez(unfinished, images=images, labels=labels)
        os.replace(unfinished, path)
        for old in sorted(folder.iterdir(), key=os.path.getmtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    return images, labels

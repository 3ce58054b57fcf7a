"""Corrupted digits, seeded: the fifteen kinds of MNIST-C at five strengths, and five of our own.

MNIST-C (Mu and Gilmer 2019, arXiv 1906.02337) corrupts one image at a time; here each kind takes
float64 images (n, 28, 28) in [0, 1], its level at a strength, and a random generator. The numbers
are the published ones, but stripe, dotted line, zigzag and canny edges have only one there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from skimage.feature import canny
from skimage.util import random_noise

SIZE = 28
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


class Corruption(NamedTuple):
    """One corruption: its function, the levels of its five strengths, the published strength."""

    function: Callable[[np.ndarray, Any, Generator], np.ndarray]
    levels: Sequence[Any]
    published: int
    unseen_in_training: bool = False  # neither `distort` nor `disturb` shows anything like it


def corrupted(name: str, images: np.ndarray, strength: int | None = None) -> np.ndarray:
    """Images uint8 (n, 28, 28, 1) corrupted, each time alike; strength 1 to 5, None: published."""
    chosen = CORRUPTIONS[name]
    strength = strength or chosen.published
    rng = np.random.default_rng([*name.encode(), strength])
    bad = chosen.function(images[..., 0] / 255.0, chosen.levels[strength - 1], rng)
    return np.rint(255 * np.clip(bad, 0, 1)).astype(np.uint8)[..., None]


def _fog(x: np.ndarray, level: tuple[float, float], rng: Generator) -> np.ndarray:
    thick, decay = level
    light = x.max(axis=(1, 2), keepdims=True)
    # A few at once: their maps stay in the processor's cache, and take half the time.
    parts = np.array_split(x, -(-len(x) // 20))
    fog = np.concatenate([_plasma(len(part), decay, rng) for part in parts])
    return (x + thick * fog) * light / (light + thick)


def _plasma(count: int, decay: float, rng: Generator) -> np.ndarray:
    """Height maps (count, 28, 28) in [0, 1], cut from toroidal diamond-square maps of 256 x 256."""
    heights = np.zeros((count, 256, 256), np.float32)
    wibble = 100.0

    def rough(total: np.ndarray) -> np.ndarray:
        return total / 4 + wibble**2 * rng.uniform(-1, 1, total.shape)

    for half in (128, 64, 32, 16, 8, 4, 2, 1):
        corners, middles = (heights[:, i :: 2 * half, i :: 2 * half] for i in (0, half))
        rows = corners + np.roll(corners, -1, 1)
        middles[:] = rough(rows + np.roll(rows, -1, 2))
        beside = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        heights[:, :: 2 * half, half :: 2 * half] = rough(beside)
        above = middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        heights[:, half :: 2 * half, :: 2 * half] = rough(above)
        wibble /= decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights[:, :SIZE, :SIZE] / heights.max(axis=(1, 2), keepdims=True)


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest")


def _glass_blur(x: np.ndarray, level: tuple[float, int, int], rng: Generator) -> np.ndarray:
    sigma, reach, times = level
    x = np.floor(255 * _blurred(x, sigma)) / 255
    every = np.arange(len(x))
    places = range(SIZE - reach, reach, -1)
    for row, column in [(row, column) for row in places for column in places] * times:
        down, right = rng.integers(-reach, reach, (2, len(x)))
        swap = rng.random(len(x)) < 0.5
        there = (every, row + down * swap, column + right * swap)  # with itself: none
        here = x[:, row, column].copy()
        x[:, row, column] = x[there]
        x[there] = here
    return _blurred(x, sigma)


def _motion_blur(x: np.ndarray, level: tuple[int, int], rng: Generator) -> np.ndarray:
    """As ImageMagick does it: half a Gaussian along a line, at whole pixels."""
    radius, sigma = level
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    angle = np.radians(rng.uniform(-45, 45, (len(x), 1, 1)))
    total = np.zeros_like(x)
    for step, weight in enumerate(weights / weights.sum()):
        down, right = (np.ceil(step * f(angle) - 0.5).astype(int) for f in (np.sin, np.cos))
        at = (np.clip(c, 0, SIZE - 1) for c in (ROWS + down, COLUMNS + right))
        total += weight * x[(np.arange(len(x))[:, None, None], *at)]
    return total


def _warped(x: np.ndarray, matrices: np.ndarray, moved: np.ndarray | float = 0.0) -> np.ndarray:
    """Bilinear: the pixel at p comes from matrix (p - centre) + centre + moved; 0 outside.

    `matrices` is (n, 2, 2) or (2, 2), `moved` (n, 2) or a number, both in the order down, across.
    """
    matrices = np.broadcast_to(matrices, (len(x), 2, 2))
    offsets = (SIZE - 1) / 2 * (1 - matrices.sum(axis=2)) + moved
    warps = zip(x, matrices, offsets, strict=True)
    return np.stack([ndimage.affine_transform(*w, order=1, mode="grid-constant") for w in warps])


def _turned(x: np.ndarray, angle: float, rng: Generator, across: float = 1.0) -> np.ndarray:
    """Rotated to one side or the other; sheared, as in scikit-image of 2019, with `across` 0."""
    angles = (-angle, angle)
    ways = [[[np.cos(a), across * np.sin(a)], [-np.sin(a), np.cos(across * a)]] for a in angles]
    return _warped(x, rng.choice(ways, len(x)))


def _translate(x: np.ndarray, pixels: int, rng: Generator) -> np.ndarray:
    return _warped(x, np.eye(2), pixels * rng.choice([-1, 1], (len(x), 2))[:, ::-1])


def _spatter(x: np.ndarray, level: tuple[float, ...], rng: Generator) -> np.ndarray:
    mean, sd, sigma, least, soft = level
    liquid = _blurred(rng.normal(mean, sd, x.shape), sigma)
    mud = _blurred((liquid > least).astype(float), soft)
    mud[mud < 0.8] = 0
    return x * (1 - mud) + 63 / 255 * mud


def _line(column0: float, row0: float, column1: float, row1: float) -> np.ndarray:
    """A soft line (28, 28) between two points of different columns."""
    slope = (row1 - row0) / (column1 - column0)
    distance = np.minimum(np.abs(ROWS - slope * (COLUMNS - column0) - row0), 2.3 - 1e-10)
    line = np.clip(np.log(1 - distance / 2.3) + 1, 0, 1)
    return np.where((np.floor(column0) <= COLUMNS) & (np.ceil(column1) > COLUMNS), line, 0)


def _dotted_line(x: np.ndarray, count: int, rng: Generator) -> np.ndarray:
    rows = rng.integers(27, size=(len(x), count, 2))
    lines = [sum(_line(0, left, 27, right) for left, right in some) for some in rows]
    return x + np.array(lines) * (np.arange(SIZE) // 2 % 2)


def _zigzag(x: np.ndarray, count: int, rng: Generator) -> np.ndarray:
    def zigzag() -> np.ndarray:  # from column 2 to 25, a turn every four pixels
        row, angle = rng.integers(27), np.arctan(rng.integers(-5, 5) / 23)
        cos, sin, whole = np.cos(angle), np.sin(angle), 23 / np.cos(angle)
        turns = [(4 * i + 2, 2 * (-1) ** i) for i in range(6)]
        points = [(0, 0), *turns, (whole, -1 / (whole % 4))]
        ends = [(cos * c - sin * r + 2, sin * c + cos * r + row) for c, r in points]
        return np.sum([_line(*a, *b) for a, b in pairwise(ends)], axis=0)

    # The published code takes pixels of 0 to 255 here and clips them at 1: any ink becomes full.
    return np.ceil(x) + [sum(zigzag() for _ in range(count)) for _ in x]


def _thickness(x: np.ndarray, share: float, rng: Generator) -> np.ndarray:
    """Thicker or thinner strokes: grey dilation of half of the images, erosion of the others."""
    thick, thin = ndimage.grey_dilation(x, (1, 3, 3)), ndimage.grey_erosion(x, (1, 2, 2))
    return x + share * (np.where(rng.choice([-1, 1], (len(x), 1, 1)) > 0, thick, thin) - x)


def _elastic(x: np.ndarray, sd: float, rng: Generator) -> np.ndarray:
    """A smooth field moves each pixel; sigma 4 as in Simard et al. 2003."""
    field = ndimage.gaussian_filter(rng.uniform(-1, 1, (2, *x.shape)), (0, 0, 4, 4))
    at = np.mgrid[: len(x), :SIZE, :SIZE].astype(float)
    at[1:] += field * (sd / field.std())
    return ndimage.map_coordinates(x, at, order=1)


def _occlusion(x: np.ndarray, side: int, rng: Generator) -> np.ndarray:
    top, left = rng.integers(4, 24 - side + 1, (2, len(x), 1, 1))  # over the digit's box
    covered = (top <= ROWS) & (top + side > ROWS) & (left <= COLUMNS) & (left + side > COLUMNS)
    return np.where(covered, 0, x)


def _low_resolution(x: np.ndarray, factor: float, rng: Generator) -> np.ndarray:
    small = ndimage.zoom(_blurred(x, 0.4 / factor), (1, factor, factor), order=1)
    return ndimage.zoom(small, (1, *[SIZE / small.shape[1]] * 2), order=1)


ANGLES = [0.2 * strength for strength in range(1, 6)]  # radians
FIFTHS = [strength / 5 for strength in range(1, 6)]
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, reach, times
STRIPE = (11, 10, 9, 8, 7)  # columns on either side of the middle that stay
SALT = (0.03, 0.06, 0.09, 0.17, 0.27)  # share of the pixels that become black or white
CANNY = (0.25, 0.5, 1.0, 1.25, 1.5)  # sigma of the blur before
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
FOG = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))  # thickness, decay
SPATTER = (  # mean and sd of the liquid, its blur, its least height, blur of the mud
    *((0.65, 0.3, 4, 0.69, 0.6), (0.65, 0.3, 3, 0.68, 0.6), (0.65, 0.3, 2, 0.68, 0.5)),
    *((0.65, 0.3, 1, 0.65, 1.5), (0.67, 0.4, 1, 0.65, 1.5)),
)
MNIST_C = {
    "shot_noise": Corruption(lambda x, n, rng: rng.poisson(x * n) / n, (60, 25, 12, 5, 3), 5),
    "impulse_noise": Corruption(lambda x, s, rng: random_noise(x, "s&p", rng, amount=s), SALT, 4),
    "glass_blur": Corruption(_glass_blur, GLASS, 1),
    "motion_blur": Corruption(_motion_blur, MOTION, 1),
    "shear": Corruption(partial(_turned, across=0.0), ANGLES, 2),
    "scale": Corruption(lambda x, by, _: _warped(x, np.eye(2) / by), (0.9, 0.8, 0.7, 0.6, 0.5), 3),
    "rotate": Corruption(_turned, ANGLES, 2),
    "brightness": Corruption(lambda x, more, _: x + more, (0.1, 0.2, 0.3, 0.4, 0.5), 5),
    "translate": Corruption(_translate, range(1, 6), 3),
    "stripe": Corruption(lambda x, w, _: np.where(abs(COLUMNS - 13.5) < w, x, 1 - x), STRIPE, 5),
    "fog": Corruption(_fog, FOG, 5, unseen_in_training=True),
    "spatter": Corruption(_spatter, SPATTER, 4, unseen_in_training=True),
    "dotted_line": Corruption(_dotted_line, range(1, 6), 1),
    "zigzag": Corruption(_zigzag, range(1, 6), 1),
    "canny_edges": Corruption(lambda x, s, _: np.stack([1.0 * canny(i, s) for i in x]), CANNY, 3),
}
CORRUPTIONS = {
    **MNIST_C,
    "thickness": Corruption(_thickness, FIFTHS, 3, unseen_in_training=True),
    "elastic": Corruption(_elastic, (0.5, 1.0, 1.5, 2.0, 2.5), 3),
    "occlusion": Corruption(_occlusion, (4, 6, 8, 10, 12), 3),
    "low_resolution": Corruption(_low_resolution, (0.8, 0.65, 0.5, 0.4, 0.3), 3),
    # Towards the negative: at 5 black on white.
    "inversion": Corruption(lambda x, share, _: (1 - share) * x + share * (1 - x), FIFTHS, 5),
}

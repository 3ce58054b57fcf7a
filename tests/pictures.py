"""Pictures of handwritten digits: recorded strokes laid on paper, textured and shaded.

    python -m tests.pictures FOLDER RECORDINGS SEED...

writes one of each kind for each seed, with labels.json, for scripts/score_pictures.py. RECORDINGS:
a file {"drawings": [{writer, digit, strokes}]}.
"""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

KINDS = (
    "plain lined squared margin table frame shadow fold whiteboard blackboard pencil "
    "turned turned_squared blurred small one desk large dotted hand marker ballpoint coloured "
    "perspective crowded edge crop".split()
)
INKS = ((0, 0, 0), (0, 0, 110), (130, 0, 0), (0, 70, 30))  # added to black: blue, red, green
SCALE = 3  # drawn larger, for smooth edges


def made(
    recordings: Sequence[dict[str, Any]], kind: str, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """A picture uint8 (height, width, 3), and its rows of digits from top to bottom.

    `recordings` are drawings {digit, strokes: [{points}]}; one of KINDS says what is hard.
    """
    digits = [d for d in recordings if 0 <= d["digit"] <= 9]
    rows, longest = (1, 1) if kind == "one" else (rng.integers(1, 5), rng.integers(1, 9))
    tall = {"small": rng.uniform(25, 45), "large": rng.uniform(120, 300)}.get(
        kind, rng.uniform(45, 120)
    )
    pitch = tall * rng.uniform(1.5, 2.2)
    aside = {"edge": 0.15, "crop": 0.4}.get(kind, rng.uniform(0.6, 1.2))
    width, height = (int(v) for v in (tall * (1.1 * longest + 2 * aside), pitch * (rows + 1)))
    ink = Image.new("L", (SCALE * width, SCALE * height))
    pen = ImageDraw.Draw(ink)
    told = []
    thin, wide = {"marker": (0.15, 0.22), "ballpoint": (0.025, 0.05)}.get(kind, (0.05, 0.14))
    thick = rng.uniform(thin, wide) * tall
    for row in range(rows):
        x, text = tall * aside, ""
        for _ in range(longest if rng.random() < 0.5 else rng.integers(1, longest + 1)):
            drawing = digits[rng.integers(len(digits))]
            base = pitch * (row + 1.0) + tall * (0.25 + rng.normal(0, 0.05))
            x += _draw(pen, drawing, x, base, tall * rng.uniform(0.88, 1.12), thick)
            between = (-0.06, 0.1) if kind == "crowded" else (0.06, 0.35)
            x += tall * (rng.uniform(*between) if rng.random() < 0.9 else 1)
            text += str(drawing["digit"])
        told.append(text)
    drawn = np.asarray(ink.resize((width, height), Image.Resampling.BOX), float) / 255
    turn = rng.uniform(-20, 20) if kind.startswith("turned") else rng.normal(0, 1)
    return _photographed(drawn, kind, tall, pitch, turn, rng), told


def _draw(
    pen: Any, drawing: dict[str, Any], x: float, base: float, tall: float, thick: float
) -> float:
    """Draws it standing on `base` from `x` on, and returns its width."""
    points = np.concatenate([stroke["points"] for stroke in drawing["strokes"]])
    low, size = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-3)
    k = tall / max(size[1], 0.7 * size[0])
    for stroke in drawing["strokes"]:
        at = (np.array(stroke["points"]) - low) * k + [x, base - size[1] * k]
        line = [tuple(SCALE * p) for p in at]
        pen.line(line, fill=255, width=max(1, round(SCALE * thick)), joint="curve")
        r = SCALE * thick / 2
        for a, b in (line[0], line[-1]):
            pen.ellipse((a - r, b - r, a + r, b + r), fill=255)
    return float(size[0] * k)


def _turned(values: np.ndarray, degrees: float) -> np.ndarray:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC, expand=True), float)


def _rules_of(kind: str, shape: tuple[int, ...], tall: float, pitch: float, parts: int) -> Any:
    if kind == "squared" or kind == "turned_squared":
        rules = _ruled(shape, pitch / parts, True, tall)
    elif kind == "table":
        rules = 2.2 * _ruled(shape, pitch, False, tall)
        rules[:, int(0.3 * tall) : int(0.3 * tall) + 3] = 0.9
    elif kind in ("lined", "margin", "small", "crop"):
        rules = _ruled(shape, pitch, False, tall)
        if kind == "margin":
            rules[:, int(0.4 * tall) : int(0.4 * tall) + 2] = 0.5
    elif kind == "dotted":
        rules = _ruled(shape, pitch / 3, True, 2 * tall)
        rules *= (rules == 1.4) / 1.4
    else:
        rules = np.zeros(shape)
    if kind == "frame":
        edge = int(0.25 * tall)
        for part in (rules[edge:-edge, edge : edge + 3], rules[edge:-edge, -edge - 3 : -edge]):
            part[:] = 0.9
        for part in (rules[edge : edge + 3, edge:-edge], rules[-edge - 3 : -edge, edge:-edge]):
            part[:] = 0.9
    return rules


def _photographed(
    drawn: np.ndarray, kind: str, tall: float, pitch: float, turn: float, rng: np.random.Generator
) -> np.ndarray:
    rules = _rules_of(kind, drawn.shape, tall, pitch, rng.integers(2, 5))
    drawn, rules = _turned(drawn, turn), _turned(rules, turn)
    if kind == "perspective":
        drawn, rules = _in_perspective([drawn, rules], rng)
    shape = drawn.shape
    dark = kind == "blackboard"
    paper = rng.uniform(40, 75) if dark else rng.uniform(150, 235)
    ink = rng.uniform(190, 245) if dark else rng.uniform(15, 80)
    if kind == "pencil":
        ink = paper - rng.uniform(38, 65)
        drawn = drawn * np.clip(1 + gaussian_filter(rng.normal(0, 1, shape), 1.5) * 1.2, 0.5, 1.2)
    rules = rng.uniform(0.4, 1.2) * rules
    grey = paper + (ink - paper) * np.clip(np.maximum(drawn, rules), 0, 1)
    if kind == "desk":
        grey = _on_a_desk(grey, tall, rng)
    grey *= _light(grey.shape, kind, rng)
    grey = gaussian_filter(grey, tall * 0.035 if kind == "blurred" else 0.8)
    grey += gaussian_filter(rng.normal(0, 1, grey.shape), 1) * rng.uniform(2, 8)
    grey += rng.normal(0, rng.uniform(1, 5), grey.shape)
    tint = 1 + rng.uniform(-1, 1, 3) * (0.3 if kind == "coloured" else 0.06)
    colour = np.array(INKS[rng.integers(len(INKS))]) * (not dark and kind != "pencil")
    image = grey[:, :, None] * tint
    if grey.shape == drawn.shape:
        image += np.clip(drawn, 0, 1)[:, :, None] * colour
    image = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if kind == "crop":  # of a larger photograph
        image.thumbnail((150, 150))
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=int(rng.integers(35, 92)))
    return np.asarray(Image.open(stored))


def _in_perspective(planes: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """As seen from the side or from below, by up to a sixth of the picture."""
    height, width = planes[0].shape
    out = rng.uniform(-0.16, 0, (4, 2)) * [width, height] * [[1, 1], [1, -1], [-1, -1], [-1, 1]]
    corners = np.add(out, [[0, 0], [0, height], [width, height], [width, 0]])
    quad = tuple(corners.ravel())
    images = [Image.fromarray(one.astype(np.float32)) for one in planes]
    way = Image.Transform.QUAD
    return [np.asarray(one.transform((width, height), way, quad, 2), float) for one in images]


def _on_a_desk(paper: np.ndarray, tall: float, rng: np.random.Generator) -> np.ndarray:
    """Paper that ends within the picture, on something darker."""
    edge = int(tall)
    grey = np.pad(paper, edge, constant_values=rng.uniform(20, 110))
    y = np.mgrid[0 : grey.shape[0], 0 : grey.shape[1]][0]
    grain = gaussian_filter(rng.normal(0, 1, grey.shape), (1, 12)) * 60 + 4 * np.sin(y / 9)
    inside = np.pad(np.ones(paper.shape), edge)
    return np.where(inside > 0, grey, grey + grain)


def _ruled(shape: tuple[int, ...], pitch: float, squared: bool, tall: float) -> np.ndarray:
    rules = np.zeros(shape)
    wide = max(1, round(0.025 * tall))
    for at in np.arange(pitch * (0.6 if squared else 1.27), shape[0], pitch).astype(int):
        rules[at : at + wide] += 0.7
    for at in np.arange(pitch / 2, shape[1] if squared else 0, pitch).astype(int):
        rules[:, at : at + wide] += 0.7
    return rules


def _light(shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> np.ndarray:
    """How bright each place is: slopes, a blot, the shadow of a hand, or folds."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / max(shape)
    a, b, c = rng.uniform(-0.25, 0.25, 3)
    light = 1 + a * x + b * y + c * x * y - 0.1

    def turn(angle: float) -> np.ndarray:
        return x * np.cos(angle) + y * np.sin(angle)

    if kind == "shadow":
        edge = turn(rng.uniform(0, 6.3)) - rng.uniform(0.1, 0.5)
        light *= 1 - rng.uniform(0.3, 0.5) / (1 + np.exp(-edge * rng.uniform(20, 120)))
    if kind == "hand":  # fingers: soft round shadows from one side
        for at in rng.uniform(0, 1, 4):
            away = np.hypot((x - rng.uniform(0.6, 1)) / 2, y - at)
            light *= 1 - 0.35 / (1 + np.exp((away - rng.uniform(0.08, 0.2)) * rng.uniform(30, 90)))
    if kind == "whiteboard":  # a lamp
        away = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
        light += rng.uniform(0.2, 0.6) * np.exp(-((away / rng.uniform(0.05, 0.25)) ** 2))
    if kind == "fold":
        for _ in range(2):
            edge = turn(rng.uniform(0, 6.3)) - rng.uniform(0.1, 0.5)
            light += 0.09 * np.tanh(edge * 60) * np.exp(-((edge * 12) ** 2))
            light -= 0.15 * np.exp(-((edge * max(shape) / 1.5) ** 2))
    return np.clip(light, 0.3, 1.6)


def main(folder: str, recordings: str, *seeds: str) -> None:
    """Writes the pictures; each is of one writer with at least ten drawings."""
    writers: dict[Any, list[dict[str, Any]]] = {}
    for drawing in json.loads(Path(recordings).read_text())["drawings"]:
        writers.setdefault(drawing["writer"], []).append(drawing)
    hands = [drawings for _, drawings in sorted(writers.items()) if len(drawings) >= 10]
    labels = []
    for seed in map(int, seeds):
        for i, kind in enumerate(KINDS):
            rng = np.random.default_rng(1000 * seed + i)
            image, rows = made(hands[rng.integers(len(hands))], kind, rng)
            labels.append({"file": f"{kind}{seed}.png", "rows": rows})
            Image.fromarray(image).save(Path(folder, labels[-1]["file"]))
    Path(folder, "labels.json").write_text(json.dumps(labels))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Recorded drawings in the page's form: read, prepared as the page does, and scored."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist_cnn.browser import node
from mnist_cnn.learning.handwriting import SIDE
from mnist_cnn.parameters import UserError

PAGE = Path(__file__).parent / "static"
STROKES = PAGE / "strokes.json"  # written by scripts/write_strokes.py
LARGEST, MOST, LONGEST = 64 * 2**20, 100_000, 20_000  # bytes, drawings, points of a drawing


@dataclass(frozen=True)
class Drawings:
    """Images float32 (n, 28, 28, 1) in [0, 1], labels int (n,), -1 for no digit, writers (n,)."""

    images: np.ndarray
    labels: np.ndarray
    writers: np.ndarray


def read(path: str | Path | None = None) -> Drawings:
    """The drawings of a JSON file, by default the project's own, through the page's JavaScript.

    The file holds a list of {digit, strokes: [{points: [[x, y], ...]}, ...]}, or {"drawings": that
    list}; `writer` or `hand` may say who drew. Raises UserError for any other file.
    """
    path = Path(path or STROKES)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        found = _checked(content)
    except OSError as error:
        raise UserError(f"drawings={path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"drawings={path} is no file of drawings: {error}.") from None
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "drawings.json")
        source.write_text(json.dumps(found), encoding="utf-8")  # what was checked, nothing else
        node.run(PAGE / "replay.mjs", str(source), f"{scratch}/out")
        images = np.fromfile(f"{scratch}/out.prepared.f32", "<f4").reshape(-1, SIDE, SIDE, 1)
    labels = np.array([drawing["digit"] for drawing in found])
    return Drawings(images, labels, np.array([drawing["writer"] for drawing in found]))


def _checked(content: object) -> list[dict]:
    """The drawings of a file's content, with digit, writer and strokes only. Raises ValueError."""
    if isinstance(content, dict):
        content = content.get("drawings")
    if not isinstance(content, list) or not 0 < len(content) <= MOST:
        raise ValueError(f"it holds no list of 1 to {MOST:,} drawings")
    found = []
    for number, drawing in enumerate(content):
        if not isinstance(drawing, dict):
            raise ValueError(f"drawing {number} is no object")
        digit = drawing.get("digit")
        if type(digit) is not int or not -1 <= digit <= 9:
            raise ValueError(f"the digit of drawing {number} is no whole number from -1 to 9")
        writer = str(drawing.get("writer", drawing.get("hand", "")))[:100]
        strokes = drawing.get("strokes")
        if not isinstance(strokes, list) or not all(_is_stroke(stroke) for stroke in strokes):
            raise ValueError(f"the strokes of drawing {number} hold no lists of points [x, y]")
        if not 0 < sum(len(stroke["points"]) for stroke in strokes) <= LONGEST:
            raise ValueError(f"drawing {number} has not 1 to {LONGEST:,} points")
        lines = [{"points": stroke["points"]} for stroke in strokes]
        found.append({"digit": digit, "writer": writer, "strokes": lines})
    return found


def _is_stroke(stroke: object) -> bool:
    points = stroke.get("points") if isinstance(stroke, dict) else None
    return isinstance(points, list) and all(
        isinstance(point, list)
        and len(point) == 2
        and all(type(x) in (int, float) and math.isfinite(x) and abs(x) <= 100 for x in point)
        for point in points
    )

"""Recorded drawings in the page's form: checked and prepared by JavaScript, as the page does."""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist_cnn.browser import node
from mnist_cnn.learning.handwriting import SIDE
from mnist_cnn.parameters import UserError

STROKES = Path(__file__).parent / "static/strokes.json"  # written by scripts/write_strokes.py


class Drawings(NamedTuple):
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
    with tempfile.TemporaryDirectory() as scratch:
        told = json.loads(node.run("drawings.mjs", str(path), f"{scratch}/images"))
        if "error" in told:
            raise UserError(f"drawings={path} is no file of drawings: {told['error']}.")
        images = np.fromfile(f"{scratch}/images", "<f4").reshape(-1, SIDE, SIDE, 1)
    return Drawings(images, np.array(told["labels"]), np.array(told["writers"]))

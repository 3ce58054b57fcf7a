"""Writes mnist_cnn/browser/static/strokes.json, the drawings that convert scores a model on.

Run as `python -m scripts.write_strokes` from the top folder; a test compares the file with it.
"""

import json

from mnist_cnn.browser.drawings import STROKES
from mnist_cnn.learning.handwriting import recordings

if __name__ == "__main__":
    lines = ",\n".join(json.dumps(drawing, separators=(",", ":")) for drawing in recordings())
    STROKES.write_text(f"[\n{lines}\n]\n", encoding="utf-8")

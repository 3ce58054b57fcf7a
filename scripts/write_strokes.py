"""Writes mnist_cnn/browser/static/strokes.json, the drawings that convert scores a model on.

Run as `python -m scripts.write_strokes` from the top folder; a test compares the file with it.
"""

import json

import numpy as np

from mnist_cnn.browser.drawings import STROKES
from mnist_cnn.learning.handwriting import draw, mixtures, ways


def recordings() -> list[dict]:
    """Drawings as the page records them: {digit, hand, strokes: [{width, points}]}.

    Twelve hands write every digit; the hands after them draw what is no digit (-1). Another seed
    than any of `generated`.
    """
    rng = np.random.default_rng(2026)
    known = [*ways(), *mixtures(rng)]
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


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(drawing, separators=(",", ":")) for drawing in recordings())
    STROKES.write_text(f"[\n{lines}\n]\n", encoding="utf-8")

"""Score a folder of pictures of digits through the JavaScript of the page.

    python -m scripts.score_pictures FOLDER [OUT]

FOLDER holds pictures and labels.json: a list of {file, rows: ["12", "345"]}. OUT is what `convert`
wrote (`out`). Digits are read rightly in their rows by edit distance: a missed, an invented and a
wrong one count alike; rows are aligned so that the fewest are wrong.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mnist_cnn.browser import node

LOOKED = 448  # pixels of the longer side, as in photo.js
SCRIPT = Path(__file__).with_suffix(".mjs").absolute()


def read(pictures: Sequence[Any], page: Path) -> list[dict[str, Any]]:
    """What the page's JavaScript reads in pictures uint8 (height, width, 3 or 4).

    Each is {rows: [[{digit, state, at}]], milliseconds, drawn}, where 40 drawn digits take `drawn`
    milliseconds; UserError if Node fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        jobs = []
        for i, picture in enumerate(pictures):
            image = Image.fromarray(np.asarray(picture)).convert("RGBA")
            sides = [max(1, round(side * LOOKED / max(image.size))) for side in image.size]
            image = image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
            Path(scratch, str(i)).write_bytes(image.tobytes())
            size = {"width": image.width, "height": image.height}
            jobs.append({"file": str(Path(scratch, str(i))), **size})
        path = Path(scratch, "jobs.json")
        path.write_text(json.dumps(jobs))
        told: list[dict[str, Any]] = json.loads(
            node.run(SCRIPT, str(page / "digits.html"), str(path))
        )
    return told


def texts(told: dict[str, Any]) -> list[str]:
    """The rows of a picture that was read, as text."""
    return ["".join(str(found["digit"]) for found in row) for row in told["rows"]]


def distance(
    a: Sequence[Any],
    b: Sequence[Any],
    alone: Callable[[Any], int] = lambda _: 1,
    both: Callable[[Any, Any], int] = lambda x, y: int(x != y),
) -> int:
    """Edit distance (Levenshtein 1966), with the cost of one alone and of one for another."""
    costs = [0]
    for y in b:
        costs.append(costs[-1] + alone(y))
    for x in a:
        last, costs = costs, [costs[0] + alone(x)]
        for j, y in enumerate(b):
            changed = last[j] + both(x, y)
            costs.append(min(last[j + 1] + alone(x), costs[j] + alone(y), changed))
    return costs[-1]


def errors(rows: Sequence[str], found: Sequence[str]) -> int:
    """Digits of `rows` that are missed or wrong in `found`, and those that are invented."""
    return distance(rows, found, len, distance)


def main(folder: str, out: str = "out") -> None:
    """Prints the pictures with errors, the share of digits that are right, and how long it took."""
    labels = json.loads(Path(folder, "labels.json").read_text())
    images = [ImageOps.exif_transpose(Image.open(Path(folder, label["file"]))) for label in labels]
    told = read([image.convert("RGB") for image in images], Path(out))
    wrong = total = 0
    for label, one in zip(labels, told, strict=True):
        found = texts(one)
        digits, mistakes = sum(map(len, label["rows"])), errors(label["rows"], found)
        wrong, total = wrong + mistakes, total + digits
        if mistakes:
            print(f"{label['file']}: {' '.join(label['rows'])} read as {' '.join(found) or '-'}")
    share = f"{100 * (1 - wrong / total):.1f}% of {total} digits in {len(told)} pictures"
    picture, drawn = (np.median([one[name] for one in told]) for name in ("milliseconds", "drawn"))
    print(
        f"{share} are read rightly; a picture takes {picture:.0f} ms, 40 drawn digits {drawn:.0f}."
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

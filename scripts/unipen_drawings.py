"""Write recordings of UNIPEN as drawings in the page's form, for `-P drawings=OUT.json`.

    python -m scripts.unipen_drawings FOLDER OUT.json [LABELS]

FOLDER is an unpacked train_r01_v07 (International Unipen Foundation, doi:10.5281/zenodo.1195803),
with data/ and include/. LABELS are the isolated characters wanted, by default 0123456789; a letter
becomes a drawing of no digit. The format is unipen.nici.ru.nl/unipen.def.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def statements(path: Path, include: Path) -> Iterator[tuple[str, str]]:
    """(keyword, text) of a file, with those of the files that it includes in their place."""
    content = path.read_text("latin-1") if path.is_file() else ""
    for statement in re.split(r"^\.(?=[A-Z])", content, flags=re.MULTILINE)[1:]:
        keyword, text = [*statement.split(None, 1), ""][:2]
        if keyword == "INCLUDE":
            yield from statements(include / text.strip(), include)
        else:
            yield keyword, text


def characters(path: Path, include: Path) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """(label, writer, strokes (n, 2), y down) of every character of a file that is whole strokes.

    Movements without ink count as components where they are recorded.
    """
    columns, writer, components = ["X", "Y"], path.stem, []
    for keyword, text in statements(path, include):
        if keyword == "COORD":
            columns = text.split()
        elif keyword == "WRITER_ID":
            writer = text.strip()
        elif keyword in ("PEN_DOWN", "PEN_UP") and text.strip():
            points = np.array(text.split(), float).reshape(-1, len(columns))
            points = points[:, [columns.index("X"), columns.index("Y")]] * [1, -1]
            components.append(points if keyword == "PEN_DOWN" else None)
        elif keyword == "SEGMENT":
            segment = re.fullmatch(r'CHARACTER\s+([\d,-]+)\s+\S+\s+"(\S)"\s*', text)
            ranges = [part.split("-") for part in segment[1].split(",")] if segment else []
            numbers = [n for part in ranges for n in range(int(part[0]), int(part[-1]) + 1)]
            strokes = [components[n] for n in numbers if n < len(components)]
            drawn = [stroke for stroke in strokes if stroke is not None]
            if segment and drawn:
                yield segment[2], writer, drawn


def drawing(label: str, writer: str, strokes: list[np.ndarray]) -> dict:
    """The recording in the middle of the page's pad, 0.6 of it large."""
    points = np.concatenate(strokes)
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    scale = 0.6 / max(size.max(), 1)
    placed = [0.5 + scale * (stroke - low - size / 2) for stroke in strokes]
    lines = [{"width": 0.05, "points": stroke.round(3).tolist()} for stroke in placed]
    return {"digit": int(label) if label.isdigit() else -1, "writer": writer, "strokes": lines}


def main(folder: str, out: str, labels: str = "0123456789") -> None:
    """Write the drawings of categories 1a, 1b and 1c: digits, capitals and small letters."""
    found = [
        drawing(label, f"{path.relative_to(category).parts[0]}/{writer}", strokes)
        for category in sorted(Path(folder, "data").glob("1[abc]"))
        for path in sorted(category.rglob("*.dat"))
        for label, writer, strokes in characters(path, Path(folder, "include"))
        if label in labels
    ]
    Path(out).write_text(json.dumps({"drawings": found}, separators=(",", ":")), encoding="utf-8")
    print(f"{len(found)} drawings by {len({each['writer'] for each in found})} writers")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""scripts/unipen_drawings.py on lines in UNIPEN's format."""

import json

from mnist_cnn.browser import drawings
from scripts import unipen_drawings

PEN = """
.COORD T X Y
.WRITER_ID Ann
.PEN_DOWN
  1 200 900
  2 200 300
.PEN_UP
.PEN_DOWN
  3 100 900
  4 100 600
  5 300 600
.PEN_UP
  6 300 700
.PEN_DOWN
  7 250 900
  8 250 300
"""
DATA = """.VERSION 1.0
.INCLUDE abc/pen/ann.dat
.SEGMENT CHARACTER 0 ? "1"
.SEGMENT CHARACTER 1-3 OK "4"
.SEGMENT CHARACTER 1:0-1:1 ? "7"
.SEGMENT WORD 0-3 ? "14"
.SEGMENT CHARACTER 0 ? "l"
.SEGMENT CHARACTER 9 ? "9"
"""


def test_digits_and_letters_of_unipen_become_drawings_that_evaluate_reads(tmp_path):
    for name, text in (("include/abc/pen/ann.dat", PEN), ("data/1a/abc/ann.dat", DATA)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    out = tmp_path / "out.json"

    unipen_drawings.main(str(tmp_path), str(out), "0123456789l")

    one, four, _ = json.loads(out.read_text())["drawings"]
    assert one["strokes"] == [{"width": 0.05, "points": [[0.5, 0.2], [0.5, 0.8]]}]
    assert [stroke["points"][-1] for stroke in four["strokes"]] == [[0.6, 0.5], [0.55, 0.8]]
    read = drawings.read(out)
    assert read.labels.tolist() == [1, 4, -1] and set(read.writers) == {"abc/Ann"}
    assert read.images[0, :, 14].sum() > read.images[0, :, 7].sum()  # upright

    unipen_drawings.main(str(tmp_path), str(out))
    assert [each["digit"] for each in json.loads(out.read_text())["drawings"]] == [1, 4]

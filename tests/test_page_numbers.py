"""Whole numbers on the page: split into digits, drawn by mouse, finger and keys."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.page import ALL, PHONE, THREE, look, number_of


def split_and_read(numbers):
    """Steps that put numbers through the page's own code; the last one tells of each its split."""
    script = """(numbers) => numbers.map((lines) => {
      ink.replace(lines.map((points) => ({id: ++ink.begun, width: 0.05, points})));
      return split(lines, answerTo).map((row) => row.map((group) => group.strokes));
    })"""
    return ("eval", f"({script})({json.dumps(numbers)})")


def test_numbers_are_split_into_their_digits(written):
    rng = np.random.default_rng(0)
    hands = [[d for d in ALL if d["hand"] == hand] for hand in range(12)]
    numbers = [
        number_of([hand[i] for i in rng.integers(10, size=3)], rng.uniform(0.08, 0.4))
        for hand in hands
        for _ in range(8)
    ]
    (told,) = look(written, split_and_read([strokes for strokes, _ in numbers]))
    right = 0
    for (strokes, counts), rows in zip(numbers, told, strict=True):
        wanted = [list(part) for part in np.split(np.arange(len(strokes)), np.cumsum(counts)[:-1])]
        right += rows == [wanted]
    assert right >= 0.95 * len(numbers), right
    seven, five = (next(d for d in hands[0] if d["digit"] == digit) for digit in (7, 5))
    one = [[0.2, 0.1], [0.2, 0.5]]
    below = np.array([0.5, 0.6])
    two_rows = [one, *(np.array(line) + below for line in number_of([seven])[0])]
    late_bar = [*number_of([seven, five])[0], [[0.22, 0.5], [0.5, 0.5]]]
    given = [[np.array(line).tolist() for line in lines_] for lines_ in (two_rows, late_bar, [])]
    rows, bar, none = look(written, split_and_read(given))[0]
    assert [len(row) for row in rows] == [1, 1]
    assert len(late_bar) - 1 in bar[0][0], "a bar that came last is the 7's"
    assert none == []


@pytest.mark.parametrize("options", [{}, PHONE], ids=["mouse", "finger"])
def test_a_number_is_drawn_and_read(written, options):
    one, ((three,), _) = [[0.1, 0.3], [0.1, 0.7]], number_of([THREE])
    single, _, empty, _, read, labels, over, _, undone, _, again = look(
        written,
        ("data", "#number"),
        ("click", "label:has([value=number])"),
        ("data", "#number"),
        ("draw", [one, three]),
        ("data", "#number"),
        ("eval", "[...document.querySelectorAll('#labels span')].map((e) => e.textContent[0])"),
        ("eval", "document.documentElement.scrollWidth - innerWidth"),
        ("press", "Control+z"),
        ("data", "#number"),
        ("click", "#clear"),
        ("data", "#number"),
        **options,
    )
    assert single["state"] == empty["state"] == again["state"] == "empty"
    assert (read["state"], read["value"][0], len(read["value"])) == ("read", "1", 2)
    assert "".join(labels) == read["value"]
    assert undone["value"] == "1"
    assert over == 0


def test_a_number_by_keys(written):
    line = [" ", *["ArrowDown"] * 9, " "]
    steps = [("click", "label:has([value=number])"), ("focus", "#pad"), ("press", "ArrowUp")]
    steps += [("press", *line, *["ArrowRight"] * 6, *["ArrowUp"] * 9, *line), ("data", "#number")]
    assert look(written, *steps)[-1]["value"] == "11"


@pytest.mark.skipif("NUMBERS" not in os.environ, reason="NUMBERS: a file of [{number, strokes}]")
def test_recorded_numbers_are_split_and_read():
    """PAGE: that of `accurate`, out/digits.html."""
    numbers = json.loads(Path(os.environ["NUMBERS"]).read_text())
    wanted = [[number["number"]] for number in numbers]
    given = [[stroke["points"] for stroke in number["strokes"]] for number in numbers]
    script = """(numbers) => numbers.map((lines) => {
      ink.replace(lines.map((points) => ({id: ++ink.begun, width: 0.05, points})));
      const rows = split(lines, answerTo).map((row) => row.map(({strokes}) => answerTo(strokes)));
      return rows.map((row) => row.map(({digit}) => digit).join(''));
    })"""
    url = Path(os.environ["PAGE"]).absolute().as_uri()
    (told,) = look(url, ("eval", f"({script})({json.dumps(given)})"))
    pairs = list(zip(told, wanted, strict=True))
    split = np.mean([[*map(len, rows)] == [*map(len, number)] for rows, number in pairs])
    read = np.mean([rows == number for rows, number in pairs])
    print(f"split {split:.3f}, read {read:.3f}")
    assert split >= 0.98
    assert read >= 0.9

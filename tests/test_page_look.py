"""What the page shows and says: pixels, places, announcements, in a real Chromium.

README's pictures: PAGE=out/digits.html SCREENSHOTS=docs pytest -m slow -k test_pictures
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_cnn import cli
from mnist_cnn.browser import node
from tests.conftest import ROOT
from tests.page import ALL, EIGHT, PHONE, THREE, lines, look, number_of

# Every answer can be made sure, unsure or none.
LIMITS = {"sure": (0, 0), "unsure": (2, 0), "none": (2, 2)}


def made(state):
    sure_from, none_below = LIMITS[state]
    return (
        "eval",
        f"void Object.assign(settings, {{sure_from: {sure_from}, none_below: {none_below}}})",
    )


def ink(path, dark=False):
    """Share of the pixels of a screenshot of the pad that are of the pen's colour."""
    gray = np.asarray(Image.open(path).convert("L"))
    return float((gray > 200 if dark else gray < 80).mean())


def test_a_tap_is_a_dot_and_what_was_cleared_is_gone(written, tmp_path):
    names = [str(tmp_path / f"{name}.png") for name in ("cleared", "dot", "drawn")]
    steps = [("draw", lines(THREE)), ("click", "#clear"), ("shot", names[0], "#pad")]
    steps += [("draw", [[[0.25, 0.75]]]), ("shot", names[1], "#pad")]
    steps += [("draw", lines(THREE)), ("shot", names[2], "#pad")]
    for dark in (False, True):
        look(written, *steps, dark=dark)
        cleared, dot, drawn = (ink(name, dark) for name in names)
        assert drawn > 0.03
        assert cleared < 0.003, "nothing is left but the hint"
        assert 0.004 < dot < 0.008, "a circle as wide as the pen: pi/4 0.085²"


def test_undo_brings_back_what_was_cleared_and_redo_clears_it_again(written, tmp_path):
    names = [str(tmp_path / f"{number}.png") for number in range(6)]
    told = look(
        written,
        ("draw", lines(THREE)),
        ("shot", names[0], "#pad"),
        ("click", "#clear"),
        ("press", "Control+z"),
        ("shot", names[1], "#pad"),
        ("press", "Control+Shift+z"),
        ("shot", names[2], "#pad"),
        ("press", "Control+Z"),  # with Caps Lock
        ("shot", names[3], "#pad"),
        ("click", "#redo"),
        ("data", "#answer"),
        ("click", "#undo"),
        ("data", "#answer"),
    )
    drawn, back, again, caps = (ink(name) for name in names[:4])
    assert drawn == back == caps > again + 0.02
    assert told[10]["state"] == "empty"
    assert told[12]["state"] != "empty"


def test_a_stroke_that_begins_outside_is_drawn_from_the_edge(written, tmp_path):
    name = str(tmp_path / "pad.png")
    line = [[-0.03, 0.5], *([x / 10, 0.5] for x in range(1, 8))]
    for options in ({}, PHONE):
        look(written, ("draw", [line]), ("shot", name, "#pad"), **options)
        assert 0.04 < ink(name) < 0.09


WORDS = {"sure": "This is an 8.", "unsure": "Perhaps an 8?", "none": "This is no digit."}


@pytest.mark.parametrize("size", [(1280, 720), (390, 844), (320, 640)], ids=str)
def test_nothing_jumps_whatever_is_said(written, size):
    """And the network's picture is whole on a phone; percentages stand on one line."""
    steps = [("box", "#seen")]
    for state in LIMITS:
        steps += [made(state), ("draw", lines(EIGHT)), ("box", "#seen"), ("data", "#answer")]
        steps += [("box", "#share"), ("click", "#clear"), ("box", "#seen")]
    width, height = size
    first, *told = look(written, *steps, width=width, height=height, touch=width < 500)
    for state, (_, _, drawn, answer, share, _, cleared) in zip(
        LIMITS, np.array(told, object).reshape(3, 7), strict=True
    ):
        assert first == drawn == cleared
        assert answer["state"] == state
        assert WORDS[state] in answer["text"]
        assert state == "none" or share["height"] < 30
    if size == (390, 844):
        assert first["y"] + first["height"] <= 844


LISTEN = """window.heard = [];
const live = '[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log], output';
for (const region of document.querySelectorAll(live)) {
  new MutationObserver(() => heard.push(region.textContent)).observe(
    region, {childList: true, subtree: true, characterData: true});
}"""


def test_an_answer_is_announced_once_and_when_the_pen_rests(written):
    *first, last = lines(EIGHT)
    told = look(
        written,
        ("for", "element('spoken').textContent"),
        ("eval", LISTEN),
        ("draw", [*first, last, [[0.5, 0.5], [0.51, 0.5]]], 15, True),
        ("eval", "void (heard.length = 0)"),
        ("draw", [last], 30, True),
        ("wait", 1500),
        ("eval", "heard"),
        ("lift",),
        ("for", "heard.length"),
        ("wait", 1500),
        ("eval", "heard"),
        ("click", "#clear"),
        ("for", "heard.length == 2"),
        ("draw", lines(EIGHT)),
        ("for", "heard.length == 3"),
        ("eval", "heard"),
    )
    assert told[6] == [], "nothing while the pen is down"
    assert len(told[10]) == 1
    assert re.search(r"\b\d\b|no digit", told[10][0])
    assert "Draw" in told[15][1]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_state_has_a_form_of_its_own(written, tmp_path, dark):
    """Told without colour and words too: the pictures differ in grey."""
    steps = []
    for state in LIMITS:
        steps += [made(state), ("click", "#clear"), ("draw", lines(EIGHT))]
        steps += [("eval", "for (const id of ['words', 'share']) element(id).textContent = ''")]
        steps += [("shot", str(tmp_path / f"{state}.png"), "#answer")]
    look(written, *steps, dark=dark)
    seen = [np.asarray(Image.open(tmp_path / f"{s}.png").convert("L"), float) for s in LIMITS]
    for one, other in ((0, 1), (1, 2), (2, 0)):
        assert abs(seen[one] - seen[other]).mean() > 1


def test_bars_stay_in_order_and_the_winner_is_lit(written):
    order = "[...document.querySelectorAll('#bars li')].map((e) => e.textContent)"
    lit = "[...document.querySelectorAll('#bars li')].findIndex((e) => e.matches('.winner'))"
    steps = [made("sure"), ("eval", order), ("draw", lines(THREE)), ("eval", order), ("eval", lit)]
    _, before, _, after, winner, answer = look(written, *steps, ("data", "#answer"))
    assert before == [str(digit) for digit in range(10)]
    assert [text[0] for text in after] == before
    assert str(winner) == answer["digit"]


def test_targets_motion_keys_and_overflow(written):
    small = """[...document.querySelectorAll('button, summary, label, a[href]')].filter((e) => {
      const {width, height} = e.getBoundingClientRect();
      return e.checkVisibility() && Math.min(width, height) < 44;
    }).map((e) => e.outerHTML)"""
    steps = [("eval", "document.getAnimations().length"), ("click", "summary"), ("eval", small)]
    steps += [("eval", "getComputedStyle(document.querySelector('.keys')).display")]
    steps += [("eval", "document.documentElement.scrollWidth - innerWidth")]
    steps += [("eval", "document.querySelector('#network').textContent")]
    for options, keys in (({}, "inline"), ({"width": 320, "height": 500, "touch": True}, "none")):
        motion, _, targets, shown, over, network = look(written, *steps, **options)
        assert (motion, targets, shown, over) == (0, [], keys, 0)
        assert "version" in network
    running = "document.getAnimations().filter(({playState}) => playState === 'running').length"
    steps = [("eval", running), ("draw", lines(THREE), 0, True), ("wait", 500), ("lift",)]
    steps += [("draw", lines(EIGHT), 0, True), ("eval", running)]
    told = look(written, *steps, still=False)
    assert told[0] > 0
    assert told[-1] == 0, "each frame under the pen would be styled and laid out anew"


@pytest.mark.parametrize("options", [{}, {"dark": True}, PHONE], ids=["light", "dark", "phone"])
def test_axe_finds_nothing(written, options):
    axe = node.modules(ROOT / "tests" / "js") / "node_modules/axe-core/axe.min.js"
    found = ("eval", "axe.run().then(({violations}) => violations.map(({id}) => id))")
    steps = [("script", str(axe)), found, ("draw", lines(THREE)), ("click", "summary"), found]
    steps += [("click", "label:has([value=number])"), ("draw", lines(THREE)), found]
    told = look(written, *steps, **options)
    assert [told[1], told[4], told[7]] == [[], [], []]


def test_serve_says_what_a_folder_without_a_page_holds(tmp_path, capsys):
    assert cli.run(["serve", "--output", str(tmp_path)]) == 1
    assert "first mlflow run . -e convert" in capsys.readouterr().err
    (tmp_path / "model.json").write_text("{}")
    assert cli.run(["serve", "--output", str(tmp_path)]) == 1
    assert "its model reads no digits" in capsys.readouterr().err


def given(written):
    """The page that PAGE names, or else the small one."""
    return Path(os.environ["PAGE"]).absolute().as_uri() if "PAGE" in os.environ else written


@pytest.mark.skipif("STROKES" not in os.environ, reason="STROKES: a folder with unipen-dev.json")
def test_recorded_digits_are_read_at_the_speed_of_a_hand(written):
    """30 of them, a second each, drawn by the mouse."""
    recorded = json.loads(Path(os.environ["STROKES"], "unipen-dev.json").read_text())["drawings"]
    drawings = [recorded[i] for i in np.random.default_rng(0).permutation(len(recorded))[:30]]
    steps = []
    for drawing in drawings:
        pause = 1000 / sum(map(len, lines(drawing)))
        steps += [("click", "#clear"), ("draw", lines(drawing), pause), ("data", "#answer")]
    answers = look(given(written), *steps)[2::3]
    pairs = [(a["digit"], str(d["digit"])) for a, d in zip(answers, drawings, strict=True)]
    assert sum(read == drawn for read, drawn in pairs) >= 26, pairs


@pytest.mark.slow  # each is looked at by who makes it
def test_pictures(written, tmp_path):
    """Each state as README shows it."""
    url = given(written)
    target = Path(os.environ.get("SCREENSHOTS", tmp_path)).absolute()

    def take(name, drawn, mode="digit", **options):
        steps = [("click", f"label:has([value={mode}])"), ("draw", drawn), ("wait", 300)]
        look(url, *steps, ("shot", str(target / f"{name}.png")), **options)
        assert (target / f"{name}.png").stat().st_size < 150_000

    angle = np.linspace(-0.6, 2 * np.pi - 0.9, 40)  # an 8 in one stroke, slanted
    x, y = np.sin(2 * angle), -np.cos(angle)
    eight = np.stack([0.5 + 0.17 * x - 0.06 * y, 0.5 + 0.32 * y], axis=1).tolist()
    bows = [(0.31, 0.24), (0.4, 0.16), (0.52, 0.14), (0.64, 0.19), (0.67, 0.31), (0.6, 0.42)]
    bows += [(0.46, 0.47), (0.6, 0.49), (0.7, 0.59), (0.68, 0.74), (0.55, 0.84), (0.4, 0.83)]
    three = [*bows, (0.28, 0.73)]
    take("page", [three])
    take("page_dark", [eight], dark=True)
    take("page_phone", [three], **PHONE)
    hand = [d for d in ALL if d["hand"] == 3]
    number, _ = number_of([hand[digit] for digit in (4, 0, 7)], 0.35, 0.5)
    take("page_number", number, mode="number")

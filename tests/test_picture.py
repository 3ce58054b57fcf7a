"""Pictures of numbers are read: made ones, through the page's JavaScript with a real network."""

import json

import numpy as np
import pytest
from PIL import Image

from scripts.score_pictures import LOOKED, distance, errors, main, read, texts
from tests.page import PHONE, look, served
from tests.pictures import KINDS, made
from tests.test_page import BY_HAND

# Of turned squares pieces are left, and read as digits too often: docs/pictures.md.
SCORED = [kind for kind in KINDS if kind != "turned_squared"]


@pytest.fixture(scope="module")
def scored(written):
    """Of each kind: digits and errors."""
    jobs = [
        (kind, *made(BY_HAND[hand], kind, np.random.default_rng(100 * hand + i)))
        for i, kind in enumerate(KINDS)
        if kind in SCORED
        for hand in (3, 5, 7)
    ]
    told = read([image for _, image, _ in jobs], written)
    found = {kind: [0, 0] for kind in SCORED}
    for (kind, _, rows), one in zip(jobs, told, strict=True):
        found[kind][0] += sum(map(len, rows))
        found[kind][1] += errors(rows, texts(one))
    return found


@pytest.mark.parametrize("kind", SCORED)
def test_digits_are_read_on_paper_of_every_kind(scored, kind):
    digits, wrong = scored[kind]
    assert wrong <= max(2, digits / 3), scored[kind]


def test_most_digits_in_pictures_are_read_rightly(scored):
    digits, wrong = np.sum(list(scored.values()), axis=0)
    assert wrong < 0.15 * digits, scored


def test_paper_without_ink_has_no_digits(written):
    rng = np.random.default_rng(0)
    noise = rng.normal(200, 4, (300, 400, 3)).clip(0, 255).astype(np.uint8)
    blank = np.full((200, 200, 3), 255, np.uint8)
    assert [one["rows"] for one in read([noise, blank, blank[:1, :1]], written)] == [[], [], []]


def test_places_are_above_their_digit_in_a_turned_picture(written):
    image = np.full((300, 500), 240, np.uint8)
    for left in (80, 180, 280, 380):
        image[120:200, left : left + 9] = 20  # four ones
    turned = Image.fromarray(image).rotate(-12, fillcolor=240)
    (told,) = read([np.asarray(turned)], written)
    (row,) = told["rows"]
    assert len(row) == 4
    angle = np.deg2rad(12)
    away = np.array([[left + 4.5 - 250, 120 - 150] for left in (80, 180, 280, 380)])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    places = np.array([found["at"] for found in row]) * [500, 300]
    np.testing.assert_allclose(places, away @ turn + [250, 150], atol=6)


def test_digits_that_stand_on_a_dark_rule_are_read(written):
    image = np.full((300, 500), 235, np.uint8)
    for left in (100, 200, 300):
        image[110:200, left : left + 10] = 30
    image[198:202, :] = image[:, 40:44] = 30
    (told,) = read([image], written)
    assert texts(told) == ["111"]


def test_errors_count_missed_invented_and_wrong_digits():
    assert distance("kitten", "sitting") == 3
    assert errors(["123", "45"], ["123", "45"]) == 0
    assert errors(["123", "45"], ["12", "45"]) == errors(["12", "45"], ["123", "45"]) == 1
    assert errors(["123", "45"], ["123"]) == 2
    assert errors(["123", "45"], ["9", "123", "46"]) == 2


def test_a_folder_of_pictures_is_scored(written, tmp_path, capsys):
    image, rows = made(BY_HAND[3], "plain", np.random.default_rng(0))
    Image.fromarray(image).save(tmp_path / "one.png")
    Image.fromarray(image).save(tmp_path / "two.png")
    labels = [{"file": "one.png", "rows": rows}, {"file": "two.png", "rows": [*rows, "1"]}]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    main(str(tmp_path), str(written))
    out = capsys.readouterr().out
    assert "two.png" in out
    total = 2 * sum(map(len, rows)) + 1
    assert f"% of {total} digits in 2 pictures are read rightly" in out


@pytest.fixture
def four(tmp_path):
    """A picture of two rows, as a file."""
    ones = np.full((400, 600), 235, np.uint8)
    for top, lefts in ((60, (100, 200, 300)), (240, (100, 200))):
        for left in lefts:
            ones[top : top + 90, left : left + 10] = 30
    path = tmp_path / "ones.png"
    Image.fromarray(ones).save(path)
    return str(path)


PICTURE = ("click", "input[value=picture]")
NUMBER = ("eval", "({...document.getElementById('number').dataset})")


@pytest.mark.parametrize(
    ("way", "options"), [("choose", {}), ("drop", {}), ("paste", {}), ("choose", PHONE)]
)
def test_a_picture_given_to_the_page_is_read_and_corrected(written, four, way, options):
    """In digits.html, from a file, under its policy, in a worker; on a phone too."""
    steps = [PICTURE, ("give", "#picture", four, way)]
    steps += [("eval", "[...document.querySelectorAll('#marks select')].map((e) => e.offsetLeft)")]
    steps += [("select", "#marks select", "7"), NUMBER]
    steps += [("select", "#marks select:last-child", ""), NUMBER]
    told = look(written, *steps, **options)
    assert (told[1]["state"], told[1]["value"]) == ("read", "111\n11")
    places = told[2]
    assert len(places) == 5
    assert places == sorted(places[:3]) + sorted(places[3:])
    assert told[4]["value"] == "711\n11"
    assert told[6]["value"] == "711\n1"


def test_a_served_page_reads_pictures_in_a_worker_and_asks_for_nothing(written, four):
    """The script beside the worker cannot read pictures, so the page stays alive."""
    steps = [PICTURE, ("give", "#picture", four), NUMBER, ("eval", "typeof readPicture")]
    steps += [("eval", "performance.getEntriesByType('resource').map(({name}) => name)")]
    with served(written) as address:
        told = look(address, *steps)
    assert told[1]["value"] == "111\n11"
    assert told[3] == "undefined"
    assert [name for name in told[4] if not name.startswith("blob:")] == []


def test_a_transparent_picture_lies_on_white(written, four, tmp_path):
    ink = 255 - np.asarray(Image.open(four))
    black = Image.fromarray(np.dstack([np.zeros((*ink.shape, 3), np.uint8), ink * (ink > 99)]))
    black.save(tmp_path / "ink.png")
    told = look(written, PICTURE, ("give", "#picture", str(tmp_path / "ink.png")))
    assert told[1]["value"] == "111\n11"


def test_unsure_digits_are_marked_over_the_picture(written, tmp_path):
    image, _ = made(BY_HAND[5], "plain", np.random.default_rng(1))
    image = image[:LOOKED, :LOOKED].copy()  # neither the page nor Python reduces it
    assert max(image.shape) == LOOKED
    image[10:60, 10:60] = 30  # no digit
    Image.fromarray(image).save(tmp_path / "one.png")
    (told,) = read([image], written)
    states = [found["state"] == "sure" for row in told["rows"] for found in row]
    classes = ("eval", "[...document.querySelectorAll('#marks select')].map((e) => e.className)")
    *_, marks = look(written, PICTURE, ("give", "#picture", str(tmp_path / "one.png")), classes)
    assert marks == ["sure" if sure else "unsure" for sure in states]
    assert {*states} == {True, False}


def test_a_huge_picture_gets_a_sentence(written, tmp_path):
    Image.new("1", (10_001, 10_000)).save(tmp_path / "huge.png")
    _, told = look(written, PICTURE, ("give", "#picture", str(tmp_path / "huge.png")))
    assert told["text"] == "The picture has more than 100 million pixels."
    assert told["state"] == "empty"


def test_a_picture_that_is_none_gets_a_sentence(written, four, tmp_path):
    empty, broken, blank = (tmp_path / name for name in ("empty.png", "broken.png", "blank.png"))
    empty.touch()
    broken.write_bytes(b"\x89PNG\r\n")
    Image.fromarray(np.full((50, 50), 255, np.uint8)).save(blank)
    paths = [str(path) for path in (four, empty, broken, blank)]
    told = look(written, PICTURE, *[("give", "#picture", path) for path in paths])
    assert [one["state"] for one in told[1:]] == ["read", "empty", "empty", "read"]
    assert [one["value"] for one in told[2:]] == ["", "", ""]
    assert told[2]["text"] == "The file is empty."
    assert told[3]["text"] == "broken.png is no picture that this browser can open."
    assert told[4]["text"] == "No digits were found."

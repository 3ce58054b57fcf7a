"""The page in a real Chromium: drawn by mouse, finger and keys, served and as a single file."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest

from mnist_cnn import cli
from mnist_cnn.browser import drawings, node
from mnist_cnn.evaluation.certainty import certainty, drawing_metrics
from mnist_cnn.learning.data import load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.model import predict
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import FAST
from mnist_cnn.train import with_drawings
from scripts.write_strokes import recordings
from tests.conftest import ROOT, start
from tests.page import ALL
from tests.prepare import prepare

BY_HAND = [[d for d in ALL if d["hand"] == hand] for hand in range(12)]
MEDIUM = [d for d in BY_HAND[3] + BY_HAND[7]]  # two hands of middle size, one with a crossed 7


@pytest.fixture(scope="module")
def out(store):
    """A page with a network that has seen all of MNIST once."""
    assert cli.run(["train", "--epochs", "1"]) == 0
    assert cli.run(["convert"]) == 0
    return store / "out"


@pytest.fixture(scope="module")
def address(out, store):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(store, "serve", "--port", str(port))
    assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=10)
    assert (process.returncode, rest, err) == (0, "Stopped.\n", "")


@pytest.fixture(scope="module")
def visits(out, address, tmp_path_factory):
    """What each visit to the page saw, all in one Chromium.

    The README's picture: SCREENSHOT=docs/page.png pytest -k 'test_page and mouse'.
    """
    none = [d for d in ALL if d["digit"] < 0][:20]
    jobs = {
        "mouse": {"drawings": MEDIUM, "width": 760, "screenshot": os.environ.get("SCREENSHOT")},
        "finger": {"drawings": MEDIUM, "width": 380, "touch": True},
        "none": {"drawings": none},
        "file": {"url": (out / "digits.html").as_uri(), "drawings": BY_HAND[3], "truth": 3},
    }
    told = {"modules": str(node.modules(ROOT / "tests" / "js"))}
    told["visits"] = [{"url": f"{address}/", **job} for job in jobs.values()]
    path = tmp_path_factory.mktemp("visits") / "jobs.json"
    path.write_text(json.dumps(told))
    found = json.loads(node.run(ROOT / "tests" / "js" / "page.mjs", str(path)))
    return dict(zip(jobs, found, strict=True))


def held(told, origin):
    """What every visit must show, whatever was drawn."""
    assert told["opened"]["state"] == "empty"
    assert told["opened"]["digit"] == told["opened"]["probability"] == ""
    assert told["keys"]["digit"] == "1", "a vertical line by keys"
    assert told["undone"]["state"] == "empty"
    assert all(url.startswith((origin, "data:,")) for url in told["requests"][:-1])
    assert not told["evaluated"], "the policy forbids inline scripts"
    assert not told["fetched"], "the policy forbids other hosts"
    for problem in told["problems"]:
        assert "Content Security Policy" in problem, problem  # the two that we provoked


def read_rightly(told):
    for answer in told["answers"]:
        assert answer["cleared"] == "empty"
        assert answer["state"] in ("sure", "unsure", "none")
        assert (answer["digit"] == "") == (answer["state"] == "none")
        assert 0.1 <= float(answer["probability"]) <= 1
    return sum(answer["digit"] == str(answer["drawn"]) for answer in told["answers"])


@pytest.mark.parametrize("hand", ["mouse", "finger"])
def test_every_digit_drawn_is_read(visits, address, hand):
    told = visits[hand]
    assert told["opened"]["backend"] == "cpu"
    held(told, address)
    assert read_rightly(told) >= 18, [(a["drawn"], a["digit"]) for a in told["answers"]]
    assert told["overflow"] <= 0


def test_what_is_no_digit_is_said_to_be_none(visits):
    """The third state of the page."""
    states = [a["state"] for a in visits["none"]["answers"]]
    assert states.count("none") >= 10, states
    assert states.count("sure") <= 2, states


def test_single_file_without_a_server(out, visits, tmp_path):
    """What a person says of a drawing is saved to their own machine, in the form that is read."""
    told = visits["file"]
    assert told["opened"]["backend"] == "cpu"
    (tmp_path / "mine.json").write_text(told["saved"])
    (saved,) = json.loads(told["saved"])["drawings"]
    assert saved["digit"] == 3
    drawn = in_python([BY_HAND[3][-1]])[0]
    mine = drawings.read(tmp_path / "mine.json")
    assert abs(mine.images[0, :, :, 0] - drawn).mean() < 0.02
    held(told, (out / "digits.html").as_uri())
    assert read_rightly(told) >= 9


def in_javascript(tmp_path, recorded):
    (tmp_path / "drawings.json").write_text(json.dumps({"drawings": recorded}))
    node.run(
        drawings.STROKES.with_name("replay.mjs"),
        str(tmp_path / "drawings.json"),
        str(tmp_path / "out"),
    )
    return np.fromfile(tmp_path / "out.prepared.f32", "<f4").reshape(-1, 28, 28)


def in_python(recorded):
    return np.array([prepare([s["points"] for s in d["strokes"]]) for d in recorded])


def strokes(*lines):
    return {"strokes": [{"points": points} for points in lines]}


def test_python_prepares_as_javascript_does(tmp_path):
    odd = [
        strokes([[0.4, 0.6]]),  # a dot
        strokes([[0.1, 0.5], [0.9, 0.5]]),
        strokes([[0.3, 0.3], [0.3, 0.3], [0.301, 0.3], [0.7, 0.9]], [[0.99, 0.01], [0.991, 0.01]]),
        strokes([[-1, 0.2], [2, 0.2]], [], [[0.5, 0.2]]),
    ]
    there = in_javascript(tmp_path, ALL + odd)
    np.testing.assert_allclose(in_python(ALL + odd), there, atol=1e-5)
    assert (in_javascript(tmp_path, [strokes(), strokes([])]) == 0).all()
    with pytest.raises(ValueError, match="no ink"):
        prepare([[]])


def test_neither_pen_nor_size_nor_place_nor_taps_change_the_picture():
    five = [np.array(s["points"]) for s in BY_HAND[3][5]["strokes"]]
    picture = prepare(five)
    np.testing.assert_allclose(prepare([0.3 * s + 0.2 for s in five]), picture, atol=1e-6)
    doubled = [np.repeat(s, 2, axis=0) for s in five]
    np.testing.assert_allclose(prepare(doubled), picture, atol=1e-6)
    aside = np.concatenate(five).max(axis=0) + np.ptp(np.concatenate(five), axis=0)
    np.testing.assert_allclose(prepare([*five, [aside, aside + 0.01]]), picture)
    inside = np.concatenate(five).mean(axis=0)
    assert abs(prepare([*five, [inside]]) - picture).max() > 0.1, "a dot within is kept"


def test_preparation_is_that_of_mnist(mnist_likeness):
    """Box, centre of mass, brightness and width of the line are those of MNIST's images."""
    pictures, known = mnist_likeness
    for images in (pictures, known):
        rows, columns = (images > 0.1).any(axis=2), (images > 0.1).any(axis=1)
        longer = np.maximum(rows.sum(axis=1), columns.sum(axis=1))
        assert np.median(longer) == 20
        centre = (images.sum(axis=2) @ np.arange(28)) / images.sum(axis=(1, 2))
        assert abs(np.median(centre) - 14) < 0.3
        assert images.max() > 0.99
    share = [((images > 0.5).sum(axis=(1, 2))).mean() for images in (pictures, known)]
    assert abs(share[0] / share[1] - 1) < 0.35, share


@pytest.fixture
def mnist_likeness(small):
    return in_python([d for d in ALL if d["digit"] >= 0]), np.load(small)["x_train"][:300] / 255


def test_drawings_are_scored(out):
    from tests.test_tracked import last_run

    metrics = last_run("convert").data.metrics
    assert metrics["drawn_accuracy"] > 0.9
    assert metrics["drawn_unknown_sure"] < 0.1
    assert metrics["drawn/sure"] > 0.7
    assert metrics["drawn/wrong_and_sure"] < 0.05
    assert {f"drawn/accuracy_{digit}" for digit in range(10)} <= set(metrics)
    assert 0 < metrics["drawn/worst_writers"] < metrics["drawn_accuracy"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[", "is no file of drawings"),
        ("[" * 100_000, "is no file of drawings"),
        ("[]", "no list of 1 to"),
        ('{"drawings": 3}', "no list of 1 to"),
        ('[{"digit": 10, "strokes": []}]', "the digit of drawing 0"),
        ('[{"digit": 1, "strokes": []}]', "has not 1 to 20000 points"),
        ('[{"digit": 1, "strokes": [{"points": [[0, NaN]]}]}]', "not valid JSON"),
        ('[{"digit": 1, "strokes": [{"points": [[0, 1e9]]}]}]', "the strokes of drawing 0"),
        ('[{"digit": 1, "strokes": {"points": 1}}]', "the strokes of drawing 0"),
        ('[{"digit": 1, "strokes": [{"points": [["a", 1]]}]}]', "the strokes of drawing 0"),
    ],
)
def test_a_broken_file_of_drawings_is_refused(tmp_path, content, reason):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=reason) as refused:
        drawings.read(tmp_path / "bad.json")
    assert str(refused.value).startswith(f"drawings={tmp_path}")


def test_certainty_is_decided_on_drawings_too():
    """A network that takes what is no digit for a 3 with confidence 0.9 is not sure at 0.9."""
    rng = np.random.default_rng(0)
    validation = np.arange(1000) % 10
    labels = np.concatenate([np.arange(600) % 10, np.full(400, -1)])

    def predicted(digits, confidence):
        return np.where(np.eye(10)[digits] > 0, confidence, (1 - confidence) / 9)

    confidence = np.where(rng.random((1000, 1)) < 0.02, 0.5, 0.98)
    wrong = (confidence[:, 0] < 0.9) & (rng.random(1000) < 0.5)
    right = predicted(np.where(wrong, (validation + 1) % 10, validation), confidence)
    drawn = predicted(np.where(labels < 0, 3, labels), np.where(labels < 0, 0.9, 0.98)[:, None])
    known = certainty((validation, right), (labels, drawn))
    scored = drawing_metrics((None, labels, np.arange(1000) // 20), drawn, known)
    assert scored["drawn_unknown_sure"] == 0
    assert scored["drawn_accuracy"] == scored["drawn/sure"] == 1
    assert scored["drawn/unknown_called_none"] == 1, "below every digit"
    surer = predicted(np.where(labels < 0, 3, labels), np.where(labels < 0, 0.99, 0.98)[:, None])
    assert certainty((validation, right), (labels, surer))["sure_from"] == 1, "then nothing is sure"


def test_more_is_asked_of_what_is_sure_while_most_digits_stay_so():
    """With wrong answers at 0.6 enough are right; none is better, if it leaves enough sure."""
    digits = np.arange(1000) % 10

    def predicted(confidence, wrong):
        answers = np.eye(10)[(digits + (np.arange(1000) < wrong)) % 10]
        return np.where(answers > 0, confidence[:, None], (1 - confidence[:, None]) / 9)

    validation = digits, predicted(np.repeat([0.5, 0.58, 0.9], [20, 100, 880]), wrong=20)

    def least_sure(unsure):
        """Of 1,000 drawings 15 are wrong at 0.6, and `unsure` are right at 0.58."""
        drawn = predicted(np.repeat([0.6, 0.58, 0.9], [15, unsure, 985 - unsure]), wrong=15)
        scored = drawing_metrics(
            (None, digits, digits), drawn, certainty(validation, (digits, drawn))
        )
        return round(scored["drawn/sure"], 3)

    assert least_sure(100) < 0.89
    assert least_sure(200) == 1


def test_train_learns_from_drawings_of_ones_own(store, small, tmp_path):
    mine = [dict(d, digit=(d["digit"] + 1) % 10) for d in ALL if d["digit"] >= 0]
    (tmp_path / "mine.json").write_text(json.dumps({"drawings": mine}))
    training = load_training(str(small))
    taught = with_drawings(training, str(tmp_path / "mine.json"))
    assert len(taught.train) > len(training.train)
    assert taught.digest != training.digest
    own = drawings.read(tmp_path / "mine.json")
    x = np.rint(255 * own.images).astype(np.uint8)
    recipe = replace(FAST, epochs=6, batch_size=32, drawn=0.0)
    share = [
        (predict(fit(recipe, data, 0).model, x).argmax(1) == own.labels).mean()
        for data in (training, taught)
    ]
    assert share[0] < 0.2 < share[1], share


def test_strokes_are_what_the_generator_writes():
    assert recordings() == ALL


def test_server_gives_its_folder_and_nothing_else(address, out, store, capsys):
    def status(path, host=None):
        request = urllib.request.Request(address + path, headers={"Host": host} if host else {})
        try:
            return urllib.request.urlopen(request, timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code

    (out / "sub").mkdir()
    (out / "link").symlink_to(store / "mlflow.db")
    assert status("/") == status("/model.json") == 200
    outside = ("/../mlflow.db", "/%2e%2e/mlflow.db", "/link", "/sub/", "/gone", "//etc/passwd")
    assert {path: status(path) for path in outside} == dict.fromkeys(outside, 404)
    assert status("/", host="evil.example") == 404
    for _ in range(20):  # a browser that goes away in the middle: `address` sees no error of it
        urllib.request.urlopen(address, timeout=5).close()

    port = address.rsplit(":", 1)[1]
    assert cli.run(["serve", "--port", port]) == 1
    err = capsys.readouterr().err
    assert f"port={port} cannot be used" in err
    assert "free is -P port=" in err
    assert cli.run(["serve", "--output", "nowhere"]) == 1
    assert "first mlflow run . -e convert" in capsys.readouterr().err

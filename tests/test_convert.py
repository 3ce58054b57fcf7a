"""From the registry to files that TensorFlow.js answers from; `output` is always whole."""

import re
from hashlib import sha256

import mlflow
import numpy as np
import pytest

from mnist_cnn import cli
from mnist_cnn.browser import proof, tfjs
from mnist_cnn.learning.backend import keras
from mnist_cnn.tracking import registry
from tests.conftest import small_disk


@pytest.fixture(scope="module")
def champion(store, small):
    data = ["--dataset", str(small), "--batch_size", "32"]
    assert cli.run(["train", *data, "--epochs", "2"]) == 0
    assert cli.run(["evaluate"]) == 0
    return registry.champion()


def model_files(folder):
    return [folder / "model.json", *folder.glob("*.bin")]


def whole(folder):
    """TensorFlow.js loads the folder and answers."""
    (found,) = tfjs.answers([(folder, [np.zeros((1, 28, 28, 1), np.float32)])])
    return found["outputs"][0].shape == (1, 10)


def test_champion_is_converted_and_proven_and_the_newest_named(champion, store, capsys):
    registry.register(f"models:/{champion.model_id}", {})  # a version 2 that nobody promoted
    assert cli.run(["convert"]) == 0
    first, _, *table = capsys.readouterr().out.splitlines()
    told = "Converting version 1 of mnist-cnn, the champion; model=models:/mnist-cnn/2"
    assert first == f"{told} takes the newest."
    assert any(line.startswith("gzip_bytes ") for line in table), "said before it starts"
    assert whole(store / "out")
    (run, *_) = mlflow.search_runs(
        filter_string="tags.verb = 'convert'", order_by=["start_time DESC"], output_format="list"
    )
    metrics = run.data.metrics
    assert metrics["tfjs_agreement"] == 1.0
    assert metrics["tfjs_max_abs_diff"] < 1e-4
    assert metrics["tfjs_bytes"] == sum(f.stat().st_size for f in model_files(store / "out"))
    assert {"tfjs_gzip_bytes", "tfjs_seconds_per_image", "convert_seconds"} <= set(metrics)
    tags = registry.champion().tags
    assert tags["tfjs_agreement"] == "1"
    assert float(tags["test_accuracy"]) == pytest.approx(metrics["tfjs_test_accuracy"], abs=1e-4)


def test_auto_keeps_the_smallest_that_loses_nothing(champion, store, capsys):
    assert cli.run(["convert", "--quantize", "auto", "--output", "small"]) == 0
    _, _, head, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["float32", *tfjs.QUANTIZE[1:]]
    assert whole(store / "small")
    assert sum(f.stat().st_size for f in model_files(store / "small")) < 2.2e5


def test_auto_judges_one_unit_by_its_answers(store, capsys):
    stack = [keras.layers.Input((64,)), keras.layers.Dense(64, activation="tanh")]
    model = keras.Sequential([*stack, keras.layers.Dense(1, activation="sigmoid")])
    kernel = np.random.default_rng(3).normal(0, 0.3, (64, 64))
    model.layers[0].kernel.assign(kernel)
    model.save(store / "unit.keras")
    command = ["convert", "--model", "unit.keras", "--output", "unit", "--quantize", "auto"]
    assert cli.run(command) == 0
    out = capsys.readouterr().out
    (row,) = re.findall("relative_difference (.*)", out)
    moved = dict(zip(["float32", *tfjs.QUANTIZE[1:]], map(float, row.split()), strict=True))
    (chosen,) = re.findall(r"(\w+) files of .*, proven", out)
    assert moved[chosen.lower()] <= 0.01, "standard deviations"
    assert moved["uint8"] > 0.01, "its argmax is always right"


def test_own_keras_file_of_another_shape(champion, store):
    stack = [keras.layers.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]
    keras.Sequential(stack).save(store / "own.keras")
    assert cli.run(["convert", "--model", "own.keras", "--output", "own"]) == 0
    assert (store / "own" / "model.json").is_file()


def files(folder):
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_failed_proof_leaves_output_as_it_was(champion, store, monkeypatch, capsys):
    assert cli.run(["convert", "--output", "kept"]) == 0
    before = files(store / "kept")
    monkeypatch.setattr(proof, "ROUNDING", (0.0, 0.0))  # no float32 arithmetic is so exact
    assert cli.run(["convert", "--output", "kept"]) == 1
    assert "in TensorFlow.js: its answers differ by up to" in capsys.readouterr().err
    assert files(store / "kept") == before


def test_a_layer_that_tensorflow_js_lacks_is_one_sentence(champion, store, capsys):
    stack = [keras.layers.Input((4, 4, 4)), keras.layers.GroupNormalization(2, name="odd")]
    keras.Sequential(stack).save(store / "odd.keras")
    assert cli.run(["convert", "--model", "odd.keras", "--output", "odd"]) == 1
    err = capsys.readouterr().err
    assert "layer 'odd' (GroupNormalization, groups=2) is not the same in TensorFlow.js" in err
    assert err.endswith("; output_format=tfjs_graph_model works.\n")
    assert not (store / "odd").exists()

    stack[1] = keras.layers.Conv2D(4, 2, groups=2, name="odd")
    keras.Sequential(stack).save(store / "odd.keras")
    for form, other in (tfjs.FORMATS, tfjs.FORMATS[::-1]):
        assert cli.run(["convert", "--model", "odd.keras", "--output_format", form]) == 1
        err = capsys.readouterr().err
        assert "layer 'odd' (Conv2D, filters=4, groups=2, kernel_size=(2, 2))" in err
        assert err.endswith(f"; output_format={other} does not work either.\n")


def test_other_peoples_folders_and_files_are_not_touched(champion, store, capsys):
    (store / "photos").mkdir()
    (store / "photos" / "cat.png").write_text("cat")
    assert cli.run(["convert", "--output", "photos"]) == 1
    assert "other files" in capsys.readouterr().err
    assert cli.run(["convert", "--output", "photos/cat.png"]) == 1
    assert cli.run(["convert", "--output", "photos/cat.png/out"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert files(store / "photos") == {"cat.png": sha256(b"cat").hexdigest()}


@pytest.mark.parametrize(
    ("options", "says"), [("size=64k", "No space left on device"), ("ro", "Read-only file system")]
)
def test_full_or_read_only_disk_is_one_sentence(champion, store, capsys, options, says):
    with small_disk(store / f"disk_{options}", options) as disk:
        assert cli.run(["convert", "--output", str(disk / "out")]) == 1
        err = capsys.readouterr().err
        assert f"cannot be written: {says}." in err
        assert "Traceback" not in err
        assert {path.name for path in disk.rglob("*")} <= {"out", ".convert.lock"}

"""The verbs in a real tracking store: what they log, register, promote, refuse and survive."""

import json
import os
import re
from dataclasses import replace
from itertools import pairwise

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR

from mnist_cnn import cli, promote
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, load_test, load_training
from mnist_cnn.learning.model import predict
from mnist_cnn.tracking import failures, registry
from tests.conftest import served, start, tracking_uri


def versions():
    found = mlflow.MlflowClient().search_model_versions(f"name='{registry.NAME}'")
    return sorted(int(version.version) for version in found)


def aliases():
    found = mlflow.MlflowClient().get_registered_model(registry.NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def last_run(verb):
    (run, *_) = mlflow.search_runs(
        filter_string=f"tags.verb = '{verb}'", order_by=["start_time DESC"], output_format="list"
    )
    return run


def described(run):
    """The two lines of its description, as MLflow's page shows them: a lone end is a break too."""
    first, second = run.data.tags["mlflow.note.content"].split("\n\n")
    assert not {"\n"} & {*first, *second}
    return first, second


def artifacts(run):
    return {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}


def train(small, *more):
    """In this process, for speed; 32 images a step, for there are few."""
    return cli.run(["train", "--dataset", str(small), "--batch_size", "32", *more])


@pytest.fixture(scope="module")
def first(store, small):
    """Version 1: trained for two epochs, evaluated, champion because there was none."""
    assert train(small, "--epochs", "2", "--seed", "5") == 0
    assert cli.run(["evaluate"]) == 0
    return registry.find(f"models:/{registry.NAME}/1")


def test_train_logs_what_the_contract_names(first, small):
    run = last_run("train")
    assert run.info.status == "FINISHED"
    params = run.data.params
    assert params["recipe"] == "fast"
    assert (params["seed"], params["epochs"], params["batch_size"]) == ("5", "2", "32")
    expected = {"dataset", "dataset_digest", "parameter_count", "keras", "tensorflow", "cores"}
    assert expected <= set(params)
    client = mlflow.MlflowClient()
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds")
    for name in names:
        assert [m.step for m in client.get_metric_history(run.info.run_id, name)] == [1, 2], name
    assert run.data.metrics["train_seconds"] > 0
    assert "training_curves.png" in artifacts(run)
    assert run.inputs.dataset_inputs[0].dataset.digest == params["dataset_digest"]


def test_registered_model_has_signature_example_and_h5(first):
    model = mlflow.models.get_model_info(first.uri)
    assert model.signature.inputs.inputs[0].shape == (-1, 28, 28, 1)
    assert model.signature.outputs.inputs[0].shape == (-1, 10)
    folder = mlflow.artifacts.download_artifacts(first.uri)
    assert os.path.isfile(os.path.join(folder, "data", "model.h5"))
    assert first.tags["recipe"] == "fast"

    # What anyone else would do with it: MLflow's own loader gives the same answers.
    images = np.load(first.tags["dataset"])["x_test"][:5, :, :, None]
    loaded = mlflow.pyfunc.load_model(first.uri)
    answers = loaded.predict((images / 255).astype(np.float32))
    np.testing.assert_allclose(answers, predict(registry.load(first), images), atol=1e-5)
    # The example, which MLflow itself would try at each logging.
    with open(os.path.join(folder, "serving_input_example.json")) as file:
        request = np.array(json.load(file)["inputs"], np.float32)
    np.testing.assert_allclose(loaded.predict(request), loaded.predict(loaded.input_example))
    assert loaded.predict(request).shape == (1, 10)


def test_logged_models_are_ranked_by_what_was_measured_of_them(first, small):
    (model,) = mlflow.search_logged_models(
        filter_string="metrics.test_accuracy > 0.1 AND metrics.train_seconds > 0",
        order_by=[{"field_name": "metrics.test_accuracy", "ascending": False}],
        output_format="list",
    )
    assert model.name == "fast-seed-5"

    def page(verb):  # search_runs leaves input models out
        return mlflow.get_run(last_run(verb).info.run_id)

    # Linked both ways: from the run of evaluate to the model, and from the model to both runs.
    assert [m.model_id for m in page("evaluate").inputs.model_inputs] == [model.model_id]
    assert [m.model_id for m in page("train").outputs.model_outputs] == [model.model_id]
    both = {last_run(verb).info.run_id for verb in ("train", "evaluate")}
    assert both <= {metric.run_id for metric in model.metrics}
    found = {(metric.key, metric.dataset_name) for metric in model.metrics}
    trained = {("train_seconds", "small.npz"), ("val_accuracy", "small.npz")}
    assert (
        trained | {("test_accuracy", "small.npz-test"), ("robust/fog", "small.npz-test")} <= found
    )
    evaluated = last_run("evaluate")
    (images,) = evaluated.inputs.dataset_inputs
    assert images.dataset.digest
    assert {tag.key: tag.value for tag in images.tags}["mlflow.data.context"] == "test"
    assert evaluated.info.run_name == "evaluate v1"
    assert last_run("train").info.run_name == "train fast seed 5"
    about, result = described(last_run("train"))
    assert about.startswith("fast: ")
    assert result.startswith("Version 1: val_accuracy 0.")
    tags = set(registry.find(first.uri).tags)
    origin = {"recipe", "seed", "dataset", "dataset_digest"}
    assert tags == origin | {"test_accuracy", "test_accuracy_interval", "verdict"}
    assert last_run("train").data.metrics["batch/loss"] > 0


def test_evaluate_logs_what_the_contract_names(first, small):
    run = last_run("evaluate")
    expected = {
        *("classification_report.txt", "classification_report.json", "confusion_matrix.csv"),
        *("confusion_matrix_plot.png", "confusion_matrix_error_plot.png", "misclassified.png"),
        *("calibration.png", "robustness.png", "robustness.csv", "per_class.csv", "slices.csv"),
        "model_card.md",
    }
    assert expected <= artifacts(run)
    test = load_test(str(small))
    right = predict(registry.load(first), test.x).argmax(1) == test.y
    metrics = run.data.metrics
    assert metrics["test_accuracy"] == pytest.approx(right.mean())
    assert metrics["test_accuracy_low"] < metrics["test_accuracy"] < metrics["test_accuracy_high"]
    assert {"test_loss", "evaluate_seconds", "val_accuracy", "test_ece"} <= set(metrics)
    assert {"robust_accuracy", "robust/fog", "robust/zigzag", "behaviour/shift_invariance"} <= set(
        metrics
    )
    attacked = {"attack/fgsm_0.3", "attack/fgsm_0.1", "attack/pgd_0.3", "attack/pgd_0.1"}
    assert attacked <= set(metrics)
    headlines = {
        "test_loss",
        "test_ece",
        "calibration/ece_calibrated",
        "robust_accuracy",
        *attacked,
    }
    for name in headlines:
        low, high = (metrics[f"interval/{name.rsplit('/')[-1]}_{end}"] for end in ("low", "high"))
        assert low <= metrics[name] <= high, name
    card = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/model_card.md")
    sections = [line for line in card.splitlines() if line.startswith("## ")]
    assert len(sections) == 9, "the nine of Mitchell et al. 2019"
    assert f"{metrics['robust_accuracy']:.4f}" in card
    version = mlflow.MlflowClient().get_model_version(registry.NAME, first.version)
    summary, verdict = described(run)
    assert summary.startswith(f"Test accuracy {metrics['test_accuracy']:.4f} (95 % interval ")
    assert verdict == "Version 1 is champion: there was none."
    assert version.description == f"{summary}\n\n{card}", "nothing of it is cut off"
    about = mlflow.MlflowClient().get_registered_model(registry.NAME).description
    for text in (card, about):  # MLflow's page shows each end of a line as a break
        for before, line in pairwise(text.splitlines()):
            broken = before[:1].isalpha() and line[:1].isalpha() and before[-1] != "."
            assert not broken, (before, line)
    names = list(metrics)
    assert names[:2] == ["val_accuracy", "test_accuracy"]
    assert names.index("robust_accuracy") < names.index("robust/fog"), "the headlines first"

    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/confusion_matrix.csv")
    counts = np.array([line.split(",")[1:] for line in text.splitlines()[1:]], int)
    assert counts.shape == (10, 10)
    assert counts.sum() == len(test)
    assert np.trace(counts) == right.sum()
    tags = registry.find(first.uri).tags
    assert tags["test_accuracy"] == f"{right.mean():.4f}"
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/classification_report.json")
    assert report["accuracy"] == pytest.approx(right.mean())


def test_first_evaluated_version_is_champion(first):
    assert aliases()["champion"] == "1"
    assert "there was none" in last_run("evaluate").data.tags["verdict"]


def test_a_worse_model_never_replaces_a_better_one_and_promote_goes_back(first, small, capsys):
    assert train(small, "--learning_rate", "1e-6", "--epochs", "1") == 0
    worse = str(versions()[-1])
    assert aliases()["candidate"] == worse
    assert cli.run(["evaluate"]) == 0
    assert aliases()["champion"] == "1"
    assert "stays champion" in capsys.readouterr().out

    assert cli.run(["promote", "--version", worse]) == 0
    assert aliases()["champion"] == worse
    by_hand = described(last_run("promote"))
    assert by_hand[0] == f"Version {worse} is champion by a person's decision."
    assert cli.run(["evaluate", "--model", "models:/mnist-cnn/1"]) == 0
    assert aliases()["champion"] == "1", "the better one is proven better and wins"
    assert "is the new champion. On 100 validation" in described(last_run("evaluate"))[1]
    assert last_run("evaluate").data.metrics["gate/p_value"] < 0.05


def test_promote_is_done_although_nobody_reads_what_it_says(first, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    with monkeypatch.context() as patch, pytest.raises(BrokenPipeError):
        patch.setattr("builtins.print", closed)
        promote.promote(int(first.version))
    assert last_run("promote").info.status == "FINISHED"


def test_gate_refuses_a_better_model_that_is_worse_somewhere(first, small):
    """The evidence says all right on validation; but it reads black on white only."""
    network = registry.load(first)
    inverting = keras.Sequential(
        [keras.layers.Input((28, 28, 1)), keras.layers.Rescaling(-1.0, 1.0), network]
    )
    assert train(small, "--epochs", "1") == 0
    candidate = registry.find(f"models:/{registry.NAME}/{versions()[-1]}")
    data = load_training(str(small))
    labels = data.validation.y.copy()
    labels[:10] = (labels[:10] + 1) % 10  # so that the champion, however well it reads, has errors
    data = replace(data, validation=Split(data.validation.x, labels))
    all_right = np.ones(len(labels), bool)
    champion = aliases()["champion"]
    assert champion == first.version
    with mlflow.start_run():
        verdict = promote.gate(candidate, inverting, all_right, data)
        assert f"Version {champion} stays champion" in verdict
        assert "Largest proven loss" in verdict
        assert aliases()["champion"] == champion
        # The same evidence with a network that loses nothing anywhere.
        verdict = promote.gate(candidate, network, all_right, data)
        assert f"Version {candidate.version} is the new champion" in verdict
        assert "p < 0.001" in verdict, "not p = 0.000"
        assert "0.00 points (nowhere)" in verdict
        below = promote.gate(first, network, np.zeros(len(all_right), bool), data)
        assert "at least 0.5 needed" in below

    client = mlflow.MlflowClient()

    def champions():
        about, table = client.get_registered_model(registry.NAME).description.split(promote.SINCE)
        assert about.count("ten probabilities") == 1
        return [row.split(" | ")[1] for row in table.splitlines()]

    assert champions()[-1] == candidate.version
    text = client.get_registered_model(registry.NAME).description
    client.update_registered_model(registry.NAME, f"Ours.\n\n{text}")
    assert cli.run(["promote", "--version", champion]) == 0
    assert champions()[-2:] == [candidate.version, champion]
    assert client.get_registered_model(registry.NAME).description.startswith("Ours.")


def test_one_test_image_without_ink_is_evaluated(first, store):
    images, labels = np.zeros((24, 28, 28), np.uint8), np.arange(24) % 10
    np.savez(store / "dark.npz", x_train=images, y_train=labels, x_test=images[:1], y_test=[3])
    before, client = aliases(), mlflow.MlflowClient()
    client.delete_registered_model_alias(registry.NAME, registry.CHAMPION)
    command = ["evaluate", "--dataset", "dark.npz", "--model", first.uri, "--promote", "false"]
    assert cli.run(command) == 0
    assert last_run("evaluate").data.tags["worst_slice"] == "all"
    assert "champion" not in aliases(), "although there was none: promote=false"
    assert described(last_run("evaluate"))[1] == "Nothing is promoted."
    client.set_registered_model_alias(registry.NAME, registry.CHAMPION, before["champion"])


def test_training_that_diverges_registers_nothing(first, small, capsys):
    before = versions(), aliases()
    command = ["train", "--dataset", str(small), "--recipe", "classic", "--learning_rate", "10"]
    assert cli.run(command) == 1
    assert "learning_rate=10 is too high" in capsys.readouterr().err
    assert last_run("train").info.status == "FAILED"
    assert (versions(), aliases()) == before


FAILURES = {
    "data of another kind": (["train", "--dataset", "nan.npz"], "float64", "train"),
    "test images missing": (["evaluate", "--dataset", "half.npz"], "x_test", "evaluate"),
    "no such version": (["evaluate", "--model", "models:/mnist-cnn/999"], "999", "evaluate"),
    "no such alias": (["evaluate", "--model", "models:/mnist-cnn@best"], "best", "evaluate"),
    "no such model": (["evaluate", "--model", "models:/other/1"], "other", "evaluate"),
    "no such run": (["evaluate", "--model", "runs:/0123/model"], "runs:/0123/model", "evaluate"),
    "not a model": (["evaluate", "--model", "text.h5"], "text.h5", "evaluate"),
    "another shape": (["evaluate", "--model", "wide.keras"], "(None, 32, 32, 3)", "evaluate"),
    "promote nobody": (["promote", "--version", "999"], "999", "promote"),
}


@pytest.mark.parametrize(("arguments", "says", "verb"), FAILURES.values(), ids=FAILURES)
def test_failure_is_one_sentence_and_a_failed_run(first, store, arguments, says, verb, capsys):
    images, labels = np.zeros((24, 28, 28), np.uint8), np.arange(24) % 10
    nan = {"x_train": np.full(images.shape, np.nan), "y_train": labels}
    np.savez(store / "nan.npz", **nan, x_test=images, y_test=labels)
    np.savez(store / "half.npz", x_train=images, y_train=labels)
    (store / "text.h5").write_text("not a model")
    if not (store / "wide.keras").exists():
        wide = [keras.layers.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
        keras.Sequential(wide).save(store / "wide.keras")
    before = versions(), aliases()
    capsys.readouterr()

    assert cli.run(arguments) == 1
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("mnist_cnn")]) == 1
    run = last_run(verb)
    assert run.info.status == "FAILED"
    assert says in run.data.tags["failure"]
    assert (versions(), aliases()) == before


def whole():
    """Every alias leads to a model that loads; there is no version without a loadable model."""
    for version in aliases().values():
        registry.load(registry.find(f"models:/{registry.NAME}/{version}"))


@pytest.mark.slow
def test_two_at_once_both_finish(first, store, small):
    before = versions()
    command = ["train", "--dataset", str(small), "--epochs", "2", "--seed"]
    both = [start(store, *command, str(i)) for i in range(2)]
    for process in both:
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert "Epoch 1/" in out
        for noise in ("cuda", "onednn", "tensorrt", "computation_placer", "traceback"):
            assert noise not in err.lower()
    new = sorted(set(versions()) - set(before))
    assert len(new) == 2
    assert aliases()["candidate"] in map(str, new)
    whole()


def test_main_on_a_real_server_is_train_evaluate_and_convert_as_steps_of_one_run(
    store, small, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", str(small), "--epochs", "1", "--learning_rate", "0.05"]
    with served(tmp_path / "server") as address, tracking_uri(address):
        assert cli.run(["main", *arguments]) == 0
        said = capsys.readouterr()
        assert said.out.splitlines()[-1].startswith(f"See it all: {address}/#/experiments/0/runs?")
        assert said.out.count("/#/experiments/") == 1, "MLflow's own line for each run is silent"
        assert not set("\r\b\x1b") & set(said.out + said.err), "control codes, and this is a pipe"
        parent = last_run("main")
        children = mlflow.search_runs(
            filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
        )
        by_verb = {run.data.tags["verb"]: run for run in children}
        assert {"train", "evaluate", "convert"} <= set(by_verb)
        converted = by_verb["convert"]
        assert converted.data.metrics["tfjs_agreement"] == 1.0
        assert converted.info.run_name == "convert v1"
        files, size = described(converted)
        assert files.startswith("Float32 files of version 1 of mnist-cnn, proven in TensorFlow.js")
        assert re.match(r"[0-9,]+ kB\. [0-9.]+% of recorded drawings are read rightly\.$", size)
        assert described(parent)[1] == "Version 1, in three steps."
        (model,) = mlflow.get_run(converted.info.run_id).inputs.model_inputs
        known = mlflow.get_logged_model(model.model_id)
        assert converted.info.run_id in {metric.run_id for metric in known.metrics}
        assert by_verb["train"].data.params["learning_rate"] == "0.05"
        headlines = {"val_accuracy", "train_seconds", "test_accuracy", "tfjs_agreement"}
        assert headlines <= set(parent.data.metrics), "those of its steps"
        assert by_verb["evaluate"].data.tags["model_version"] == aliases()["candidate"]
        assert set(aliases()) == {"candidate", "champion"}
        assert "misclassified.png" in artifacts(by_verb["evaluate"])
    assert not (tmp_path / "mlflow.db").exists()


def test_a_write_that_met_anothers_first_is_made_again():
    def write(key):
        tried.append(key)
        if len(tried) == 1:
            raise MlflowException("(psycopg.errors.UniqueViolation)", error_code)

    tried, error_code = [], BAD_REQUEST
    failures.retry_on_conflict(write, "tag")
    assert tried == ["tag", "tag"]
    tried, error_code = [], INTERNAL_ERROR
    with pytest.raises(MlflowException):
        failures.retry_on_conflict(write, "tag")
    assert tried == ["tag"]

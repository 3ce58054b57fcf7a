"""Recipes side by side: the table, and going on after a kill."""

import os
import threading

import mlflow
import pandas as pd
import pytest

from mnist_cnn import benchmark, cli
from tests.test_tracked import artifacts, described, last_run

# Steps of 1,024 images: what is measured here is not how well they learn.
SMALL = "fast:filters=2+2+2:batch_size=1024,fast:filters=4+4+4:batch_size=1024"
COMMAND = ["benchmark", "--recipes", SMALL, "--seeds", "1"]


def test_killed_benchmark_goes_on_and_ends_with_a_table(store, small, monkeypatch, capsys):
    measured = []
    real = benchmark.measure

    def killed_at_the_second(recipe, seed, *data):
        if len(measured) == 1:
            measured.append("killed")
            raise KeyboardInterrupt
        measured.append((recipe, seed))
        return real(recipe, seed, *data)

    monkeypatch.setattr(benchmark, "measure", killed_at_the_second)
    command = [*COMMAND, "--dataset", str(small)]
    assert cli.run(command) == 1
    assert cli.run(command) == 0
    assert len([m for m in measured if m != "killed"]) == 2, "one before, one after"
    run = last_run("benchmark")
    assert {"results.csv", "results.md"} <= artifacts(run)
    csv = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/results.csv").splitlines()
    assert len(csv) == 1 + 2
    assert "| `fast:filters=4+4+4:batch_size=1024` |" in capsys.readouterr().out
    about, ranks = described(run)
    assert " cores, tensorflow " in about
    assert f"{SMALL.split(',')[0]} " in ranks
    assert cli.run(command) == 0, "a finished benchmark is measured anew"
    assert len(measured) == 1 + 2 + 2


def test_a_thread_that_ends_meanwhile_is_no_error(monkeypatch):
    finished = threading.Thread(target=int)
    finished.start()
    finished.join()
    monkeypatch.setattr(os, "listdir", lambda _: [str(finished.native_id), str(os.getpid())])
    benchmark._hold(sorted(os.sched_getaffinity(0)))


def test_table_has_mean_sd_and_share_of_time():
    rows = pd.DataFrame(
        [("a", 10, 90.0, 0.98), ("a", 10, 110.0, 0.99), ("b", 5, 10.0, 0.97)],
        columns=["recipe", "parameter_count", "train_seconds", "test_accuracy"],
    ).assign(images=50, threads=2, predict_seconds=1.0, val_accuracy=0.99)
    first, second = benchmark.as_table(rows).splitlines()[2:]
    assert "98.50 ± 0.71 (98.00 to 99.00)" in first
    assert "| 100.0 ± 14.1 | 1.00 |" in first
    assert "| 10.0 | 1/10.0 |" in second


def test_images_and_threads_are_varied(store, small):
    command = ["benchmark", "--recipes", SMALL.split(",")[0], "--seeds", "1", "--dataset", small]
    command += ["--images", "200,0", "--threads", "1,2"]
    assert cli.run([str(word) for word in command]) == 0
    run = last_run("benchmark")
    table = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/results.md")
    assert "200 images, 1 threads" in table
    assert "1,100 images, 2 threads" in table
    assert cli.run([*map(str, command), "--images", "5000"]) == 1, "there are only 1,100"


def test_fewer_threads_are_refused_where_a_process_cannot_be_held_on_cores(
    store, small, monkeypatch, capsys
):
    monkeypatch.setattr(benchmark.runs, "cores", lambda: 2)
    monkeypatch.delattr("os.sched_setaffinity", raising=False)
    command = ["benchmark", "--recipes", "fast", "--seeds", "1", "--dataset", str(small)]
    assert cli.run([*command, "--threads", "1,2"]) == 1
    assert "only Linux" in capsys.readouterr().err


@pytest.mark.slow
def test_control_is_classic(small):
    from mnist_cnn.learning.data import load_training

    fitted = benchmark.bare_classic(load_training(str(small)), 1)
    assert fitted.model.count_params() == 159_254
    assert len(fitted.history["loss"]) == 10
    assert fitted.history["val_accuracy"][-1] == pytest.approx(0.9, abs=0.1)

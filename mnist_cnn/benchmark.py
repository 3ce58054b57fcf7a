"""`mlflow run . -e benchmark`: recipes side by side, mean ± sd; goes on where it was killed."""

import hashlib
import io
import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import mlflow
import pandas as pd

from mnist_cnn.learning.backend import keras, tf
from mnist_cnn.learning.data import Split, Training, load_test, load_training
from mnist_cnn.learning.fit import Fitted, fit
from mnist_cnn.learning.model import build, predict, scaled
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import CLASSIC, Recipe
from mnist_cnn.tracking import runs

CASE = ["seed", "images", "threads", "recipe"]  # what a measurement is of


def benchmark(recipes: dict[str, Recipe | None], dataset: str, **axes: tuple[int, ...]) -> None:
    """Measure every recipe with every seed; None is the control, classic in bare Keras.

    `axes`: `seeds`, and the numbers of training `images` (0: all) and `threads` (0: all cores).
    All recipes are trained with one seed before the next, so that a slow hour meets them all.
    """
    settings = {"recipes": ",".join(recipes), "dataset": dataset, **axes}
    what = (recipes, dataset, axes, runs.environment())  # all that must be the same to go on
    definition = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    with runs.tracked("benchmark", definition=definition, **settings, **runs.environment()):
        runs.name_run(f"benchmark {','.join(recipes)}")
        training, test = load_training(dataset), load_test(dataset)
        every, cores = len(training.train), runs.cores()
        images = [size or every for size in axes["images"]]
        threads = [count or cores for count in axes["threads"]]
        for name, most, of in (("images", every, "training images"), ("threads", cores, "cores")):
            if max(axes[name]) > most:
                raise UserError(f"{name}={max(axes[name])}: there are {most} {of}.")
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        if min(threads) < cores and not usable:
            raise UserError(f"threads={min(threads)}: only Linux can use a part; give 0.")
        tf.config.list_logical_devices()  # by which TensorFlow counts the cores, before `_hold`
        rows = _unfinished(definition)
        if known := {tuple(row[name] for name in CASE) for row in rows}:
            print(f"Going on after {len(known)} measurements of an earlier run.")
        for case in product(axes["seeds"], images, threads, recipes):
            if case in known:
                continue
            seed, size, count, name = case
            part = replace(training, train=Split(training.train.x[:size], training.train.y[:size]))
            _hold(usable[:count])
            found = measure(recipes[name], seed, part, test)
            _hold(usable)
            rows.append(dict(zip(CASE, case, strict=True)) | found)
            told = f"{name}, {size:,} images, {count} threads, seed {seed}: "
            told += "{train_seconds:.1f} s of fit, val_accuracy {val_accuracy:.4f}".format(**found)
            print(told, flush=True)
            mlflow.log_text(pd.DataFrame(rows).to_csv(index=False), "results.csv")
        table = as_table(pd.DataFrame(rows))
        mlflow.log_text(table, "results.md")
        means = pd.DataFrame(rows).groupby("recipe")[["test_accuracy", "train_seconds"]].mean()
        for label, values in means.iterrows():
            prefix = re.sub(r"[^a-z0-9.]", "_", str(label))
            mlflow.log_metrics({f"{prefix}/{metric}": value for metric, value in values.items()})
        about = "{cores} cores, tensorflow {tensorflow}, keras {keras}".format(**runs.environment())
        right = (f"{name} {share:.2%} in {s:.1f} s" for name, share, s in means.itertuples())
        runs.describe_run(f"{about}.", f"Right of the test images, fit: {', '.join(right)}.")
        print(f"{about}:\n\n{table}")


def _hold(cores: list[int]) -> None:
    """Hold every thread of this process on these cores; none: the system cannot."""
    for thread in os.listdir("/proc/self/task") if cores else ():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), cores)


def measure(recipe: Recipe | None, seed: int, training: Training, test: Split) -> dict[str, Any]:
    """Seconds and accuracies of a fit (None: `bare_classic`) and of the test images, once warm."""
    fitted = fit(recipe, training, seed) if recipe else bare_classic(training, seed)
    predict(fitted.model, test.x)  # the first call traces
    started = time.perf_counter()
    correct = predict(fitted.model, test.x).argmax(1) == test.y
    return {
        "parameter_count": fitted.model.count_params(),
        "train_seconds": fitted.train_seconds,
        "predict_seconds": time.perf_counter() - started,
        "val_accuracy": fitted.history["val_accuracy"][-1],
        "test_accuracy": float(correct.mean()),
    }


def bare_classic(data: Training, seed: int) -> Fitted:
    """The control: classic as everybody writes it, without this project's loop."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(CLASSIC)
    model.compile(keras.optimizers.SGD(0.01, 0.9), "categorical_crossentropy", metrics=["accuracy"])
    x, y = scaled(data.train.x), keras.utils.to_categorical(data.train.y)
    held_out = scaled(data.validation.x), keras.utils.to_categorical(data.validation.y)
    started = time.perf_counter()
    history = model.fit(x, y, batch_size=32, epochs=10, validation_data=held_out, verbose=0)
    return Fitted(model, history.history, time.perf_counter() - started)


def as_table(rows: pd.DataFrame) -> str:
    """Markdown: a line per recipe; times also as a share of the first recipe's mean."""

    def spread(values: pd.Series, digits: int = 2) -> str:
        sd = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
        return f"{values.mean():.{digits}f}{sd}"

    varied = [name for name in ("images", "threads") if rows[name].nunique() > 1]
    first, table = None, []
    for case, mine in rows.groupby(["recipe", *varied], sort=False):
        test, seconds = 100 * mine.test_accuracy, mine.train_seconds
        ends = f"({test.min():.2f} to {test.max():.2f})"
        first = first or seconds.mean()
        share = seconds.mean() / first
        cells = {
            "recipe": ", ".join([f"`{case[0]}`", *map("{:,} {}".format, case[1:], varied)]),
            "parameters": f"{mine.parameter_count.iloc[0]:,}",
            "n": str(len(mine)),
            "test accuracy, % (min to max)": f"{spread(test)} {ends}",
            "validation, %": spread(100 * mine.val_accuracy),
            "fit, s": spread(seconds, 1),
            "share of time": f"1/{1 / share:.1f}" if share < 0.95 else f"{share:.2f}",
            "test images, s": spread(mine.predict_seconds),
        }
        table.append(cells.values())
    return "".join(f"| {' | '.join(line)} |\n" for line in [cells, ["---"] * len(cells), *table])


def _unfinished(definition: str) -> list[dict]:
    """The rows of the newest run of the same benchmark, if that run did not come to its end."""
    me = runs.active_run().info
    same = f"tags.verb = 'benchmark' and params.definition = '{definition}'"
    found = mlflow.search_runs([me.experiment_id], same, output_format="list")
    earlier = next((run.info for run in found if run.info.run_id != me.run_id), me)
    if earlier.status != "FINISHED":
        with suppress(mlflow.MlflowException, OSError):  # it was killed before it had any
            text = mlflow.artifacts.load_text(f"{earlier.artifact_uri}/results.csv")
            mlflow.log_text(text, "results.csv")
            return pd.read_csv(io.StringIO(text)).to_dict("records")
    return []

"""`mlflow run . -e benchmark`: recipes side by side in one run, mean ± sd over seeds.

A killed benchmark goes on where it was when the same command is typed again.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from mnist_cnn.evaluation import plots
from mnist_cnn.learning.backend import keras, tf
from mnist_cnn.learning.data import Split, Training, load_test, load_training
from mnist_cnn.learning.fit import Fitted, fit
from mnist_cnn.learning.model import build, predict, scaled
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import CLASSIC, Recipe
from mnist_cnn.tracking.runs import cores, environment, log_params, tracked


@dataclass(frozen=True)
class Row:
    """One recipe, trained and tested once; seconds of fit and of the test images."""

    recipe: str
    images: int
    threads: int
    seed: int
    parameter_count: int
    train_seconds: float
    predict_seconds: float
    val_accuracy: float
    test_accuracy: float


def benchmark(
    recipes: dict[str, Recipe | None],
    seeds: tuple[int, ...],
    images: tuple[int, ...],
    threads: tuple[int, ...],
    dataset: str,
) -> None:
    """Measure every recipe with every seed; None is the control, classic in bare Keras.

    Of each also the scaling: with so many training `images` (0: all) and `threads` (0: all cores).
    All recipes are trained with one seed before the next, so that a slow hour meets them all.
    """
    # What is resumed must be the same: recipes as they are defined today, machine, versions.
    what = (recipes, images, threads, environment())
    definition = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    settings = {"recipes": ",".join(recipes), "seeds": seeds, "dataset": dataset}
    settings |= {"images": images, "threads": threads}
    with tracked("benchmark", definition=definition, **settings):
        log_params(environment())
        training, test = load_training(dataset), load_test(dataset)
        images = tuple(size or len(training.train) for size in images)
        threads = tuple(count or cores() for count in threads)
        _refuse_more_than_there_is(images, threads, len(training.train))
        # TensorFlow sizes its threads by the cores it finds now, before `_only` hides some.
        tf.config.list_logical_devices()
        rows = _unfinished(settings, definition)
        known = {(row.recipe, row.images, row.threads, row.seed) for row in rows}
        if known:
            print(f"Going on after {len(known)} measurements of an earlier run.")
        for case in product(seeds, images, threads, recipes):
            seed, size, count, name = case
            if (name, size, count, seed) in known:
                continue
            part = replace(training, train=Split(training.train.x[:size], training.train.y[:size]))
            with _only(count):
                rows.append(measure(name, recipes[name], seed, count, part, test))
            print(
                f"{name}, {size:,} images, {count} threads, seed {seed}: "
                f"{rows[-1].train_seconds:.1f} s of fit, val_accuracy {rows[-1].val_accuracy:.4f}",
                flush=True,
            )
            _log(rows)
        _report(rows)


def _refuse_more_than_there_is(
    images: tuple[int, ...], threads: tuple[int, ...], available: int
) -> None:
    if max(images) > available or max(threads) > cores():
        raise UserError(
            f"images={max(images)}, threads={max(threads)}: there are {available} "
            f"training images and {cores()} cores."
        )
    if min(threads) < cores() and not hasattr(os, "sched_setaffinity"):
        raise UserError(
            f"threads={min(threads)}: only Linux can hold a process on some of the cores; here "
            f"all {cores()} can be measured, threads=0."
        )


@contextmanager
def _only(count: int) -> Iterator[None]:
    """Hold every thread of this process on its first `count` cores; fewer than all on Linux."""
    if count == cores():
        yield
        return
    every = os.sched_getaffinity(0)

    def hold(where: set[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), where)

    hold(set(sorted(every)[:count]))
    try:
        yield
    finally:
        hold(every)


def _report(rows: list[Row]) -> None:
    frame = pd.DataFrame(map(asdict, rows))
    table = as_table(rows)
    mlflow.log_text(table, "results.md")
    mlflow.log_figure(plots.accuracy_against_time(frame), "results.png")
    if frame[["images", "threads"]].nunique().max() > 1:
        mlflow.log_figure(plots.scaling(frame), "scaling.png")
    means = frame.groupby("recipe")[["test_accuracy", "train_seconds"]].mean()
    for name, values in means.to_dict("index").items():
        key = re.sub(r"[^a-z0-9.]", "_", str(name))
        mlflow.log_metrics({f"{key}.{metric}": value for metric, value in values.items()})
    about = environment()
    print(f"{about['cores']} cores, tensorflow {about['tensorflow']}, keras {about['keras']}:\n")
    print(table)


def measure(
    name: str, recipe: Recipe | None, seed: int, threads: int, training: Training, test: Split
) -> Row:
    """Train with `seed` and predict the test images, once warm; None is `bare_classic`."""
    fitted = fit(recipe, training, seed) if recipe else bare_classic(training, seed)

    def probabilities() -> np.ndarray:
        model = fitted.model
        return predict(model, test.x) if recipe else model.predict(scaled(test.x), verbose=0)

    probabilities()  # the first call traces
    started = time.perf_counter()
    correct = probabilities().argmax(1) == test.y
    return Row(
        name,
        len(training.train),
        threads,
        seed,
        fitted.model.count_params(),
        fitted.train_seconds,
        time.perf_counter() - started,
        fitted.history["val_accuracy"][-1],
        float(correct.mean()),
    )


def bare_classic(data: Training, seed: int) -> Fitted:
    """The control: classic as everybody writes it, without this project's loop."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(CLASSIC)
    model.compile(
        keras.optimizers.SGD(learning_rate=0.01, momentum=0.9),
        "categorical_crossentropy",
        metrics=["accuracy"],
    )
    x, y = scaled(data.train.x), keras.utils.to_categorical(data.train.y)
    held_out = scaled(data.validation.x), keras.utils.to_categorical(data.validation.y)
    started = time.perf_counter()
    history = model.fit(x, y, batch_size=32, epochs=10, validation_data=held_out, verbose=0)
    return Fitted(model, history.history, time.perf_counter() - started)


def as_table(rows: list[Row]) -> str:
    """Markdown: a line per recipe; times also as a share of the first recipe's mean."""
    frame = pd.DataFrame(map(asdict, rows))
    lines = [
        "| recipe | parameters | n | test accuracy, % (min to max) | validation, % | fit, s "
        "| share of time | test images, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    varied = [name for name in ("images", "threads") if frame[name].nunique() > 1]
    first = None
    for case, mine in frame.groupby(["recipe", *varied], sort=False):
        label = ", ".join([f"`{case[0]}`", *map("{:,} {}".format, case[1:], varied)])
        test, validation = 100 * mine.test_accuracy, 100 * mine.val_accuracy
        seconds = mine.train_seconds
        first = first or seconds.mean()
        share = seconds.mean() / first
        lines.append(
            f"| {label} | {mine.parameter_count.iloc[0]:,} | {len(mine)} | {_spread(test)} "
            f"({test.min():.2f} to {test.max():.2f}) | {_spread(validation)} "
            f"| {_spread(seconds, 1)} | {f'1/{1 / share:.1f}' if share < 0.95 else f'{share:.2f}'} "
            f"| {_spread(mine.predict_seconds)} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: pd.Series, digits: int = 2) -> str:
    sd = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{sd}"


def _log(rows: list[Row]) -> None:
    mlflow.log_text(pd.DataFrame(map(asdict, rows)).to_csv(index=False), "results.csv")


def _unfinished(settings: dict, definition: str) -> list[Row]:
    """The rows of the newest run of the same benchmark, if that run did not come to its end."""
    run = mlflow.active_run()
    assert run is not None
    me = run.info
    earlier = mlflow.search_runs(
        [me.experiment_id],
        f"tags.verb = 'benchmark' and params.definition = '{definition}'",
        output_format="list",
    )
    same = [
        run
        for run in earlier
        if run.info.run_id != me.run_id and run.data.params["dataset"] == settings["dataset"]
    ]
    if not same or same[0].info.status == "FINISHED":
        return []
    try:
        text = mlflow.artifacts.load_text(f"{same[0].info.artifact_uri}/results.csv")
    except (MlflowException, OSError):
        return []
    mlflow.MlflowClient().set_terminated(same[0].info.run_id, "KILLED")
    rows = [Row(*values) for values in pd.read_csv(io.StringIO(text)).itertuples(index=False)]
    _log(rows)
    return rows

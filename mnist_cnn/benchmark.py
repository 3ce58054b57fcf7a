"""`mlflow run . -e benchmark`: recipes side by side in one run, mean ± sd over seeds.

A killed benchmark goes on where it was when the same command is typed again.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from dataclasses import asdict, dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from mnist_cnn import plots
from mnist_cnn.backend import keras
from mnist_cnn.data import Split, Training, load_test, load_training
from mnist_cnn.model import build, predict, scaled
from mnist_cnn.recipes import CLASSIC, Recipe
from mnist_cnn.tracking import environment, log_params, tracked
from mnist_cnn.training import Fitted, fit


@dataclass(frozen=True)
class Row:
    """One recipe, trained and tested with one seed; seconds of fit and of the test images."""

    recipe: str
    seed: int
    parameter_count: int
    train_seconds: float
    predict_seconds: float
    val_accuracy: float
    test_accuracy: float


def benchmark(recipes: dict[str, Recipe | None], seeds: tuple[int, ...], dataset: str) -> None:
    """Measure every recipe with every seed; None is the control, classic in bare Keras.

    All recipes are trained with one seed before the next, so that a slow hour meets them all.
    """
    # What is resumed must be the same: recipes as they are defined today, machine, versions.
    definition = hashlib.sha256(repr((recipes, environment())).encode()).hexdigest()[:16]
    settings = {"recipes": ",".join(recipes), "seeds": seeds, "dataset": dataset}
    with tracked("benchmark", definition=definition, **settings):
        log_params(environment())
        training, test = load_training(dataset), load_test(dataset)
        rows = _unfinished(settings, definition)
        known = {(row.recipe, row.seed) for row in rows}
        if known:
            print(f"Going on after {len(known)} measurements of an earlier run.")
        for seed in seeds:
            for name, recipe in recipes.items():
                if (name, seed) in known:
                    continue
                rows.append(measure(name, recipe, seed, training, test))
                print(
                    f"{name}, seed {seed}: {rows[-1].train_seconds:.1f} s of fit, "
                    f"val_accuracy {rows[-1].val_accuracy:.4f}",
                    flush=True,
                )
                _log(rows)
        table = as_table(rows)
        mlflow.log_text(table, "results.md")
        mlflow.log_figure(
            plots.accuracy_against_time(pd.DataFrame(map(asdict, rows))), "results.png"
        )
        for name in recipes:
            mine = [row for row in rows if row.recipe == name]
            values = {
                "test_accuracy": np.mean([row.test_accuracy for row in mine]),
                "train_seconds": np.mean([row.train_seconds for row in mine]),
            }
            mlflow.log_metrics(
                {f"{re.sub(r'[^a-z0-9.]', '_', name)}.{k}": float(v) for k, v in values.items()}
            )
    about = environment()
    print(f"{about['cores']} cores, tensorflow {about['tensorflow']}, keras {about['keras']}:\n")
    print(table)


def measure(name: str, recipe: Recipe | None, seed: int, training: Training, test: Split) -> Row:
    """Train with `seed` and answer the test images, once warm."""
    fitted = fit(recipe, training, seed) if recipe else bare_classic(training, seed)
    predict(fitted.model, test.x[:500])
    started = time.perf_counter()
    right = predict(fitted.model, test.x).argmax(1) == test.y
    return Row(
        name,
        seed,
        fitted.model.count_params(),
        fitted.train_seconds,
        time.perf_counter() - started,
        fitted.history["val_accuracy"][-1],
        float(right.mean()),
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
    first = frame[frame.recipe == frame.recipe[0]].train_seconds.mean()
    lines = [
        "| recipe | parameters | n | test accuracy, % (min to max) | validation, % | fit, s "
        "| share of time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, mine in frame.groupby("recipe", sort=False):
        test, validation = 100 * mine.test_accuracy, 100 * mine.val_accuracy
        seconds = mine.train_seconds
        share = seconds.mean() / first
        lines.append(
            f"| `{name}` | {mine.parameter_count.iloc[0]:,} | {len(mine)} | {_spread(test)} "
            f"({test.min():.2f} to {test.max():.2f}) | {_spread(validation)} "
            f"| {_spread(seconds, 1)} | {'1' if share == 1 else f'1/{1 / share:.1f}'} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: pd.Series, digits: int = 2) -> str:
    sd = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{sd}"


def _log(rows: list[Row]) -> None:
    mlflow.log_text(pd.DataFrame(map(asdict, rows)).to_csv(index=False), "results.csv")


def _unfinished(settings: dict, definition: str) -> list[Row]:
    """The rows of the newest run of the same benchmark, if that run did not come to its end."""
    me = mlflow.active_run().info
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
    rows = [Row(**values) for values in pd.read_csv(io.StringIO(text)).to_dict("records")]
    _log(rows)
    return rows

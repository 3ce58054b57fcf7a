"""What a default sweep gains on data that nobody tuned for, as two tables of Markdown.

    python -m scripts.measure_sweeps FOLDER [FASHION_MNIST [SET ...]]

On each set `tune` sweeps with several seeds, as it does by default (TPE, some trials end early),
and by plain random search, where none ends early, for as long as the trials of the default took.
The best of each sweep, and the recipe with as many epochs, are then trained with the seeds of
OTHERS. FASHION_MNIST is that set as `dataset` takes it; SET is one of SETS, by default all. FOLDER
keeps sets, store, studies and accuracies: the same command goes on where it was ended.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
from scipy import ndimage

from mnist_cnn.evaluation.study_results import gain_with_error
from mnist_cnn.learning.data import load_test, load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.model import predict
from mnist_cnn.recipes import FAST, HYPERPARAMETERS, Recipe
from mnist_cnn.tracking import runs

OTHERS = (101, 102, 103, 104, 105)
SAMPLERS = ("tpe", "random")
# Sweeps by each sampler, with the seeds 0, 1, ...: where they are short, and luck is large, more.
SETS = {"Fashion-MNIST": 3, "6,000 images": 6, "turned": 3}


def write_set(path: Path, turned: bool) -> None:
    """MNIST as an .npz: each image turned by an angle of its own, or only 6,000 to train with."""
    rng, arrays = np.random.default_rng(0), dict[str, Any]()
    for part, split in {"train": load_training("mnist").train, "test": load_test("mnist")}.items():
        x, y = split.x[:6000], split.y[:6000]
        if turned:
            angles = rng.uniform(0, 360, len(split))
            pairs = zip(split.x[..., 0], angles, strict=True)
            x, y = (
                np.stack([ndimage.rotate(i, a, reshape=False, order=1) for i, a in pairs]),
                split.y,
            )
        arrays |= {f"x_{part}": x, f"y_{part}": y}
    np.savez(path, **arrays)


def dataset_of(name: str, folder: Path, fashion: str) -> str:
    """One of SETS as `dataset` takes it; what is no public set is written into `folder`."""
    if name == "Fashion-MNIST":
        return fashion
    path = folder / f"{name.replace(',', '').replace(' ', '_')}.npz"
    if not path.exists():
        write_set(path.with_suffix(".part.npz"), turned=name == "turned")
        os.replace(path.with_suffix(".part.npz"), path)
    return str(path)


def durations(folder: Path, study: str) -> pd.Series:
    """Seconds of each trial of a study that has ended."""
    storage = f"sqlite:///{folder}/tune.db"
    if study not in optuna.get_all_study_names(storage):
        return pd.Series(dtype=float)
    table = optuna.load_study(study_name=study, storage=storage).trials_dataframe()
    return table[table.state.isin(["COMPLETE", "PRUNED"])].duration.dt.total_seconds()


def swept(folder: Path, dataset: str, name: str, sampler: str, seed: int) -> tuple[Recipe, float]:
    """The best recipe of a sweep, and the seconds of all runs that it took; swept if it is not."""
    study = f"{name} {sampler} {seed}"
    how: dict[str, Any] = {"dataset": dataset, "sampler": sampler, "seed": seed, "study": study}
    query = f"tags.verb = 'tune' and params.study = '{study}'"
    while not (ended := mlflow.search_runs(filter_string=f"{query} and status = 'FINISHED'")).size:
        if sampler == "random":
            left = durations(folder, f"{name} tpe {seed}").sum() - durations(folder, study).sum()
            how |= {"trials": 1000, "timeout": max(1, round(left / runs.cores()))}
            how["pruner"] = "none"  # plain random search, as it is known
        command = [sys.executable, "-m", "mnist_cnn", "tune"]
        command += [f"--{option}={value}" for option, value in how.items()]
        print(" ".join(command), flush=True)
        subprocess.run(command, check=True)
    best = mlflow.artifacts.load_dict(f"{ended.artifact_uri[0]}/best_params.json")
    values = {key: HYPERPARAMETERS[key][0].read(key, text) for key, text in best.items()}
    every = mlflow.search_runs(filter_string=query)
    return replace(FAST, **values), (every.end_time - every.start_time).dt.total_seconds().sum()


def accuracies(folder: Path, dataset: str, recipe: Recipe) -> np.ndarray:
    """Shares right of the validation and of the test images, float64 (2, len(OTHERS))."""
    file = folder / "accuracies.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    for seed in OTHERS:
        if (key := f"{dataset} {seed} {recipe}") not in known:
            test, fitted = load_test(dataset), fit(recipe, load_training(dataset), seed)
            right = float((predict(fitted.model, test.x).argmax(1) == test.y).mean())
            known[key] = fitted.history["val_accuracy"][-1], right
            file.with_suffix(".part").write_text(json.dumps(known, indent=0))
            os.replace(file.with_suffix(".part"), file)
    return np.array([known[f"{dataset} {seed} {recipe}"] for seed in OTHERS]).T


def difference(new: np.ndarray, old: np.ndarray) -> str:
    """Difference of two means in points, and its standard error as in Welch's test."""
    return "{:+.2f} ({:.2f})".format(
        *(100 * value for value in gain_with_error(list(new), list(old)))
    )


def measure(folder: Path, name: str, dataset: str) -> list[dict[str, str]]:
    """The rows of one set, a sampler each."""
    rows, found, seeds = [], {}, range(SETS[name])
    for seed in seeds:  # both samplers with one seed, so that a slow hour meets both
        for sampler in SAMPLERS:
            recipe, seconds = swept(folder, dataset, name, sampler, seed)
            found[sampler, seed] = accuracies(folder, dataset, recipe), seconds, recipe.epochs
    before = accuracies(folder, dataset, replace(FAST, epochs=found["tpe", 0][2]))
    for sampler in SAMPLERS:
        # A sweep is one measurement, the mean of its seeds.
        mine, others = (
            np.array([found[one, seed][0].mean(axis=1) for seed in seeds]).T
            for one in (sampler, SAMPLERS[1 - SAMPLERS.index(sampler)])
        )
        row = {"set": name, "sampler": sampler}
        for i, kind in enumerate(("validation", "test")):
            row[f"{kind}, recipe"] = (
                f"{100 * before[i].mean():.2f} ± {100 * before[i].std(ddof=1):.2f}"
            )
            row[f"{kind}, tuned"] = f"{100 * mine[i].mean():.2f} ± {100 * mine[i].std(ddof=1):.2f}"
            row[f"{kind}, gain"] = difference(mine[i], before[i])
            row[f"{kind}, to the other"] = difference(mine[i], others[i])
        trials = [len(durations(folder, f"{name} {sampler} {seed}")) for seed in seeds]
        row["trials a sweep"] = ", ".join(map(str, trials))
        row["s a sweep"] = ", ".join(f"{found[sampler, seed][1]:.0f}" for seed in seeds)
        rows.append(row)
    return rows


def importances(folder: Path, name: str) -> dict[str, float]:
    """Share of the variance that each hyperparameter explains among the random trials."""
    merged = optuna.create_study(direction="maximize")
    for seed in range(SETS[name]):
        study = f"{name} random {seed}"
        loaded = optuna.load_study(study_name=study, storage=f"sqlite:///{folder}/tune.db")
        merged.add_trials(loaded.get_trials(states=[optuna.trial.TrialState.COMPLETE]))
    return optuna.importance.get_param_importances(merged)


def markdown(table: pd.DataFrame) -> str:
    """A table of Markdown, without an index."""
    rows = [table.columns, ["---"] * len(table.columns), *table.values]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def main() -> None:
    """Both tables, as Markdown."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    os.environ |= {"PYTHONPATH": os.getcwd(), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    os.chdir(folder)  # MLflow puts the artefacts of this store below
    rows, shares = [], {}
    for name in sys.argv[3:] or SETS:
        dataset = dataset_of(name, folder, sys.argv[2] if len(sys.argv) > 2 else "fashion_mnist")
        rows += measure(folder, name, dataset)
        shares[name] = importances(folder, name)
    print(markdown(pd.DataFrame(rows)))
    table = pd.DataFrame(shares).mul(100).round()
    print(markdown(table.rename_axis("importance, %").reset_index()))


if __name__ == "__main__":
    main()

"""`mlflow run . -e tune`: Optuna sweeps filter counts, learning rate and more, on validation.

The study lives in a database, so the same command goes on after a kill, and typed a second time,
here or with a shared storage on another machine, joins in. `trials` is the total of all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from typing import Any

import mlflow
import numpy as np
import optuna
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial, TrialState

from mnist_cnn.evaluate import evaluate
from mnist_cnn.learning import study as sweep
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Training, load_training
from mnist_cnn.learning.fit import Diverged, fit
from mnist_cnn.learning.study import Search
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import Recipe, as_text, hyperparameters
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.runs import (
    cores,
    environment,
    log_params,
    no_retries,
    process_name,
    start_run,
    tracked,
)
from mnist_cnn.train import LogEpochs, train_version

# At the end, so that luck is seen: so many configurations, each with so many other seeds.
FINALISTS, SEEDS = 3, 3


@dataclass(frozen=True)
class Sweep:
    """All that a worker needs to know."""

    recipe: Recipe  # as it was before the sweep
    search: Search
    dataset: str
    study: str
    storage: str
    trials: int
    timeout: int
    parent: str  # the run in MLflow above those of the trials


def tune(
    recipe: Recipe,
    trials: int,
    workers: int,
    study: str,
    storage: str,
    epochs: int,
    timeout: int,
    seed: int,
    dataset: str,
    **space: Any,
) -> None:
    """Sweep, then train the best with several seeds, register and evaluate it."""
    base = replace(recipe, epochs=epochs)
    workers = min(workers or cores(), trials)
    settings = {"seed": seed, "dataset": dataset, "study": study, "trials": trials}
    settings |= {"storage": sweep.without_password(storage), "workers": workers}
    shown = {name: as_text(value) for name, value in space.items()}
    with tracked("tune", **settings, **shown, **hyperparameters(base)) as run:
        data = load_training(dataset)
        log_params({"dataset_digest": data.digest, **environment()})
        search = Search(base, seed, data.digest, **space)
        task = Sweep(recipe, search, dataset, study, storage, trials, timeout, run.info.run_id)
        opened = _open(task, worker=0)
        complete = sweep.finished(opened) >= trials
        try:
            _work_together(task, workers, data)
        except KeyboardInterrupt:
            done = sweep.finished(opened)
            _log_sweep(opened, epochs)
            raise UserError(
                f"interrupted after {done} of {trials} trials; the same command goes on."
            ) from None
        except BaseException as error:
            error.add_note("The same command goes on with the study.")
            # The server may be the reason: it has been waited for.
            with no_retries(), suppress(MlflowException):
                _log_sweep(opened, epochs)
            raise
        _log_sweep(opened, epochs)

        # Of several machines only the one that ended the last trial goes on to the end.
        if not complete and sweep.finished(opened) >= trials and _last(opened) != run.info.run_id:
            print("The last trial ended elsewhere; the best is trained there.")
        else:
            _train_the_best(opened, task, data)


def _work_together(task: Sweep, workers: int, data: Training) -> None:
    """Run the trials: here if there is one worker, else in processes that share out the cores."""
    if workers == 1:
        _work(task, 0, data)
        return
    # A fresh interpreter each: TensorFlow sizes its threads by the cores it finds at its start.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    where = (mlflow.get_tracking_uri(), mlflow.active_run().info.experiment_id)
    processes = [
        context.Process(target=_worker, args=(task, i, where, stop)) for i in range(workers)
    ]
    try:
        for i, process in enumerate(processes):
            with _on_share(i, workers):
                process.start()
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        stop.set()
        for process in processes:
            process.join(30)
        raise
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
    died = [process.exitcode for process in processes if process.exitcode]
    if died:
        print(f"{len(died)} of {workers} workers died (exit codes {died}).")
    if len(died) == workers:
        with no_retries():  # the reason may be a lost server: said as such
            mlflow.MlflowClient().search_experiments(max_results=1)
        raise UserError("every worker died; the same command goes on.")


@contextmanager
def _on_share(worker: int, workers: int) -> Iterator[None]:
    """What a process started inside inherits: its share of the cores, where Linux can, and deaf
    to Ctrl-C, which would meet it anywhere; its parent tells it to stop."""
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if mine:
        os.sched_setaffinity(0, mine[worker % len(mine) :: workers])
    try:
        yield
    finally:
        if mine:
            os.sched_setaffinity(0, mine)
        signal.signal(signal.SIGINT, heard)


def _worker(task: Sweep, worker: int, where: tuple[str, str], stop: Event) -> None:
    """The whole life of a worker process."""
    try:
        mlflow.set_tracking_uri(where[0])
        mlflow.set_experiment(experiment_id=where[1])
        _work(task, worker, load_training(task.dataset), stop)
    except (KeyboardInterrupt, MlflowException):
        raise SystemExit(1) from None  # the parent says how to go on


def _work(task: Sweep, worker: int, data: Training, stop: Event | None = None) -> None:
    study = _open(task, worker)
    started, before = time.monotonic(), sweep.finished(study)

    def objective(trial: optuna.Trial) -> float | tuple[float, int]:
        try:
            return _trial(trial, task, data, stop)
        except MlflowException:
            # Tried again, as a killed one is: the epochs it reported would prune all after it.
            study.enqueue_trial(trial.params)
            raise

    def progress() -> None:
        trials = study.get_trials(deepcopy=False, states=sweep.FINISHED)
        pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        best = max((trial.values[0] for trial in trials if trial.values), default=0.0)
        pace = (time.monotonic() - started) / max(1, len(trials) - before)
        left = pace * max(0, task.trials - len(trials))
        print(
            f"{len(trials)} of {task.trials} trials, {pruned} pruned, best val_accuracy "
            f"{best:.4f}, about {left / 60:.1f} minutes left",
            flush=True,
        )

    if worker == 0 and before < task.trials:
        print(f"Study {task.study}: Ctrl-C stops; the same command goes on.", flush=True)
    sweep.run_trials(study, objective, task.trials, task.timeout, progress)


def _open(task: Sweep, worker: int) -> optuna.Study:
    def on_death(trial: FrozenTrial) -> None:
        if "mlflow_run" in trial.user_attrs:
            client = mlflow.MlflowClient()
            client.set_tag(trial.user_attrs["mlflow_run"], "state", "failed")
            client.set_terminated(trial.user_attrs["mlflow_run"], "KILLED")

    return sweep.open_study(task.study, task.storage, task.search, worker, on_death)


def _trial(
    trial: optuna.Trial, task: Sweep, data: Training, stop: Event | None
) -> float | tuple[float, int]:
    """Train what Optuna suggests, in a nested run: its accuracy, or accuracy and cost."""
    chosen = task.search.suggest(trial)
    front = task.search.objective == "front"
    log_epochs = LogEpochs()
    callbacks = [log_epochs, _StopOnRequest(stop), *([] if front else [_ReportToOptuna(trial)])]
    # Tags from the first moment: a kill must not leave a run that nobody can name.
    tags = {"verb": "trial", "study": task.study, "process": process_name()}
    with start_run(
        run_name=f"trial {trial.number}", nested=True, parent_run_id=task.parent, tags=tags
    ) as run:
        trial.set_user_attr("mlflow_run", run.info.run_id)
        trial.set_user_attr("parent", task.parent)
        log_params(hyperparameters(chosen) | {"trial": trial.number})
        try:
            fitted = fit(chosen, data, task.search.seed, callbacks, quiet=True)
        except (optuna.TrialPruned, Diverged):
            fitted = None
        log_epochs.deliver()
        mlflow.set_tag("state", "finished" if fitted else "pruned")
        if fitted:
            cost = fitted.model.count_params()
            trial.set_user_attr(sweep.COST, cost)
            trial.set_user_attr("train_seconds", fitted.train_seconds)
            mlflow.log_metrics({"train_seconds": fitted.train_seconds, sweep.COST: cost})
    # Raised outside of the run: pruned is not failed.
    if not fitted:
        raise optuna.TrialPruned
    accuracy = fitted.history["val_accuracy"][-1]
    return (accuracy, cost) if front else accuracy


class _ReportToOptuna(keras.callbacks.Callback):
    """Tells Optuna the validation accuracy of every epoch, and ends a hopeless trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self.trial = trial

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        self.trial.set_user_attr(sweep.EPOCH_SECONDS, logs["epoch_seconds"])
        self.trial.report(logs["val_accuracy"], epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned


class _StopOnRequest(keras.callbacks.Callback):
    """Ends a worker that is told to stop, or whose parent was killed.

    In the first case the trial failed; in the second it counts as dead and is tried again.
    """

    def __init__(self, stop: Event | None) -> None:
        super().__init__()
        self.stop = stop

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.stop and self.stop.is_set():
            raise KeyboardInterrupt
        parent = multiprocessing.parent_process()
        if parent and not parent.is_alive():
            raise SystemExit(1)


def _last(study: optuna.Study) -> str:
    """The parent run of the trial that was finished last."""
    trials = study.get_trials(deepcopy=False, states=sweep.FINISHED)
    last = max(trials, key=lambda trial: (trial.datetime_complete, trial.number))
    return last.user_attrs["parent"]


def _log_sweep(study: optuna.Study, epochs: int) -> None:
    mlflow.log_text(study.trials_dataframe().to_csv(index=False), "trials.csv")
    mlflow.log_text(sweep.report(study), "study.html")
    saved = sweep.saved_seconds(study, epochs)
    mlflow.log_metrics({"finished_trials": sweep.finished(study), "saved_seconds": saved})
    if saved:
        print(f"Trials that were ended early would have trained {saved / 60:.1f} minutes more.")


def _train_the_best(study: optuna.Study, task: Sweep, data: Training) -> None:
    """Train the finalists in full with other seeds; register and evaluate the best of them.

    The recipe is trained as it is, and with as many epochs as the best: more epochs alone help too.
    """
    recipe, seed = task.recipe, task.search.seed

    def scores(some: Recipe) -> list[float]:
        return [_score(some, data, seed + i) for i in range(1, SEEDS + 1)]

    known: dict[Recipe, list[float]] = {}
    by_trial = {}
    for trial in sweep.finalists(study, len(data.validation), FINALISTS):
        finalist = task.search.described(trial)
        finalist = replace(finalist, epochs=max(finalist.epochs, recipe.epochs))
        known[finalist] = by_trial[f"trial {trial.number}"] = scores(finalist)
        print(f"Trial {trial.number} with {SEEDS} other seeds: {_spread(known[finalist])}.")
    mlflow.log_dict(by_trial, "finalists.json")
    best = max(known, key=lambda some: np.mean(known[some]))
    chosen = {name: as_text(value) for name, value in hyperparameters(best).items()}
    mlflow.log_dict(chosen, "best_params.json")
    print("The best: " + ", ".join(f"{name}={value}" for name, value in chosen.items()))

    version = train_version(best, seed + 1, task.dataset)
    source = registry.find(f"models:/{registry.NAME}/{version}")
    registry.tag(source, {"study": task.study, "tune_run": task.parent})
    mlflow.log_metric("best_val_accuracy", float(np.mean(known[best])))
    print(f"val_accuracy over {SEEDS} seeds: the best {_spread(known[best])}.")
    for epochs in sorted({recipe.epochs, best.epochs}):
        rival = replace(recipe, epochs=epochs)
        before = known.get(rival) or scores(rival)
        gain, error = _gain(known[best], before)
        key = "recipe" if epochs == recipe.epochs else "recipe_same_epochs"
        figures = {"val_accuracy": np.mean(before), "gain": gain, "gain_standard_error": error}
        mlflow.log_metrics({f"{key}_{name}": float(value) for name, value in figures.items()})
        print(
            f"{recipe.name}, epochs={epochs}: {_spread(before)}; the best gains "
            f"{100 * gain:+.2f} points (standard error {100 * error:.2f})."
        )
    evaluate(source.uri, task.dataset, promote=True)


def _score(recipe: Recipe, data: Training, seed: int) -> float:
    return fit(recipe, data, seed, quiet=True).history["val_accuracy"][-1]


def _gain(new: list[float], old: list[float]) -> tuple[float, float]:
    """Difference of the means, and its standard error as in Welch's test."""
    error = (np.var(new, ddof=1) / len(new) + np.var(old, ddof=1) / len(old)) ** 0.5
    return float(np.mean(new) - np.mean(old)), float(error)


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"

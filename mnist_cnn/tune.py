"""`mlflow run . -e tune`: Optuna sweeps filter counts, learning rate and more, on validation.

The study lives in a database, so the same command goes on after a kill, and typed a second time,
here or with a shared storage on another machine, joins in. `trials` is the total of all.
"""

from __future__ import annotations

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
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from mnist_cnn.evaluate import evaluate
from mnist_cnn.evaluation.study_results import (
    best_accuracy,
    finalists,
    gain_with_error,
    mean_and_sd,
    parent_of_last_trial,
    progress,
    report,
    saved_seconds,
)
from mnist_cnn.learning.data import Training, load_training
from mnist_cnn.learning.fit import Diverged, fit
from mnist_cnn.learning.processes import run_workers
from mnist_cnn.learning.search import Search
from mnist_cnn.learning.study import (
    COST,
    ReportToOptuna,
    StopOnRequest,
    count_finished,
    open_study,
    run_trials,
    storage_error,
    without_password,
)
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import Recipe, as_text, hyperparameters
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.failures import no_retries
from mnist_cnn.tracking.runs import (
    PROCESS,
    cores,
    environment,
    log_params,
    process_name,
    start_run,
    tracked,
)
from mnist_cnn.train import LogEpochs, train_version

# At the end, so that luck is seen: so many configurations, each with so many other seeds.
FINALISTS, SEEDS = 3, 3


@dataclass(frozen=True)
class Sweep:
    """What every worker of a sweep needs."""

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
    settings |= {"storage": without_password(storage), "workers": workers}
    with tracked("tune", **settings, **space, **hyperparameters(base)) as run:
        data = load_training(dataset)
        log_params({"dataset_digest": data.digest, **environment()})
        search = Search(base, seed, data.digest, **space)
        sweep = Sweep(recipe, search, dataset, study, storage, trials, timeout, run.info.run_id)
        opened = _open(sweep, worker=0)
        was_complete = count_finished(opened) >= trials
        with _logged(opened, sweep):
            _run_all_trials(sweep, workers, data)

        # Of several machines only the one that ended the last trial goes on to the end.
        complete = count_finished(opened) >= trials
        if complete and not was_complete and parent_of_last_trial(opened) != sweep.parent:
            print("The last trial ended elsewhere; the best is trained there.")
        else:
            _train_the_best(opened, sweep, data)


@contextmanager
def _logged(study: optuna.Study, sweep: Sweep) -> Iterator[None]:
    """Log the study after the trials inside, however they end; Ctrl-C becomes a UserError."""
    try:
        yield
    except KeyboardInterrupt:
        _log_study(study, sweep)
        done = f"{count_finished(study)} of {sweep.trials} trials"
        raise UserError(f"interrupted after {done}; the same command goes on.") from None
    except StorageInternalError as error:
        told = storage_error(sweep.storage, error)
        raise UserError(f"{told} The same command goes on.") from None
    except BaseException as error:
        error.add_note("The same command goes on with the study.")
        # The server may be the reason: it has been waited for.
        with no_retries(), suppress(MlflowException):
            _log_study(study, sweep)
        raise
    _log_study(study, sweep)


def _run_all_trials(sweep: Sweep, workers: int, data: Training) -> None:
    """Run the trials: here if there is one worker, else in processes that share the cores."""
    if workers == 1:
        _run_trials(sweep, 0, data)
        return
    codes = run_workers(_worker, (sweep,), workers, cores())
    if died := [code for code in codes if code]:
        print(f"{len(died)} of {workers} workers died (exit codes {died}).")
    if len(died) == workers:
        with no_retries():  # the reason may be a lost server: said as such
            mlflow.MlflowClient().search_experiments(max_results=1)
        raise UserError("every worker died; the same command goes on.")


def _worker(sweep: Sweep, worker: int, stop: Event) -> None:
    """The work of one process; it inherits the tracking URI as MLflow's environment variable."""
    try:
        experiment = mlflow.get_run(sweep.parent).info.experiment_id
        mlflow.set_experiment(experiment_id=experiment)
        _run_trials(sweep, worker, load_training(sweep.dataset), stop)
    except (KeyboardInterrupt, MlflowException, StorageInternalError):
        raise SystemExit(1) from None  # the parent says how to go on


def _run_trials(sweep: Sweep, worker: int, data: Training, stop: Event | None = None) -> None:
    study = _open(sweep, worker)
    started, before = time.monotonic(), count_finished(study)
    # The finalists, the recipe with its own epochs and with theirs, and the one registered.
    fits = (1 if sweep.search.objective == "front" else FINALISTS) * SEEDS + 2 * SEEDS + 1

    def objective(trial: optuna.Trial) -> float | tuple[float, int]:
        try:
            return _run_trial(trial, sweep, data, stop)
        except MlflowException:
            # Tried again, as a killed one is: the epochs it reported would prune all after it.
            study.enqueue_trial(trial.params)
            raise

    def on_trial_end(trial: FrozenTrial) -> None:
        now, best = count_finished(study), best_accuracy(study)
        with no_retries(), suppress(MlflowException):  # a lost server holds up no trial
            mlflow.MlflowClient().log_metric(sweep.parent, "best_so_far", best, step=now)
        pace = (time.monotonic() - started) / max(1, now - before)
        print(progress(study, trial, sweep.trials, pace, fits), flush=True)

    if worker == 0 and before < sweep.trials:
        print(f"Study {sweep.study}: Ctrl-C stops; the same command goes on.", flush=True)
    run_trials(study, objective, sweep.trials, sweep.timeout, on_trial_end)


def _open(sweep: Sweep, worker: int) -> optuna.Study:
    def close_run(trial: FrozenTrial) -> None:
        if "mlflow_run" in trial.user_attrs:
            client = mlflow.MlflowClient()
            client.set_tag(trial.user_attrs["mlflow_run"], "state", "failed")
            client.set_terminated(trial.user_attrs["mlflow_run"], "KILLED")

    return open_study(sweep.study, sweep.storage, sweep.search, worker, close_run)


def _run_trial(
    trial: optuna.Trial, sweep: Sweep, data: Training, stop: Event | None
) -> float | tuple[float, int]:
    """Train what Optuna suggests, in a nested run: its accuracy, or accuracy and cost."""
    chosen = sweep.search.suggest(trial)
    front = sweep.search.objective == "front"
    log_epochs = LogEpochs()
    callbacks = [log_epochs, StopOnRequest(stop), *([] if front else [ReportToOptuna(trial)])]
    # Tags from the first moment: a kill must not leave a run that nobody can name.
    tags = {"verb": "trial", "study": sweep.study, PROCESS: process_name()}
    with start_run(
        run_name=f"trial {trial.number}", nested=True, parent_run_id=sweep.parent, tags=tags
    ) as run:
        trial.set_user_attr("mlflow_run", run.info.run_id)
        trial.set_user_attr("parent", sweep.parent)
        log_params(hyperparameters(chosen) | {"trial": trial.number})
        try:
            fitted = fit(chosen, data, sweep.search.seed, callbacks, quiet=True)
        except (optuna.TrialPruned, Diverged):
            fitted = None
        log_epochs.deliver()
        mlflow.set_tag("state", "finished" if fitted else "pruned")
        if fitted:
            cost = fitted.model.count_params()
            trial.set_user_attr(COST, cost)
            trial.set_user_attr("train_seconds", fitted.train_seconds)
            mlflow.log_metrics({"train_seconds": fitted.train_seconds, COST: cost})
    # Raised outside of the run: pruned is not failed.
    if not fitted:
        raise optuna.TrialPruned
    accuracy = fitted.history["val_accuracy"][-1]
    return (accuracy, cost) if front else accuracy


def _log_study(study: optuna.Study, sweep: Sweep) -> None:
    mlflow.log_text(study.trials_dataframe().to_csv(index=False), "trials.csv")
    mlflow.log_text(report(study), "study.html")
    saved = saved_seconds(study, sweep.search.recipe.epochs)
    mlflow.log_metrics({"finished_trials": count_finished(study), "saved_seconds": saved})
    if saved:
        print(f"Trials that were ended early would have trained {saved / 60:.1f} minutes more.")


def _train_the_best(study: optuna.Study, sweep: Sweep, data: Training) -> None:
    """Train the finalists in full with other seeds; register and evaluate the best of them.

    The recipe is trained as it is, and with as many epochs as the best: more epochs alone help too.
    """
    seed = sweep.search.seed
    scores = _train_finalists(study, sweep, data)
    best = max(scores, key=lambda recipe: np.mean(scores[recipe]))
    chosen = {name: as_text(value) for name, value in hyperparameters(best).items()}
    mlflow.log_dict(chosen, "best_params.json")
    mlflow.log_metric("best_val_accuracy", float(np.mean(scores[best])))
    print("The best: " + ", ".join(f"{name}={value}" for name, value in chosen.items()))
    for epochs in sorted({sweep.recipe.epochs, best.epochs}):
        before = replace(sweep.recipe, epochs=epochs)
        if before not in scores:
            scores[before] = _scores(before, data, seed)
        key = "recipe" if epochs == sweep.recipe.epochs else "recipe_same_epochs"
        _tell_gain(key, before, scores[before], scores[best])
    print(f"Training the best with seed {seed + 1}, to register it.", flush=True)
    version = train_version(best, seed + 1, sweep.dataset)
    source = registry.find(f"models:/{registry.NAME}/{version}")
    evaluate(source.uri, sweep.dataset, promote=True)


def _train_finalists(
    study: optuna.Study, sweep: Sweep, data: Training
) -> dict[Recipe, list[float]]:
    """Validation accuracies of the finalists, each with `SEEDS` seeds that no trial had."""
    scores, by_trial = {}, {}
    trials = finalists(study, len(data.validation), FINALISTS)
    print(f"The best {len(trials)} trials, each with {SEEDS} other seeds:", flush=True)
    for trial in trials:
        finalist = sweep.search.described(trial.params)
        finalist = replace(finalist, epochs=max(finalist.epochs, sweep.recipe.epochs))
        scores[finalist] = _scores(finalist, data, sweep.search.seed)
        by_trial[f"trial {trial.number}"] = scores[finalist]
        print(f"Trial {trial.number}: {mean_and_sd(scores[finalist])}.", flush=True)
    mlflow.log_dict(by_trial, "finalists.json")
    return scores


def _scores(recipe: Recipe, data: Training, seed: int) -> list[float]:
    """Validation accuracy of `recipe` with each of the `SEEDS` seeds after `seed`."""
    seeds = range(seed + 1, seed + SEEDS + 1)
    return [fit(recipe, data, each, quiet=True).history["val_accuracy"][-1] for each in seeds]


def _tell_gain(key: str, before: Recipe, old: list[float], new: list[float]) -> None:
    """Log and print what the best gains over the recipe that the sweep began from."""
    gain, error = gain_with_error(new, old)
    figures = {"val_accuracy": float(np.mean(old)), "gain": gain, "gain_standard_error": error}
    mlflow.log_metrics({f"{key}_{name}": value for name, value in figures.items()})
    text = (
        f"val_accuracy of {before.name} with epochs={before.epochs}: {mean_and_sd(old)}; of the "
        f"best {mean_and_sd(new)}: {100 * gain:+.2f} points (standard error {100 * error:.2f})."
    )
    if gain <= 2 * error:
        text += " That is no gain beyond chance."
    print(text, flush=True)

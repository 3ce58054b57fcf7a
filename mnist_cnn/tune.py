"""`mlflow run . -e tune`: Optuna sweeps filter counts, learning rate and more, on validation.

The study lives in a database, so the same command goes on after a kill, and typed a second time,
here or with a shared storage on another machine, joins in. `trials` is the total of all.
"""

import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.synchronize import Event
from typing import Any

import mlflow
import numpy as np
import optuna
from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from mnist_cnn.evaluate import evaluate
from mnist_cnn.evaluation import study_results
from mnist_cnn.learning import study as studies
from mnist_cnn.learning.data import Training, load_test, load_training
from mnist_cnn.learning.fit import Diverged, fit
from mnist_cnn.learning.processes import run_workers
from mnist_cnn.learning.search import Sweep
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import Recipe, as_text, hyperparameters
from mnist_cnn.tracking import registry, runs
from mnist_cnn.tracking.failures import no_retries
from mnist_cnn.train import LogEpochs, train_version

# At the end, so that luck is seen: so many configurations, each with so many other seeds.
FINALISTS, SEEDS = 3, 3
GOES_ON = "the same command goes on with the study."


def tune(recipe: Recipe, epochs: int, workers: int, storage: str, **more: Any) -> None:
    """Sweep, then train the best with several seeds, register and evaluate it.

    `more`: the other settings of a `Sweep`.
    """
    trials = more["trials"]
    workers = min(workers or runs.cores(), trials)
    settings = more | {"storage": studies.without_password(storage), "workers": workers}
    settings |= hyperparameters(replace(recipe, epochs=epochs))
    with runs.tracked("tune", **settings) as run:
        runs.name_run(f"tune {recipe.name}, study {more['study']}")
        data = load_training(more["dataset"])
        load_test(more["dataset"])  # refused now, not by evaluate after all trials
        runs.log_params({"dataset_digest": data.digest, **runs.environment()})
        more |= {"dataset_digest": data.digest, "parent": run.info.run_id}
        sweep = Sweep(recipe=recipe, epochs=epochs, storage=storage, **more)
        opened = _open(sweep, worker=0)
        was_complete = studies.count(opened) >= trials
        _run_all_trials(opened, sweep, workers, data)

        # Of several machines only the one that ended the last trial goes on to the end.
        ended = opened.get_trials(deepcopy=False, states=studies.FINISHED)
        last = max(ended, key=lambda t: (t.datetime_complete, t.number), default=None)
        elsewhere = last and last.user_attrs["parent"] != sweep.parent
        if len(ended) >= trials and not was_complete and elsewhere:
            print("The last trial ended elsewhere; the best is trained there.")
        else:
            _train_the_best(opened, sweep, data)


def _run_all_trials(study: optuna.Study, sweep: Sweep, workers: int, data: Training) -> None:
    """Run the trials here if there is one worker, else in processes that share the cores.

    The study is logged however they end.
    """
    try:
        if workers == 1:
            _run_trials(sweep, 0, data)
        else:
            codes = run_workers(_worker, (sweep,), workers, runs.cores())
            if died := [code for code in codes if code]:
                print(f"{len(died)} of {workers} workers died (exit codes {died}).")
            if len(died) == workers:
                with no_retries():  # the reason may be a lost server: said as such
                    mlflow.MlflowClient().search_experiments(max_results=1)
                raise UserError(f"every worker died; {GOES_ON}")
    except StorageInternalError as error:
        told = studies.storage_error(sweep.storage, error)
        raise UserError(f"{told} {GOES_ON.capitalize()}") from None
    except BaseException as error:
        # The server may be the reason: it has been waited for.
        with no_retries(), suppress(MlflowException):
            _log_study(study)
        if isinstance(error, KeyboardInterrupt):
            done = f"{studies.count(study)} of {sweep.trials} trials"
            raise UserError(f"interrupted after {done}; {GOES_ON}") from None
        error.add_note(GOES_ON.capitalize())
        raise
    _log_study(study)


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
    started, before = time.monotonic(), studies.count(study)
    # The finalists, the recipe with its own epochs and with theirs, and the one registered.
    fits = (1 if sweep.objective == "front" else FINALISTS) * SEEDS + 2 * SEEDS + 1

    def objective(trial: optuna.Trial) -> float | tuple[float, int]:
        try:
            return _run_trial(trial, sweep, data, stop)
        except MlflowException:
            # Tried again, as a killed one is: the epochs it reported would prune all after it.
            study.enqueue_trial(trial.params)
            raise

    def on_trial_end(trial: FrozenTrial) -> None:
        now, best = studies.count(study), study_results.best_accuracy(study)
        with no_retries(), suppress(MlflowException):  # a lost server holds up no trial
            mlflow.MlflowClient().log_metric(sweep.parent, "study/best_so_far", best, step=now)
        pace = (time.monotonic() - started) / max(1, now - before)
        print(study_results.progress(study, trial, sweep.trials, pace, fits), flush=True)

    if worker == 0 and before < sweep.trials:
        print(f"Study {sweep.study}: Ctrl-C stops; the same command goes on.", flush=True)
    studies.run_trials(study, sweep, objective, on_trial_end)


def _open(sweep: Sweep, worker: int) -> optuna.Study:
    def close_run(trial: FrozenTrial) -> None:
        if "mlflow_run" in trial.user_attrs:
            client = mlflow.MlflowClient()
            client.set_tag(trial.user_attrs["mlflow_run"], "state", "failed")
            client.set_terminated(trial.user_attrs["mlflow_run"], "KILLED")

    return studies.open_study(sweep, worker, close_run)


def _run_trial(
    trial: optuna.Trial, sweep: Sweep, data: Training, stop: Event | None
) -> float | tuple[float, int]:
    """Train what Optuna suggests, in a nested run: its accuracy, or accuracy and cost."""
    chosen = sweep.suggest(trial)
    log_epochs = LogEpochs()
    callbacks = [log_epochs, studies.TrialEpochs(trial, stop)]
    # Tags from the first moment: a kill must not leave a run that nobody can name.
    tags = {"verb": "trial", "study": sweep.study, runs.PROCESS: runs.process_name()}
    with runs.start_run(
        run_name=f"trial {trial.number}", nested=True, parent_run_id=sweep.parent, tags=tags
    ) as run:
        trial.set_user_attr("mlflow_run", run.info.run_id)
        trial.set_user_attr("parent", sweep.parent)
        runs.log_params(hyperparameters(chosen) | {"trial": trial.number})
        try:
            fitted = fit(chosen, data, sweep.seed, callbacks, quiet=True)
        except (optuna.TrialPruned, Diverged):
            fitted = None
        log_epochs.deliver()
        mlflow.set_tag("state", "finished" if fitted else "pruned")
        if fitted:
            cost = fitted.model.count_params()
            figures = {"train_seconds": fitted.train_seconds, studies.COST: cost}
            for name, value in figures.items():
                trial.set_user_attr(name, value)
            mlflow.log_metrics(figures)
    # Raised outside of the run: pruned is not failed.
    if not fitted:
        raise optuna.TrialPruned
    accuracy = fitted.history["val_accuracy"][-1]
    return (accuracy, cost) if sweep.objective == "front" else accuracy


def _log_study(study: optuna.Study) -> None:
    mlflow.log_text(study.trials_dataframe().to_csv(index=False), "trials.csv")
    mlflow.log_text(study_results.report(study), "study.html")
    runs.describe_run(study_results.summary(study))
    mlflow.log_metric("study/finished_trials", studies.count(study))


def _train_the_best(study: optuna.Study, sweep: Sweep, data: Training) -> None:
    """Train the finalists in full with seeds that no trial had; register and evaluate the best.

    The recipe is trained as it is, and with as many epochs as the best: more epochs alone help too.
    """
    seeds = [sweep.seed + 1 + i for i in range(SEEDS)]
    scores: dict[Recipe, list[float]] = {}

    def trained(recipe: Recipe) -> str:
        """Mean ± sd of the validation accuracy, which is put into `scores` for each seed."""
        if recipe not in scores:
            fits = (fit(recipe, data, seed, quiet=True) for seed in seeds)
            scores[recipe] = [fitted.history["val_accuracy"][-1] for fitted in fits]
        return f"{np.mean(scores[recipe]):.4f} ± {np.std(scores[recipe], ddof=1):.4f}"

    trials = study_results.finalists(study, len(data.validation), FINALISTS)
    print(f"The best {len(trials)} trials, each with {SEEDS} other seeds:", flush=True)
    by_trial = {}
    for trial in trials:
        finalist = sweep.described(trial.params)
        finalist = replace(finalist, epochs=max(finalist.epochs, sweep.recipe.epochs))
        print(f"Trial {trial.number}: {trained(finalist)}.", flush=True)
        by_trial[f"trial {trial.number}"] = scores[finalist]
    mlflow.log_dict(by_trial, "finalists.json")
    best = max(scores, key=lambda recipe: np.mean(scores[recipe]))
    chosen = {name: as_text(value) for name, value in hyperparameters(best).items()}
    mlflow.log_dict(chosen, "best_params.json")
    mlflow.log_metric("study/best_val_accuracy", float(np.mean(scores[best])))
    print("The best: " + ", ".join(f"{name}={value}" for name, value in chosen.items()))
    for epochs in sorted({sweep.recipe.epochs, best.epochs}):
        before = replace(sweep.recipe, epochs=epochs)
        was = f"val_accuracy of {before.name} with epochs={epochs}: {trained(before)}"
        gain, error = study_results.gain_with_error(scores[best], scores[before])
        figures = {"val_accuracy": float(np.mean(scores[before]))}
        figures |= {"gain": gain, "gain_standard_error": error}
        key = "recipe" if epochs == sweep.recipe.epochs else "recipe_same_epochs"
        mlflow.log_metrics({f"{key}/{name}": value for name, value in figures.items()})
        chance = "" if gain > 2 * error else " That is no gain beyond chance."
        points = f"{100 * gain:+.2f} points (standard error {100 * error:.2f})"
        told = f"{was}; of the best {trained(best)}: {points}.{chance}"
        print(told, flush=True)
    runs.describe_run(f"{study_results.summary(study)}\n\n{told}")
    print(f"Training the best with seed {seeds[0]}, to register it.", flush=True)
    version = train_version(best, seeds[0], sweep.dataset)
    evaluate(f"models:/{registry.NAME}/{version}", sweep.dataset, promote=True)

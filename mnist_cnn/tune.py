"""`mlflow run . -e tune`: Optuna sweeps filter counts, learning rate and more, on validation.

The study lives in a database, so the same command goes on after a kill, and typed a second time,
here or with a shared storage on another machine, joins in. `trials` is the total of all.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import mlflow
import numpy as np
import optuna
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mnist_cnn import registry
from mnist_cnn.backend import keras
from mnist_cnn.data import Training, load_training
from mnist_cnn.evaluate import evaluate
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import Recipe, as_text, hyperparameters
from mnist_cnn.tracking import environment, log_params, tracked
from mnist_cnn.train import LogEpochs, train_version
from mnist_cnn.training import fit

HEARTBEAT = 5  # seconds; a trial silent for three of them is dead, and tried again
SEEDS = 3  # of the best configuration at the end, so that luck is seen
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
PLOTS = {
    "history": optuna.visualization.plot_optimization_history,
    "importance": optuna.visualization.plot_param_importances,
    "slice": optuna.visualization.plot_slice,
    "parallel coordinate": optuna.visualization.plot_parallel_coordinate,
    "intermediate values": optuna.visualization.plot_intermediate_values,
}


def tune(
    recipe: Recipe,
    trials: int,
    study: str,
    storage: str,
    epochs: int,
    timeout: int,
    seed: int,
    dataset: str,
    **ranges: tuple,
) -> None:
    """Sweep, then train the best with several seeds, register and evaluate it."""
    base = replace(recipe, epochs=epochs)
    shown = {name: as_text(values) for name, values in ranges.items()}
    settings = {"study": study, "storage": _without_password(storage), "trials": trials, **shown}
    with tracked("tune", seed=seed, dataset=dataset, **settings, **hyperparameters(base)) as run:
        data = load_training(dataset)
        log_params({"dataset_digest": data.digest, **environment()})
        sweep = _study(study, storage, repr((base, ranges, data.digest)), seed, epochs)
        _optimise(sweep, base, ranges, data, seed, trials, timeout)

        finished = [trial for trial in sweep.trials if trial.state in FINISHED]
        best = replace(base, **_settings(sweep.best_trial.params))
        _log_sweep(sweep, best)
        scores = [_score(best, data, seed + i) for i in range(2, SEEDS + 1)]
        before = [_score(base, data, seed + i) for i in range(1, SEEDS + 1)]
        version = train_version(best, seed + 1, dataset)
        source = registry.find(f"models:/{registry.NAME}/{version}")
        registry.tag(source, {"study": study, "tune_run": run.info.run_id})
        scores.append(float(source.tags["val_accuracy"]))
        mlflow.log_metrics(
            {
                "best_val_accuracy": float(np.mean(scores)),
                "recipe_val_accuracy": float(np.mean(before)),
                "finished_trials": len(finished),
            }
        )
        print(
            f"{len(finished)} trials finished. val_accuracy over {SEEDS} seeds: best "
            f"{_spread(scores)}, recipe {recipe.name} as it is {_spread(before)}."
        )
        evaluate(f"models:/{registry.NAME}/{version}", dataset, promote=True)


def suggest(trial: optuna.Trial, recipe: Recipe, ranges: dict[str, tuple]) -> Recipe:
    """The search space: a recipe from what Optuna suggests."""
    for i in range(len(recipe.filters)):
        trial.suggest_categorical(f"filters_{i + 1}", ranges["filters_choices"])
    trial.suggest_float("learning_rate", *ranges["learning_rate_range"], log=True)
    trial.suggest_categorical("batch_size", (32, 64, 128))
    trial.suggest_float("label_smoothing", 0.0, 0.2)
    return replace(recipe, **_settings(trial.params))


def _settings(params: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of a recipe from Optuna's parameters: filters_1, ... become `filters`."""
    filters = tuple(value for name, value in params.items() if name.startswith("filters_"))
    others = {name: value for name, value in params.items() if not name.startswith("filters_")}
    return {"filters": filters, **others}


def _optimise(
    sweep: optuna.Study,
    base: Recipe,
    ranges: dict[str, tuple],
    data: Training,
    seed: int,
    trials: int,
    timeout: int,
) -> None:
    def objective(trial: optuna.Trial) -> float:
        chosen = suggest(trial, base, ranges)
        with mlflow.start_run(run_name=f"trial {trial.number}", nested=True) as run:
            trial.set_user_attr("mlflow_run", run.info.run_id)
            mlflow.set_tags({"verb": "trial", "study": sweep.study_name})
            log_params(hyperparameters(chosen) | {"trial": trial.number})
            try:
                fitted = fit(chosen, data, seed, [LogEpochs(), _Report(trial)])
            except optuna.TrialPruned:
                mlflow.set_tag("state", "pruned")
                raise
            mlflow.set_tag("state", "finished")
            mlflow.log_metrics(
                {
                    "train_seconds": fitted.train_seconds,
                    "parameter_count": fitted.model.count_params(),
                }
            )
        trial.set_user_attr("parameter_count", fitted.model.count_params())
        trial.set_user_attr("train_seconds", fitted.train_seconds)
        return fitted.history["val_accuracy"][-1]

    def progress(sweep: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        done = [other for other in sweep.trials if other.state in FINISHED]
        pruned = sum(other.state == optuna.trial.TrialState.PRUNED for other in done)
        best = f"{sweep.best_value:.4f}" if len(done) > pruned else "none"
        print(f"{len(done)} of {trials} trials, {pruned} pruned, best {best}", flush=True)

    enough = optuna.study.MaxTrialsCallback(trials, FINISHED)
    if sum(trial.state in FINISHED for trial in sweep.trials) < trials:
        print(f"Study {sweep.study_name}: Ctrl-C stops; the same command goes on.", flush=True)
        sweep.optimize(objective, timeout=timeout or None, callbacks=[progress, enough])
    if not any(trial.state == optuna.trial.TrialState.COMPLETE for trial in sweep.trials):
        raise UserError(f"study={sweep.study_name} has no completed trial yet: give it more time.")


class _Report(keras.callbacks.Callback):
    """Tells Optuna the validation accuracy of every epoch, and ends a hopeless trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self.trial = trial

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.trial.report((logs or {})["val_accuracy"], epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def _study(name: str, storage: str, definition: str, seed: int, epochs: int) -> optuna.Study:
    """The study of that name, new or gone on with. Raises UserError if it is another search."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    retry = optuna.storages.RetryFailedTrialCallback(max_retry=2)

    def dead(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if "mlflow_run" in trial.user_attrs:
            mlflow.MlflowClient().set_terminated(trial.user_attrs["mlflow_run"], "KILLED")
        retry(study, trial)

    try:
        database = optuna.storages.RDBStorage(
            storage,
            heartbeat_interval=HEARTBEAT,
            grace_period=3 * HEARTBEAT,
            failed_trial_callback=dead,
        )
        study = optuna.create_study(
            storage=database,
            study_name=name,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.HyperbandPruner(1, epochs),
        )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = type(error).__name__
        raise UserError(f"storage={_without_password(storage)} cannot be used: {reason}.") from None
    # The random stream must not begin anew when a study goes on.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), constant_liar=True)
    digest = hashlib.sha256(definition.encode()).hexdigest()[:16]
    if study.user_attrs.setdefault("definition", digest) != digest:
        raise UserError(
            f"study={name} exists with another recipe, search space or dataset; "
            "choose another name for this one."
        )
    study.set_user_attr("definition", digest)
    return study


def _log_sweep(sweep: optuna.Study, best: Recipe) -> None:
    mlflow.log_text(sweep.trials_dataframe().to_csv(index=False), "trials.csv")
    chosen = {name: as_text(value) for name, value in hyperparameters(best).items()}
    mlflow.log_dict(chosen, "best_params.json")
    parts = []
    for name, plot in PLOTS.items():
        try:
            figure = plot(sweep)
        except (ValueError, RuntimeError) as error:  # importance needs two trials that differ
            parts.append(f"<p>{name}: {error}</p>")
            continue
        # plotly itself stands in the page once: it opens without a network.
        parts.append(figure.to_html(full_html=False, include_plotlyjs="<script" not in str(parts)))
    mlflow.log_text("<!doctype html><meta charset=utf-8>" + "\n".join(parts), "study.html")


def _score(recipe: Recipe, data: Training, seed: int) -> float:
    return fit(recipe, data, seed).history["val_accuracy"][-1]


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _without_password(storage: str) -> str:
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise UserError("storage is not a database URL like sqlite:///tune.db.") from None

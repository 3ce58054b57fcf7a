"""`mlflow run . -e tune`: Optuna sweeps filter counts, learning rate and more, on validation."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
import optuna

from mnist_cnn.evaluate import evaluate
from mnist_cnn.evaluation import metrics, study_results
from mnist_cnn.learning import study as studies
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Training, load_test, load_training
from mnist_cnn.learning.fit import Fitted, fit
from mnist_cnn.learning.model import build, predict
from mnist_cnn.learning.processes import run_workers
from mnist_cnn.learning.study import Sweep
from mnist_cnn.parameters import UserError, without_password
from mnist_cnn.recipes import Recipe, as_text, hyperparameters
from mnist_cnn.tracking import registry, runs
from mnist_cnn.tracking.failures import no_retries
from mnist_cnn.train import LogEpochs, log_dataset, train

FINALISTS, SEEDS = 3, 3  # at the end, so that luck is seen: configurations, other seeds of each
GOES_ON = "the same command goes on with the study."


def tune(recipe: Recipe, epochs: int, workers: int, storage: str, **more: Any) -> None:
    """Sweep, train the best with several seeds, register it; `more`: as in `Sweep`."""
    trials = more["trials"]
    workers = min(workers or runs.cores(), trials)
    settings = more | {"storage": without_password(storage), "workers": workers}
    settings |= hyperparameters(replace(recipe, epochs=epochs))
    with runs.tracked("tune", **settings) as run:
        runs.name_run(f"tune {recipe.name}, study {more['study']}")
        data = load_training(more["dataset"])
        load_test(more["dataset"])  # refused now, not by evaluate after all trials
        runs.log_params({"dataset_digest": data.digest, **runs.environment()})
        log_dataset(data.train, more["dataset"], "training", data.digest)
        more |= {"dataset_digest": data.digest, "parent": run.info.run_id, "storage": storage}
        sweep = _within_bounds(Sweep(recipe=recipe, epochs=epochs, **more))
        opened = studies.open_study(sweep, worker=0)
        print(f"Study {sweep.study}: Ctrl-C stops; the same command goes on.", flush=True)
        was_complete = studies.count(opened) >= trials
        _run_all_trials(opened, sweep, workers, data)

        # Of several machines only the one that ended the last trial goes on to the end.
        ended = studies.ended(opened)
        last = max(ended, key=lambda t: (t.datetime_complete, t.number), default=None)
        elsewhere = last and last.user_attrs.get("parent") != sweep.parent
        if len(ended) >= trials and not was_complete and elsewhere:
            print("The last trial ended elsewhere; the best is trained there.")
        else:
            _train_the_best(opened, sweep, workers, data)


def _run_all_trials(study: optuna.Study, sweep: Sweep, workers: int, data: Training) -> None:
    """Run the trials, of several workers in processes; the study is logged however they end."""
    try:
        codes = _shared(_run_trials, sweep, workers, data)
        if any(codes):
            print(f"Of {workers} workers some died (exit codes {codes}).")
        if all(codes):
            with no_retries():  # the reason may be a lost server: said as such
                mlflow.MlflowClient().search_experiments(max_results=1)
            raise UserError(f"every worker died; {GOES_ON}")
    except optuna.exceptions.StorageInternalError as error:
        told = studies.storage_error(sweep.storage, error)
        raise UserError(f"{told} {GOES_ON.capitalize()}") from None
    except BaseException as error:
        with no_retries(), suppress(mlflow.MlflowException):  # it has been waited for
            runs.close_orphaned_runs()  # of workers that are no more
            _log_study(study)
        if isinstance(error, KeyboardInterrupt):
            done = f"{studies.count(study)} of {sweep.trials} trials"
            raise UserError(f"interrupted after {done}; {GOES_ON}") from None
        error.add_note(GOES_ON.capitalize())
        raise
    _log_study(study)


def _shared(work: Callable, sweep: Sweep, workers: int, data: Training) -> list[int | None]:
    """`work(sweep, number, data)` by each of the workers, here if it is one; their exit codes."""
    if workers > 1:
        return run_workers(_worker, (work, sweep), workers, runs.cores())
    work(sweep, 0, data)
    return [0]


def _worker(work: Callable, sweep: Sweep, worker: int) -> None:
    """The work of one process; it inherits store and experiment as MLflow's variables."""
    try:
        work(sweep, worker, load_training(sweep.dataset))
    except (mlflow.MlflowException, optuna.exceptions.StorageInternalError, BrokenPipeError):
        os._exit(1)  # the parent says how to go on, and nobody reads what is still to be printed


def _run_trials(sweep: Sweep, worker: int, data: Training) -> None:
    study = studies.open_study(sweep, worker)
    started, before = time.monotonic(), studies.count(study)
    fits = (FINALISTS + 2) * SEEDS + 1  # with the recipe twice, and the one registered

    def objective(trial: optuna.Trial) -> float | tuple[float, int]:
        try:
            return _run_trial(trial, sweep, data)
        except mlflow.MlflowException:
            # Tried again, as a killed one is: the epochs it reported would prune all after it.
            study.enqueue_trial(trial.params)
            raise

    def on_trial_end(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        done = [each.number for each in studies.ended(study)]
        if trial.number not in done:
            return
        now, best = len(done), study_results.best_trial(study)
        with no_retries(), suppress(mlflow.MlflowException):  # a lost server holds up no trial
            value = best.values[0] if best else 0.0
            mlflow.log_metric("study/best_so_far", value, now, run_id=sweep.parent)
        spent = time.monotonic() - started
        seconds = spent / max(1, now - before)
        more = min(seconds * max(0, sweep.trials - now), (sweep.timeout or 1e9) - spent)
        left = f"About {(max(0, more) + seconds * fits) / 60:.1f} minutes are left"
        told = f"{study_results.described(trial).capitalize()}.\n  {study_results.summary(study)}"
        print(f"{told}\n  {left}, with those to train the best with other seeds.", flush=True)

    studies.run_trials(study, sweep, objective, on_trial_end)


def _run_trial(trial: optuna.Trial, sweep: Sweep, data: Training) -> float | tuple[float, int]:
    """Train what Optuna suggests, in a nested run: its accuracy, or accuracy and cost."""
    if dead := trial.user_attrs.get("mlflow_run"):  # this one is tried again
        with suppress(mlflow.MlflowException):  # it may be of another store
            mlflow.MlflowClient().set_tag(dead, "state", "failed")
            mlflow.MlflowClient().set_terminated(dead, "KILLED")
    chosen, log_epochs = sweep.suggest(trial), LogEpochs()
    excess = _excess(chosen, sweep)
    for bound in excess.keys() - trial.constraints.keys():  # tried again, it has them
        trial.set_constraint(bound, excess[bound])
    if max(excess.values(), default=0) > 0:
        raise optuna.TrialPruned
    tags = {"verb": "trial", "study": sweep.study, runs.PROCESS: runs.process_name()}
    how = {"run_name": f"trial {trial.number}", "nested": True, "parent_run_id": sweep.parent}
    with runs.start_run(tags=tags, **how) as run:
        trial.set_user_attr("mlflow_run", run.info.run_id)
        trial.set_user_attr("parent", sweep.parent)
        runs.log_params(hyperparameters(chosen) | {"trial": trial.number})
        try:
            fitted = fit(chosen, data, sweep.seed, [log_epochs, studies.pruning(trial)])
        except (optuna.TrialPruned, UserError):
            fitted = None
        log_epochs.deliver()
        mlflow.set_tag("state", "finished" if fitted else "pruned")
        if fitted:
            facts = _measured(fitted, data) | {"train_seconds": fitted.train_seconds}
            facts[studies.COST] = cost = fitted.model.count_params()
            mlflow.log_metrics({k: v for k, v in facts.items() if k != "val_accuracy"})  # a curve
            for name, value in facts.items():
                trial.set_user_attr(name, value)
        told = f"{facts['val_accuracy']:.4f}" if fitted else "ended early"
        runs.describe_run(f"Trial {trial.number} of study {sweep.study}.", f"val_accuracy: {told}.")
    if not fitted:
        raise optuna.TrialPruned  # outside of the run: pruned is not failed
    if sweep.objective == "front":
        return facts["val_accuracy"], cost
    return facts[f"val_{sweep.objective}"]


def _measured(fitted: Fitted, data: Training) -> dict[str, float]:
    """What may be searched for; likelihood knows better than accuracy (docs/measurements.md)."""
    likelihood = metrics.likelihood(data.validation.y, predict(fitted.model, data.validation.x))
    return {"val_accuracy": fitted.history["val_accuracy"][-1], "val_likelihood": likelihood}


def _excess(recipe: Recipe, sweep: Sweep) -> dict[str, float]:
    """By how much a model is above each bound, as a share of it; files are as convert's default."""
    bounds = {"max_parameters": sweep.max_parameters, "max_kilobytes": sweep.max_kilobytes}
    if not any(bounds.values()):
        return {}
    from mnist_cnn.browser import tfjs  # a second, which a search without bounds need not wait

    keras.backend.clear_session()  # its layers are numbered anew, as in a fit
    model = build(recipe)
    with TemporaryDirectory() as folder:
        tfjs.write(model, Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    sizes = {"max_parameters": model.count_params(), "max_kilobytes": size / 1000}
    return {name: sizes[name] / bound - 1 for name, bound in bounds.items() if bound}


def _within_bounds(sweep: Sweep) -> Sweep:
    """Without filter counts that break a bound even in the first convolution. Or UserError."""
    least, *rest = [min(sweep.filters_choices)] * len(sweep.recipe.filters)
    wide = {n: replace(sweep.recipe, filters=(n, *rest)) for n in sweep.filters_choices}
    excess = {n: _excess(recipe, sweep) for n, recipe in wide.items()}
    for name, share in excess[least].items():
        if share > 0:
            told = f"allows nothing: the smallest model of filters_choices has {share:.0%} more"
            raise UserError(f"{name}={getattr(sweep, name)} {told}.")
    fitting = [n for n, shares in excess.items() if max(shares.values(), default=0) <= 0]
    return replace(sweep, filters_choices=tuple(fitting))


def _log_study(study: optuna.Study) -> None:
    mlflow.log_text(study.trials_dataframe().to_csv(index=False), "trials.csv")
    mlflow.log_text(study_results.report(study), "study.html")
    runs.describe_run(study_results.summary(study), GOES_ON.capitalize())
    mlflow.log_metric("study/finished_trials", studies.count(study))


def _fit_each(jobs: list[tuple[Recipe, int]], share: int, sweep: Sweep, i: int, data: Any) -> None:
    """Fit every `share`-th of recipes with seeds; what comes of it is an attribute of the study."""
    study = studies.open_study(sweep, i)
    for recipe, seed in jobs[i::share]:
        try:
            found = _measured(fit(recipe, data, seed), data)
        except UserError:  # it diverged, which with the seed of the trial it did not
            found = dict.fromkeys(("val_accuracy", "val_likelihood"), 0.0)
        study.set_user_attr(f"seed {seed}: {hyperparameters(recipe)}", found)
        told = f"Seed {seed}, filters={as_text(recipe.filters)}, epochs={recipe.epochs}"
        print(f"{told}: val_accuracy {found['val_accuracy']:.4f}.", flush=True)


def _with_other_seeds(
    recipes: list[Recipe], study: optuna.Study, sweep: Sweep, workers: int, data: Training
) -> dict[Recipe, dict[str, list[float]]]:
    """Figures of each recipe, trained in full with SEEDS seeds that no trial had."""
    seeds = range(sweep.seed + 1, sweep.seed + 1 + SEEDS)
    names = {(r, s): f"seed {s}: {hyperparameters(r)}" for r in recipes for s in seeds}
    jobs = [job for job, name in names.items() if name not in study.user_attrs]
    share = max(1, min(workers, len(jobs)))
    if any(_shared(partial(_fit_each, jobs, share), sweep, share, data)):
        raise UserError(f"a worker died; {GOES_ON}")
    known = study.user_attrs
    each = {r: [known[names[r, seed]] for seed in seeds] for r in recipes}
    return {
        r: {name: [one[name] for one in found] for name in found[0]} for r, found in each.items()
    }


def _train_the_best(study: optuna.Study, sweep: Sweep, workers: int, data: Training) -> None:
    """Train the finalists, and the recipe, in full with other seeds; register the best."""
    epochs = max(sweep.epochs, sweep.recipe.epochs)
    trials = study_results.finalists(study, len(data.validation), FINALISTS)
    tried = {f"trial {t.number}": replace(sweep.suggest(t), epochs=epochs) for t in trials}
    before = [replace(sweep.recipe, epochs=n) for n in sorted({sweep.recipe.epochs, epochs})]
    told = f"The best {len(trials)} trials, and {sweep.recipe.name} as it is"
    print(f"{told} and with as many epochs, each with {SEEDS} other seeds:", flush=True)
    measured = _with_other_seeds([*tried.values(), *before], study, sweep, workers, data)

    def scores(recipe: Recipe, of: str = "accuracy") -> list[float]:
        return measured[recipe][f"val_{of}"]

    def spread(recipe: Recipe) -> str:
        return f"{np.mean(scores(recipe)):.4f} ± {np.std(scores(recipe), ddof=1):.4f}"

    for name, finalist in tried.items():
        told = f"{spread(finalist)}, likelihood {np.mean(scores(finalist, 'likelihood')):.4f}"
        print(f"{name.capitalize()}: val_accuracy {told}.", flush=True)
    mlflow.log_dict({name: measured[recipe] for name, recipe in tried.items()}, "finalists.json")
    of = "accuracy" if sweep.objective == "front" else sweep.objective
    best = max(tried.values(), key=lambda recipe: np.mean(scores(recipe, of)))
    chosen = {name: as_text(value) for name, value in hyperparameters(best).items()}
    mlflow.log_dict(chosen, "best_params.json")
    mlflow.log_metric("study/best_val_accuracy", float(np.mean(scores(best))))
    print("The best: " + ", ".join(f"{name}={value}" for name, value in chosen.items()))
    for recipe in before:
        gain, error = study_results.gain_with_error(scores(best), scores(recipe))
        key = "recipe" if recipe == sweep.recipe else "recipe_same_epochs"
        mlflow.log_metric(f"{key}/val_accuracy", float(np.mean(scores(recipe))))
        mlflow.log_metrics({f"{key}/gain": gain, f"{key}/gain_standard_error": error})
        told = f"val_accuracy of {recipe.name} with epochs={recipe.epochs}: {spread(recipe)}; "
        told += f"of the best {spread(best)}: {100 * gain:+.2f} points (standard error "
        told += f"{100 * error:.2f})." + " That is no gain beyond chance." * (gain <= 2 * error)
        print(told, flush=True)
    runs.describe_run(study_results.summary(study), told)
    print(f"Training the best with seed {sweep.seed + 1}, to register it.", flush=True)
    version = train(best, sweep.seed + 1, sweep.dataset)
    evaluate(f"models:/{registry.NAME}/{version}", sweep.dataset, promote=True)

"""The study of a sweep: what is searched, its database, and how trials run. Knows no MLflow."""

import math
import platform
import random
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mnist_cnn.learning.backend import keras
from mnist_cnn.parameters import UserError, reason, without_password
from mnist_cnn.recipes import HYPERPARAMETERS, Recipe, as_text, hyperparameters

# Heartbeats are experimental in Optuna; nothing else notices a killed trial.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

HEARTBEAT = 5  # seconds; a trial silent for three of them is dead, and tried again
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
COST = "parameter_count"  # the price of a model; its seconds stand beside it in trials.csv
# What makes it another sweep, beside the recipe: refused under the same name.
SAME = """seed dataset_digest filters_choices learning_rate_range objective sampler pruner
    max_parameters max_kilobytes""".split()


@dataclass(frozen=True)
class Sweep:
    """All that a worker of a sweep needs to know."""

    recipe: Recipe  # as it was before the sweep
    epochs: int  # of a trial
    seed: int
    dataset_digest: str
    filters_choices: tuple[int, ...]
    learning_rate_range: tuple[float, float]
    objective: str  # likelihood or accuracy, or front: accuracy against COST
    max_parameters: int  # of a model; 0: any number
    max_kilobytes: int  # 1,000 bytes of a model's TensorFlow.js files; 0: any size
    sampler: str
    pruner: str
    study: str
    storage: str
    dataset: str
    trials: int  # finished ones, in all
    timeout: int  # seconds until no trial may begin; 0: none
    parent: str  # the run in MLflow above those of the trials

    def suggest(self, trial: BaseTrial) -> Recipe:
        """The search space: a recipe of what `trial` suggests, or already has as its params."""
        convolutions = [f"filters_{i + 1}" for i in range(len(self.recipe.filters))]
        choices, batches = self.filters_choices, sorted({32, 64, 128, self.recipe.batch_size})
        return replace(
            self.recipe,
            epochs=self.epochs,
            filters=tuple(trial.suggest_categorical(name, choices) for name in convolutions),
            learning_rate=trial.suggest_float("learning_rate", *self.learning_rate_range, log=True),
            batch_size=trial.suggest_categorical("batch_size", batches),
            label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        )


def open_study(sweep: Sweep, worker: int) -> optuna.Study:
    """The study of `sweep`, new or continued; `worker`: number of this process on its machine.

    Raises UserError if it is of another search, or if the database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for attempts_left in (2, 1, 0):
        try:
            study = _create_study(sweep)
            break
        except (SQLAlchemyError, ImportError, ValueError) as error:
            if not attempts_left:  # of several that make the tables at once, one does
                raise storage_error(sweep.storage, error) from None
            time.sleep(random.random())
    # Neither the processes of one study nor a study that goes on may repeat a random stream.
    place = 0 if worker == 0 else zlib.crc32(f"{platform.node()} {worker}".encode())
    seed = (sweep.seed + len(study.trials) + place) % 2**32
    # TPE is multivariate by default in Optuna 5. Of 20 trials its 10 random ones would be half.
    tpe = optuna.samplers.TPESampler(n_startup_trials=5, seed=seed)
    study.sampler = tpe if sweep.sampler == "tpe" else optuna.samplers.RandomSampler(seed)
    _record_search(study, sweep)
    # What is to be beaten is tried first, if the space holds it; out of a range it only warns.
    known = hyperparameters(sweep.recipe)
    start = FixedTrial(known | {f"filters_{i + 1}": n for i, n in enumerate(sweep.recipe.filters)})
    with suppress(ValueError, UserWarning), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sweep.suggest(start)
        study.enqueue_trial(start.params, skip_if_exists=True)
    return study


def _create_study(sweep: Sweep) -> optuna.Study:
    storage = RDBStorage(
        sweep.storage,
        heartbeat_interval=HEARTBEAT,
        grace_period=3 * HEARTBEAT,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=2),
    )
    pruners = {
        "median": optuna.pruners.MedianPruner(),  # spares the first five, the recipe among them
        "hyperband": optuna.pruners.HyperbandPruner(1, sweep.epochs),
        "none": optuna.pruners.NopPruner(),
    }
    front = sweep.objective == "front"  # Optuna prunes no search for two
    return optuna.create_study(
        storage=storage,
        study_name=sweep.study,
        load_if_exists=True,
        directions=["maximize", "minimize"] if front else ["maximize"],
        pruner=pruners["none" if front else sweep.pruner],
    )


def storage_error(storage: str, error: BaseException) -> UserError:
    """One sentence about a database that cannot be used, with the answer of its driver."""
    cause = getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error
    return UserError(f"storage={without_password(storage)} cannot be used: {reason(cause)}.")


def _record_search(study: optuna.Study, sweep: Sweep) -> None:
    """Raise UserError if the study was begun with another search, naming what differs."""
    search = {name: getattr(sweep, name) for name in SAME} | {"recipe": sweep.recipe.name}
    search |= hyperparameters(replace(sweep.recipe, epochs=sweep.epochs))
    search = {name: as_text(value) for name, value in search.items()}
    # What a study recorded before a hyperparameter or a bound existed stands for.
    plain = {name: as_text(getattr(Recipe, name, 0)) for name in (*HYPERPARAMETERS, *SAME)}
    known = study.user_attrs.get("search", search)  # an earlier version recorded nothing
    differences = [f"{k}={v}" for k, v in (plain | known).items() if search[k] != v]
    try:
        for trial in () if differences else study.get_trials(deepcopy=False, states=FINISHED):
            sweep.suggest(trial)
    except ValueError:
        differences = ["search space"]
    if differences:
        told = f"study={study.study_name} exists with another {', '.join(differences)}"
        raise UserError(f"{told}; choose another name for this one.")
    study.set_user_attr("search", search)


def run_trials(study: optuna.Study, sweep: Sweep, objective: Callable, callback: Callable) -> None:
    """Optimize until `sweep.trials` of the study are finished, or its `timeout` is over.

    Where others run the last ones, wait: one of them may die, and its trial falls to us.
    """

    def run_if_needed(trial: optuna.Trial) -> Any:
        # Each counts as running before it looks; two that both give way come back at random times.
        if count(study, TrialState.RUNNING) > sweep.trials:
            time.sleep(random.random())
            raise CancelledError
        return objective(trial)

    until = time.monotonic() + (sweep.timeout or math.inf)
    known: set[int] = set()
    while time.monotonic() < until:
        # Optuna passes over a trial that was killed before its own first heartbeat: it gets one.
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                cast(RDBStorage, study._storage).record_heartbeat(trial._trial_id)
                known.add(trial.number)
        fail_stale_trials(study)
        if count(study) >= sweep.trials:
            return
        if count(study, TrialState.RUNNING) >= sweep.trials:
            time.sleep(0.5)
        else:
            study.optimize(run_if_needed, 1, catch=CancelledError, callbacks=[callback])


def ended(study: optuna.Study, *others: TrialState) -> list[FrozenTrial]:
    """The trials that ended, early or not, but for what broke a bound, and those in `others`."""
    trials = study.get_trials(deepcopy=False, states=FINISHED + others)  # one look misses none
    return [t for t in trials if t.state in others or max(t.constraints.values(), default=0) <= 0]


def count(study: optuna.Study, *others: TrialState) -> int:
    """Number of the trials that have ended, and of all in some `others` of the states."""
    return len(ended(study, *others))


def pruning(trial: optuna.Trial) -> keras.callbacks.Callback:
    """Reports each epoch's validation accuracy to Optuna; TrialPruned ends a hopeless trial."""

    def report(epoch: int, logs: dict[str, float]) -> None:
        if len(trial.study.directions) == 1:
            trial.report(logs["val_accuracy"], epoch + 1)
            if trial.should_prune():
                raise optuna.TrialPruned

    return keras.callbacks.LambdaCallback(on_epoch_end=report)

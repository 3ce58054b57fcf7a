"""The study of a sweep: its database, and how trials are run. Knows no MLflow."""

import math
import platform
import random
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from typing import Any, cast

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.processes import parent_is_gone
from mnist_cnn.learning.search import PLAIN, Sweep
from mnist_cnn.parameters import UserError

# Heartbeats are experimental in Optuna; nothing else notices a killed trial.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

HEARTBEAT = 5  # seconds; a trial silent for three of them is dead, and tried again
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
COST = "parameter_count"  # the price of a model; its seconds stand beside it in trials.csv


class TrialNotNeeded(Exception):
    """A trial that began although others already make up the number asked for."""


def open_study(
    sweep: Sweep, worker: int, on_stale_trial: Callable[[FrozenTrial], None]
) -> optuna.Study:
    """The study of `sweep`, new or continued. Raises UserError if it is of another search.

    `worker` is the number of this process among those of one machine. `on_stale_trial` is called
    with each trial whose process has died; the trial is then tried again.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    retry = RetryHeartbeatStaleTrialCallback(max_retry=2)

    def fail_and_retry(study: optuna.Study, trial: FrozenTrial) -> None:
        on_stale_trial(trial)
        retry(study, trial)

    study = _create_study(sweep, fail_and_retry)
    # Neither the processes of one study nor a study that goes on may repeat a random stream.
    place = 0 if worker == 0 else zlib.crc32(f"{platform.node()} {worker}".encode())
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study.sampler = samplers[sweep.sampler](seed=(sweep.seed + len(study.trials) + place) % 2**32)
    _refuse_another_search(study, sweep)
    start = sweep.start()
    if start and not study.user_attrs:
        study.enqueue_trial(start, skip_if_exists=True)  # what is to be beaten is tried first
    study.set_user_attr("search", sweep.as_texts())
    return study


def _create_study(
    sweep: Sweep, on_stale_trial: Callable[[optuna.Study, FrozenTrial], None]
) -> optuna.Study:
    """The study in its database. Raises UserError if the database cannot be used."""
    front = sweep.objective == "front"
    pruners = {
        "median": optuna.pruners.MedianPruner(),  # spares the first five, the recipe among them
        "hyperband": optuna.pruners.HyperbandPruner(1, sweep.epochs),
        "none": optuna.pruners.NopPruner(),
    }
    for attempts_left in (2, 1, 0):
        try:
            return optuna.create_study(
                storage=RDBStorage(
                    sweep.storage,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=3 * HEARTBEAT,
                    heartbeat_stale_trial_callback=on_stale_trial,
                ),
                study_name=sweep.study,
                load_if_exists=True,
                directions=["maximize", "minimize"] if front else ["maximize"],
                pruner=pruners["none" if front else sweep.pruner],
            )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            # Of several that make the tables at once, one does; the others find them made.
            if not attempts_left or not isinstance(error, SQLAlchemyError):
                raise storage_error(sweep.storage, error) from None
            time.sleep(random.random())
    raise AssertionError("not reached")


def storage_error(storage: str, error: BaseException) -> UserError:
    """One sentence about a database that cannot be used, with the answer of its driver."""
    cause = getattr(error.__cause__ or error, "orig", None) or type(error).__name__
    reason = str(cause).strip().splitlines()[0].rstrip(".")
    return UserError(f"storage={without_password(storage)} cannot be used: {reason}.")


def without_password(storage: str) -> str:
    """The address of a database as it may be logged. Raises UserError if it is none."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise UserError("storage is not a database URL like sqlite:///tune.db.") from None


def _refuse_another_search(study: optuna.Study, sweep: Sweep) -> None:
    """Raise UserError if the study was begun with another search, naming what differs.

    A hyperparameter that recipes did not have then counts as its plain default. Of a study that
    recorded no search (of an earlier version) the space of its trials is compared.
    """
    known, space = study.user_attrs.get("search"), sweep.space()
    if known:
        now = PLAIN | sweep.as_texts()
        found = (PLAIN | known).items()
        differences = [f"{name}={text}" for name, text in found if now[name] != text]
    else:
        same = all(trial.distributions.items() <= space.items() for trial in study.trials)
        differences = [] if same else ["search space"]
        if same and study.trials:
            print("The study was begun by an earlier version, perhaps with another recipe.")
    if differences:
        raise UserError(
            f"study={study.study_name} exists with another {', '.join(differences)}; "
            "choose another name for this one."
        )


def run_trials(
    study: optuna.Study,
    sweep: Sweep,
    objective: Callable[[optuna.Trial], Any],
    on_trial_end: Callable[[FrozenTrial], None],
) -> None:
    """Run trials until `sweep.trials` of the study are finished, or its `timeout` is over.

    Where others run the last ones, wait: one of them may die, and its trial falls to us.
    """

    def run_if_needed(trial: optuna.Trial) -> Any:
        # Each counts as running before it looks. Of two that begin at once both may see the other
        # and give way; they come back at random times.
        if count(study, (*FINISHED, TrialState.RUNNING)) > sweep.trials:
            time.sleep(random.random())
            raise TrialNotNeeded
        return objective(trial)

    storage = cast(RDBStorage, study._storage)
    until = time.monotonic() + (sweep.timeout or math.inf)
    known: set[int] = set()
    callbacks = [lambda _, trial: on_trial_end(trial) if trial.state in FINISHED else None]
    while time.monotonic() < until:
        # Killed before its own first heartbeat, a trial would never count as dead: Optuna passes
        # over it.
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                storage.record_heartbeat(trial._trial_id)
                known.add(trial.number)
        fail_stale_trials(study)
        if count(study) >= sweep.trials:
            return
        if count(study, (*FINISHED, TrialState.RUNNING)) >= sweep.trials:
            time.sleep(0.5)
            continue
        study.optimize(run_if_needed, n_trials=1, catch=TrialNotNeeded, callbacks=callbacks)


def count(study: optuna.Study, states: Sequence[TrialState] = FINISHED) -> int:
    """Number of trials in these states: by default at their end, or at an early one."""
    return len(study.get_trials(deepcopy=False, states=tuple(states)))


class TrialEpochs(keras.callbacks.Callback):
    """Reports each epoch's validation accuracy to Optuna; TrialPruned ends a hopeless trial.

    It ends a worker too that is told to `stop`, whose trial then failed, or whose parent was
    killed: that trial counts as dead and is tried again.
    """

    def __init__(self, trial: optuna.Trial, stop: Event | None) -> None:
        super().__init__()
        self.trial, self.stop = trial, stop

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:  # noqa: D102
        if len(self.trial.study.directions) == 1:  # Optuna prunes no search for a front
            self.trial.report((logs or {})["val_accuracy"], epoch + 1)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:  # noqa: D102
        if self.stop and self.stop.is_set():
            raise KeyboardInterrupt
        if parent_is_gone():
            raise SystemExit(1)

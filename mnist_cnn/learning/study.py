"""The study of a sweep: its database, and how trials are run. Knows no MLflow."""

from __future__ import annotations

import platform
import random
import time
import warnings
import zlib
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Any, cast

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.processes import parent_is_gone
from mnist_cnn.learning.search import PLAIN, Search
from mnist_cnn.parameters import UserError

# Heartbeats are experimental in Optuna; nothing else notices a killed trial.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

HEARTBEAT = 5  # seconds; a trial silent for three of them is dead, and tried again
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
EPOCH_SECONDS = "epoch_seconds"  # of a trial's last epoch
COST = "parameter_count"  # the price of a model; its seconds stand beside it in trials.csv


class TrialNotNeeded(Exception):
    """A trial that began although others already make up the number asked for."""


def open_study(
    name: str,
    storage: str,
    search: Search,
    worker: int,
    on_stale_trial: Callable[[FrozenTrial], None],
) -> optuna.Study:
    """The study `name`, new or continued. Raises UserError if it is of another search.

    `worker` is the number of this process among those of one machine. `on_stale_trial` is called
    with each trial whose process has died; the trial is then tried again.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _create_study(name, storage, search, on_stale_trial)
    # Neither the processes of one study nor a study that goes on may repeat a random stream.
    place = 0 if worker == 0 else zlib.crc32(f"{platform.node()} {worker}".encode())
    seed = (search.seed + len(study.trials) + place) % 2**32
    study.sampler = {
        "tpe": optuna.samplers.TPESampler(seed=seed),
        "random": optuna.samplers.RandomSampler(seed=seed),
    }[search.sampler]
    _refuse_another_search(study, search)
    start = search.start()
    if start and not study.user_attrs:
        study.enqueue_trial(start, skip_if_exists=True)  # what is to be beaten is tried first
    study.set_user_attr("search", search.as_texts())
    return study


def _create_study(
    name: str, storage: str, search: Search, on_stale_trial: Callable[[FrozenTrial], None]
) -> optuna.Study:
    """The study in its database. Raises UserError if the database cannot be used."""
    retry = RetryHeartbeatStaleTrialCallback(max_retry=2)

    def fail_and_retry(study: optuna.Study, trial: FrozenTrial) -> None:
        on_stale_trial(trial)
        retry(study, trial)

    pruners = {
        "median": optuna.pruners.MedianPruner(),  # spares the first five, the recipe among them
        "hyperband": optuna.pruners.HyperbandPruner(1, search.recipe.epochs),
        "none": optuna.pruners.NopPruner(),
    }
    front = search.objective == "front"
    for attempts_left in (2, 1, 0):
        try:
            return optuna.create_study(
                storage=RDBStorage(
                    storage,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=3 * HEARTBEAT,
                    heartbeat_stale_trial_callback=fail_and_retry,
                ),
                study_name=name,
                load_if_exists=True,
                directions=["maximize", "minimize"] if front else ["maximize"],
                pruner=pruners["none" if front else search.pruner],
            )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            # Of several that make the tables at once, one does; the others find them made.
            if not attempts_left or not isinstance(error, SQLAlchemyError):
                raise storage_error(storage, error) from None
            time.sleep(random.random())
    raise AssertionError("not reached")


def storage_error(storage: str, error: BaseException) -> UserError:
    """One sentence about a database that cannot be used, with the answer of its driver."""
    cause = getattr(error.__cause__ or error, "orig", None) or type(error).__name__
    reason = str(cause).strip().splitlines()[0].rstrip(".")
    return UserError(f"storage={without_password(storage)} cannot be used: {reason}.")


def _refuse_another_search(study: optuna.Study, search: Search) -> None:
    """Raise UserError if the study was begun with another search, naming what differs.

    A hyperparameter that recipes did not have then counts as its plain default. A study of an
    earlier version recorded a digest only: of it the search space of its trials is compared.
    """
    known = study.user_attrs.get("search")
    if known is None:
        space = search.space()
        same = all(trial.distributions.items() <= space.items() for trial in study.trials)
        differences = [] if same else ["search space"]
        if same and study.trials:
            print(
                f"Study {study.study_name} was begun by an earlier version, "
                "whose recipe may be another one.",
                flush=True,
            )
    else:
        before, now = ({**PLAIN, **texts} for texts in (known, search.as_texts()))
        differences = [f"{name}={text}" for name, text in before.items() if now[name] != text]
    if differences:
        raise UserError(
            f"study={study.study_name} exists with another {', '.join(differences)}; "
            "choose another name for this one."
        )


def run_trials(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], Any],
    trials: int,
    timeout: float,
    on_trial_end: Callable[[FrozenTrial], None],
) -> None:
    """Run trials until `trials` of the study are finished, or no more may begin after `timeout` s.

    Where others run the last ones, wait: one of them may die, and its trial falls to us.
    """
    started = time.monotonic()
    known: set[int] = set()
    callbacks = [lambda _, trial: on_trial_end(trial) if trial.state in FINISHED else None]
    while not timeout or time.monotonic() < started + timeout:
        _record_first_heartbeats(study, known)
        fail_stale_trials(study)
        if count_finished(study) >= trials:
            return
        if count_finished(study) + _count_running(study) >= trials:
            time.sleep(0.5)
            continue
        study.optimize(
            _if_needed(objective, trials), n_trials=1, catch=TrialNotNeeded, callbacks=callbacks
        )


def _record_first_heartbeats(study: optuna.Study, known: set[int]) -> None:
    """Give each running trial whose number is not yet `known` one heartbeat.

    Killed before its own first one, a trial would never count as dead: Optuna passes over it.
    """
    storage = cast(RDBStorage, study._storage)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in known:
            storage.record_heartbeat(trial._trial_id)
            known.add(trial.number)


def _if_needed(
    objective: Callable[[optuna.Trial], Any], trials: int
) -> Callable[[optuna.Trial], Any]:
    """`objective`, unless enough trials run: each is recorded as running before it counts them.

    Of two that begin at once both may see the other and give way; they come back at random times.
    """

    def run_if_needed(trial: optuna.Trial) -> Any:
        if count_finished(trial.study) + _count_running(trial.study) > trials:
            time.sleep(random.random())
            raise TrialNotNeeded
        return objective(trial)

    return run_if_needed


def count_finished(study: optuna.Study) -> int:
    """Number of trials that came to their end, or to an early one by the pruner."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def _count_running(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


class ReportToOptuna(keras.callbacks.Callback):
    """Reports the validation accuracy of every epoch, and raises TrialPruned if it is hopeless."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self.trial = trial

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:  # noqa: D102
        logs = logs or {}
        self.trial.set_user_attr(EPOCH_SECONDS, logs["epoch_seconds"])
        self.trial.report(logs["val_accuracy"], epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned


class StopOnRequest(keras.callbacks.Callback):
    """Ends a worker that is told to stop, or whose parent was killed.

    In the first case the trial failed; in the second it counts as dead and is tried again.
    """

    def __init__(self, stop: Event | None) -> None:
        super().__init__()
        self.stop = stop

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:  # noqa: D102
        if self.stop and self.stop.is_set():
            raise KeyboardInterrupt
        if parent_is_gone():
            raise SystemExit(1)


def without_password(storage: str) -> str:
    """The address of a database as it may be logged. Raises UserError if it is none."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise UserError("storage is not a database URL like sqlite:///tune.db.") from None

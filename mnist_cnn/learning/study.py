"""The study of a sweep: its search space, its database and its report. Knows Optuna, not MLflow."""

from __future__ import annotations

import hashlib
import platform
import random
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import Recipe

# Heartbeats are experimental in Optuna; nothing else notices a killed trial.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

BATCH_SIZES = (32, 64, 128)
LABEL_SMOOTHING = 0.2  # at most
HEARTBEAT = 5  # seconds; a trial silent for three of them is dead, and tried again
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
EPOCH_SECONDS = "epoch_seconds"  # of a trial's last epoch
COST = "parameter_count"  # the price of a model; its seconds stand beside it in trials.csv


class Surplus(Exception):
    """A trial that began although others already make up the number asked for."""


@dataclass(frozen=True)
class Search:
    """What is searched and how. Another search under the same name is refused."""

    recipe: Recipe
    seed: int
    dataset_digest: str
    filters_choices: tuple[int, ...]
    learning_rate_range: tuple[float, float]
    objective: str  # accuracy, or front: accuracy against COST
    sampler: str
    pruner: str

    def suggest(self, trial: optuna.Trial) -> Recipe:
        """The search space: a recipe from what Optuna suggests."""
        for i in range(len(self.recipe.filters)):
            trial.suggest_categorical(f"filters_{i + 1}", self.filters_choices)
        trial.suggest_float("learning_rate", *self.learning_rate_range, log=True)
        trial.suggest_categorical("batch_size", BATCH_SIZES)
        trial.suggest_float("label_smoothing", 0.0, LABEL_SMOOTHING)
        return self.described(trial)

    def start(self) -> dict[str, Any] | None:
        """The recipe as it is, as Optuna would suggest it; None if the space does not hold it."""
        recipe = self.recipe
        low, high = self.learning_rate_range
        inside = (
            set(recipe.filters) <= set(self.filters_choices)
            and low <= recipe.learning_rate <= high
            and recipe.batch_size in BATCH_SIZES
            and recipe.label_smoothing <= LABEL_SMOOTHING
        )
        if not inside:
            return None
        names = ("learning_rate", "batch_size", "label_smoothing")
        filters = {f"filters_{i + 1}": count for i, count in enumerate(recipe.filters)}
        return filters | {name: getattr(recipe, name) for name in names}

    def described(self, trial: optuna.Trial | FrozenTrial) -> Recipe:
        """The recipe of a trial: its filters_1, filters_2, ... become `filters`."""
        params = dict(trial.params)
        filters = [params.pop(name) for name in list(params) if name.startswith("filters_")]
        return replace(self.recipe, filters=tuple(filters), **params)


def open_study(
    name: str, storage: str, search: Search, worker: int, on_death: Callable[[FrozenTrial], None]
) -> optuna.Study:
    """The study `name`, new or gone on with. Raises UserError if it is another search.

    `worker` is the number of this process among those of one machine. `on_death` is told of each
    trial whose process has died; it is then tried again.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    retry = RetryHeartbeatStaleTrialCallback(max_retry=2)

    def dead(study: optuna.Study, trial: FrozenTrial) -> None:
        on_death(trial)
        retry(study, trial)

    pruners = {
        "median": optuna.pruners.MedianPruner(),  # spares the first five, the recipe among them
        "hyperband": optuna.pruners.HyperbandPruner(1, search.recipe.epochs),
        "none": optuna.pruners.NopPruner(),
    }
    front = search.objective == "front"
    for again in (True, True, False):
        try:
            study = optuna.create_study(
                storage=RDBStorage(
                    storage,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=3 * HEARTBEAT,
                    heartbeat_stale_trial_callback=dead,
                ),
                study_name=name,
                load_if_exists=True,
                directions=["maximize", "minimize"] if front else ["maximize"],
                pruner=pruners["none" if front else search.pruner],
            )
            break
        except (SQLAlchemyError, ImportError, ValueError) as error:
            # Of several that make the tables at once, one does; the others find them made.
            if again and isinstance(error, SQLAlchemyError):
                time.sleep(random.random())
                continue
            raise UserError(
                f"storage={without_password(storage)} cannot be used: {type(error).__name__}."
            ) from None
    # Neither the processes of one study nor a study that goes on may repeat a random stream.
    place = 0 if worker == 0 else zlib.crc32(f"{platform.node()} {worker}".encode())
    seed = (search.seed + len(study.trials) + place) % 2**32
    study.sampler = {
        "tpe": optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        "random": optuna.samplers.RandomSampler(seed=seed),
    }[search.sampler]
    digest = hashlib.sha256(repr(search).encode()).hexdigest()[:16]
    if study.user_attrs.get("definition", digest) != digest:
        raise UserError(
            f"study={name} exists with another recipe, search or dataset; "
            "choose another name for this one."
        )
    start = search.start()
    if start and "definition" not in study.user_attrs:
        study.enqueue_trial(start, skip_if_exists=True)  # what is to be beaten is tried first
    study.set_user_attr("definition", digest)
    return study


def run_trials(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], Any],
    trials: int,
    timeout: float,
    progress: Callable[[], None],
) -> None:
    """Run trials until `trials` of the study are finished, or no more may begin after `timeout` s.

    Where others run the last ones, wait: one of them may die, and its trial falls to us.
    """
    started = time.monotonic()
    met: set[int] = set()
    while not timeout or time.monotonic() < started + timeout:
        _tell_each_once(study, met)
        fail_stale_trials(study)
        if finished(study) >= trials:
            return
        if finished(study) + _running(study) >= trials:
            time.sleep(0.5)
            continue
        study.optimize(_unless_surplus(objective, trials), n_trials=1, catch=Surplus)
        progress()


def _tell_each_once(study: optuna.Study, met: set[int]) -> None:
    """Give each running trial one heartbeat when it is first `met`, the numbers of those known.

    Killed before its own first one, a trial would never count as dead: Optuna passes over it.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in met:
            study._storage.record_heartbeat(trial._trial_id)
            met.add(trial.number)


def _unless_surplus(
    objective: Callable[[optuna.Trial], Any], trials: int
) -> Callable[[optuna.Trial], Any]:
    """`objective`, unless enough others run: each announces itself first and looks then.

    Of two that begin at once both may see the other and give way; they come back at random times.
    """

    def guarded(trial: optuna.Trial) -> Any:
        if finished(trial.study) + _running(trial.study) > trials:
            time.sleep(random.random())
            raise Surplus
        return objective(trial)

    return guarded


def finished(study: optuna.Study) -> int:
    """Number of trials that came to their end, or to an early one by the pruner."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def _running(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def finalists(study: optuna.Study, images: int, count: int) -> list[FrozenTrial]:
    """The trials to try with other seeds, the best first. Raises UserError if none is complete.

    Searched for accuracy, the `count` most accurate, of equals the cheapest. Searched for the
    front, one: the cheapest within a standard error of the best on `images` (Breiman et al. 1984).
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise UserError(f"study={study.study_name} has no completed trial yet: give it more time.")
    if len(study.directions) == 1:
        return sorted(complete, key=lambda t: (-t.values[0], t.user_attrs[COST]))[:count]
    best = max(trial.values[0] for trial in complete)
    margin = (best * (1 - best) / images) ** 0.5
    enough = [trial for trial in complete if trial.values[0] >= best - margin]
    return [min(enough, key=lambda trial: trial.user_attrs[COST])]


def saved_seconds(study: optuna.Study, epochs: int) -> float:
    """What the pruned trials would have trained to their end, each at its own last epoch's pace."""
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    return sum(
        trial.user_attrs[EPOCH_SECONDS] * (epochs - len(trial.intermediate_values))
        for trial in pruned
        if EPOCH_SECONDS in trial.user_attrs  # one that diverged in its first epoch has no pace
    )


def report(study: optuna.Study) -> str:
    """Optuna's plots and the front of accuracy against cost: a page that needs no network."""
    of: dict[str, Any] = {}
    if len(study.directions) > 1:  # with one objective Optuna takes that one by itself
        of = {"target": lambda trial: 1 - trial.values[0], "target_name": "validation error"}
    visual = optuna.visualization
    plots: dict[str, Callable[[], go.Figure]] = {
        "accuracy against cost": lambda: _front(study),
        "history": lambda: visual.plot_optimization_history(study, **of),
        "importance": lambda: visual.plot_param_importances(study, **of),
        "slice": lambda: visual.plot_slice(study, **of),
        "parallel coordinate": lambda: visual.plot_parallel_coordinate(study, **of),
        "intermediate values": lambda: visual.plot_intermediate_values(study),
    }
    parts = []
    for name, plot in plots.items():
        try:
            figure = plot()
        except (ValueError, RuntimeError) as error:  # importance needs two trials that differ
            parts.append(f"<p>{name}: {error}</p>")
            continue
        # plotly itself stands in the page once: it opens without a network.
        parts.append(figure.to_html(full_html=False, include_plotlyjs="<script" not in str(parts)))
    return "<!doctype html><meta charset=utf-8>" + "\n".join(parts)


def _front(study: optuna.Study) -> go.Figure:
    """Every complete trial, and the line of those that no cheaper one equals."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    points = sorted((t.user_attrs[COST], -t.values[0], t.number) for t in complete)
    best: list[tuple] = []
    for cost, loss, number in points:
        if not best or loss < best[-1][1]:
            best.append((cost, loss, number))
    figure = go.Figure(layout={"title": "Accuracy against cost", "xaxis": {"type": "log"}})
    for name, some, mode in (("trials", points, "markers"), ("front", best, "lines+markers")):
        figure.add_scatter(
            x=[cost for cost, _, _ in some],
            y=[-loss for _, loss, _ in some],
            text=[f"trial {number}" for _, _, number in some],
            mode=mode,
            name=name,
        )
    return figure.update_layout(xaxis_title=COST, yaxis_title="val_accuracy")


def without_password(storage: str) -> str:
    """The address of a database as it may be logged. Raises UserError if it is none."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise UserError("storage is not a database URL like sqlite:///tune.db.") from None

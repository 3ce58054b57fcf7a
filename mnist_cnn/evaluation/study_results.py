"""What a study has found: its progress, its best trials, and a page with Optuna's plots."""

import html
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from mnist_cnn.learning.study import COST, FINISHED
from mnist_cnn.parameters import UserError

STYLE = "body { font: 16px sans-serif; margin: 2em }"


def best_accuracy(study: optuna.Study) -> float:
    """The highest validation accuracy of a finished trial, 0 without one."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return max((trial.values[0] for trial in trials if trial.values), default=0.0)


def progress(
    study: optuna.Study, trial: FrozenTrial, total: int, pace: float, fits_at_end: int
) -> str:
    """Two lines: the trial that has ended, and what is left of `total` at `pace` s a trial."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    pruned = sum(other.state == TrialState.PRUNED for other in trials)
    full = [t.user_attrs["train_seconds"] for t in trials if "train_seconds" in t.user_attrs]
    return (
        f"{_told(trial).capitalize()}"
        f"\n  {len(trials)} of {total} trials, {pruned} ended early, best val_accuracy "
        f"{best_accuracy(study):.4f}; about "
        f"{pace * max(0, total - len(trials)) / 60:.1f} minutes left, then up to "
        f"{fits_at_end * np.mean(full or [0]) / 60:.1f} to train the best with other seeds"
    )


def summary(study: optuna.Study) -> str:
    """Two sentences: how many trials there were of what, and which was the best."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    recipe = study.user_attrs.get("search", {}).get("recipe", "a recipe")
    told = f"{len(trials)} trials of {recipe}, {pruned} of them ended early."
    best = max(trials, key=lambda trial: (trial.values or [0])[0], default=None)
    return f"{told} The most accurate on validation is {_told(best)}." if best else told


def _told(trial: FrozenTrial) -> str:
    accuracy = f"{trial.values[0]:.4f}" if trial.values else "ended early"
    params = (f"{name}={value:.3g}" for name, value in trial.params.items())
    return f"trial {trial.number}: {accuracy} with {', '.join(params)}"


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


def gain_with_error(new: list[float], old: list[float]) -> tuple[float, float]:
    """Difference of the means, and its standard error as in Welch's test."""
    error = (np.var(new, ddof=1) / len(new) + np.var(old, ddof=1) / len(old)) ** 0.5
    return float(np.mean(new) - np.mean(old)), float(error)


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
    parts: list[str] = []
    for name, plot in plots.items():
        try:
            with warnings.catch_warnings():
                # That importance is for low values of `target`: for low errors it is meant to be.
                warnings.filterwarnings("ignore", "PedAnova")
                figure = plot()
            # plotly itself stands in the page once: it opens without a network.
            script = "<script" not in str(parts)
            figure.update_layout(width=None, autosize=True)
            parts.append(figure.to_html({"responsive": True}, True, script, full_html=False))
        except (ValueError, RuntimeError) as error:  # importance needs two trials that differ
            parts.append(f"<p>{name}: {error}</p>")
    title = f"Study {html.escape(study.study_name)}"
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    return f"{head}<h1>{title}</h1><p>{summary(study)}</p>" + "\n".join(parts)


def _front(study: optuna.Study) -> go.Figure:
    """Every complete trial; those that no cheaper one equals, in another colour."""
    both = optuna.create_study(directions=["minimize", "maximize"])
    for trial in study.get_trials(deepcopy=False):
        done = trial.state == TrialState.COMPLETE
        figures = [trial.user_attrs[COST], trial.values[0]] if done else None
        state = TrialState.COMPLETE if done else TrialState.FAIL
        # All, so that each keeps its number.
        both.add_trial(optuna.trial.create_trial(state=state, values=figures))
    plot = optuna.visualization.plot_pareto_front(both, target_names=[COST, "val_accuracy"])
    return plot.update_layout(title="Accuracy against cost").update_xaxes(type="log")

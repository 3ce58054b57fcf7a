"""What a study has found: its progress, its best trials, and a page with Optuna's plots."""

import html
import warnings
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from mnist_cnn.learning.study import COST, ended
from mnist_cnn.parameters import UserError


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial of the highest value, for the front its accuracy; the first of equals."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: trial.values[0], default=None)


def summary(study: optuna.Study) -> str:
    """Two sentences: how many trials there were of what, and which was the best."""
    trials = ended(study)
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    recipe = study.user_attrs.get("search", {}).get("recipe", "a recipe")
    told = f"{len(trials)} trials of {recipe}, {pruned} of them ended early."
    if best := best_trial(study):
        told += f" The best on validation is {described(best)}."
    return told


def described(trial: FrozenTrial) -> str:
    """Number, value, validation accuracy and parameters of a trial that has ended."""
    value = f"{trial.values[0]:.4f}" if trial.state == TrialState.COMPLETE else "ended early"
    if accuracy := trial.user_attrs.get("val_accuracy"):
        value += f" (accuracy {accuracy:.4f})"
    params = (f"{name}={value:.3g}" for name, value in trial.params.items())
    return f"trial {trial.number}: {value} with {', '.join(params)}"


def finalists(study: optuna.Study, images: int, count: int) -> list[FrozenTrial]:
    """The trials to try with other seeds, the best first. Raises UserError if none is complete.

    Of one objective the `count` best, of equals the cheapest. Of the front one: the cheapest
    within a standard error of the most accurate on `images` (Breiman et al. 1984).
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
    """Accuracy against cost, and Optuna's plots, as a page that needs no network."""
    of: dict[str, Any] = {}
    if len(study.directions) > 1:  # with one objective Optuna takes that one by itself
        of = {"target": lambda trial: 1 - trial.values[0], "target_name": "validation error"}
    visual = optuna.visualization
    names: Any = ["val_accuracy", COST]
    both: Any = lambda t: [t.user_attrs.get(name, t.values[0]) for name in names]  # noqa: E731
    front = visual.plot_pareto_front(study, target_names=names, targets=both)
    front.update_traces(marker_showscale=False, marker_color="steelblue").update_yaxes(type="log")
    front.update_layout(title="Accuracy against cost; red: the best").data[-1].marker.color = "red"
    # Warned of: that importance is for low errors, as it is meant to be, or of too few trials.
    with warnings.catch_warnings(action="ignore"):
        plots: list[Any] = [visual.plot_optimization_history, visual.plot_param_importances]
        plots += [visual.plot_slice, visual.plot_parallel_coordinate]
        figures = [front, *(p(study, **of) for p in plots), visual.plot_intermediate_values(study)]
    title = f"Study {html.escape(study.study_name)}"
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title>"
    page += "<style>body { font: 16px sans-serif; margin: 2em }</style>"
    page += f"<h1>{title}</h1><p>{summary(study)}</p>"
    for figure in figures:  # the first with plotly's library
        figure.update_layout(width=None, autosize=True)
        page += figure.to_html({"responsive": True}, True, figure is figures[0], full_html=False)
    return page

"""A sweep: what it searches, how and where."""

from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from mnist_cnn.recipes import HYPERPARAMETERS, Recipe, as_text, hyperparameters

# What a study recorded before a hyperparameter existed stands for.
PLAIN = {name: as_text(getattr(Recipe, name)) for name in HYPERPARAMETERS}


# What makes it another sweep, beside the recipe: refused under the same name.
SAME = "seed dataset_digest filters_choices learning_rate_range objective sampler pruner".split()


@dataclass(frozen=True)
class Sweep:
    """All that a worker of a sweep needs to know."""

    recipe: Recipe  # as it was before the sweep
    epochs: int  # of a trial
    seed: int
    dataset_digest: str
    filters_choices: tuple[int, ...]
    learning_rate_range: tuple[float, float]
    objective: str  # accuracy, or front: accuracy against COST
    sampler: str
    pruner: str
    study: str
    storage: str
    dataset: str
    trials: int  # finished ones, in all
    timeout: int  # seconds until no trial may begin; 0: none
    parent: str  # the run in MLflow above those of the trials

    def space(self) -> dict[str, CategoricalDistribution | FloatDistribution]:
        """The search space: what Optuna chooses for a recipe, and from which values."""
        filters = CategoricalDistribution(self.filters_choices)
        return {
            **{f"filters_{i + 1}": filters for i in range(len(self.recipe.filters))},
            "learning_rate": FloatDistribution(*self.learning_rate_range, log=True),
            "batch_size": CategoricalDistribution((32, 64, 128)),
            "label_smoothing": FloatDistribution(0.0, 0.2),
        }

    def suggest(self, trial: optuna.Trial) -> Recipe:
        """A recipe from what Optuna suggests."""
        for name, values in self.space().items():
            if isinstance(values, CategoricalDistribution):
                trial.suggest_categorical(name, values.choices)
            else:
                trial.suggest_float(name, values.low, values.high, log=values.log)
        return self.described(trial.params)

    def described(self, params: dict[str, Any]) -> Recipe:
        """The recipe of a trial's `params`: its filters_1, filters_2, ... become `filters`."""
        others = dict(params)
        filters = [others.pop(name) for name in params if name.startswith("filters_")]
        return replace(self.recipe, epochs=self.epochs, filters=tuple(filters), **others)

    def start(self) -> dict[str, Any] | None:
        """The recipe as it is, as params of a trial; None if the space does not hold it."""
        known = hyperparameters(self.recipe)
        known |= {f"filters_{i + 1}": count for i, count in enumerate(self.recipe.filters)}
        space = self.space()
        inside = all(
            known[name] in values.choices
            if isinstance(values, CategoricalDistribution)
            else values.low <= known[name] <= values.high
            for name, values in space.items()
        )
        return {name: known[name] for name in space} if inside else None

    def as_texts(self) -> dict[str, str]:
        """Everything that makes this another sweep, by name."""
        values = {name: getattr(self, name) for name in SAME} | {"recipe": self.recipe.name}
        values |= hyperparameters(replace(self.recipe, epochs=self.epochs))
        return {name: as_text(value) for name, value in values.items()}

"""What a sweep searches: its space and everything else that makes it another search."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from mnist_cnn.recipes import Recipe, as_text, hyperparameters

BATCH_SIZES = (32, 64, 128)
LABEL_SMOOTHING = 0.2  # at most
# What a study recorded before a hyperparameter existed stands for.
PLAIN = {f.name: as_text(f.default) for f in fields(Recipe) if f.metadata}


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

    def space(self) -> dict[str, CategoricalDistribution | FloatDistribution]:
        """The search space: what Optuna chooses for a recipe, and from which values."""
        filters = CategoricalDistribution(self.filters_choices)
        return {
            **{f"filters_{i + 1}": filters for i in range(len(self.recipe.filters))},
            "learning_rate": FloatDistribution(*self.learning_rate_range, log=True),
            "batch_size": CategoricalDistribution(BATCH_SIZES),
            "label_smoothing": FloatDistribution(0.0, LABEL_SMOOTHING),
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
        return replace(self.recipe, filters=tuple(filters), **others)

    def start(self) -> dict[str, Any] | None:
        """The recipe as it is, as params of a trial; None if the space does not hold it."""
        recipe = asdict(self.recipe)
        recipe |= {f"filters_{i + 1}": count for i, count in enumerate(self.recipe.filters)}
        params = {name: recipe[name] for name in self.space()}
        inside = all(
            params[name] in values.choices
            if isinstance(values, CategoricalDistribution)
            else values.low <= params[name] <= values.high
            for name, values in self.space().items()
        )
        return params if inside else None

    def as_texts(self) -> dict[str, str]:
        """Everything that makes this search another one, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {"recipe": self.recipe.name, **hyperparameters(self.recipe)}
        return {name: as_text(value) for name, value in values.items()}

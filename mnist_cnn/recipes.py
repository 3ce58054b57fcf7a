"""The recipes: each is one frozen definition of a network, how it is trained, and its claim.

Nothing here imports TensorFlow; `mnist_cnn.learning.model` builds what a recipe describes.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, get_type_hints

from mnist_cnn.parameters import BOOLEAN, FILTERS, ValueType, WrongParameter, number, one_of, whole


@dataclass(frozen=True)
class Recipe:
    """A network and how it learns. The defaults here are the plainest choice of each."""

    name: str
    claim: str
    network: str  # its layers, in the words of mnist_cnn.learning.model.build
    filters: Annotated[tuple[int, ...], FILTERS, "filters"] = ()
    epochs: Annotated[int, whole(1, 1000), "passes over the training images"] = 1
    batch_size: Annotated[int, whole(1, 60_000), "images a step"] = 32
    learning_rate: Annotated[float, number(0, 10, above=True), "step size, or its peak"] = 0.01
    schedule: Annotated[str, one_of("constant", "one_cycle"), "of the learning rate"] = "constant"
    optimizer: Annotated[str, one_of("sgd", "muon"), "muon: its steps for the convolutions"] = "sgd"
    momentum: Annotated[float, number(0, 0.9999), "momentum of the optimizer"] = 0.9
    nesterov: Annotated[bool, BOOLEAN, "Nesterov's momentum"] = False
    weight_decay: Annotated[float, number(0, 1), "decoupled weight decay of the kernels"] = 0.0
    label_smoothing: Annotated[float, number(0, 0.9), "share of a label spread over all"] = 0.0
    distort: Annotated[float, number(0, 3), "1: up to 10 degrees, 10 % of size, 2 pixels"] = 0.0
    disturb: Annotated[float, number(0, 1), "share as outlines, behind patches, in noise"] = 0.0
    emphasis: Annotated[float, number(1, 10), "times as often the hardest fifth is shown"] = 1.0
    drawn: Annotated[float, number(0, 1), "drawings, a share of the images (mnist only)"] = 0.0
    outliers: Annotated[float, number(0, 1), "share of the drawings that are no digit"] = 0.3


# What a user may set each to, and what it means.
HYPERPARAMETERS: dict[str, tuple[ValueType, str]] = {
    name: hint.__metadata__
    for name, hint in get_type_hints(Recipe, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}


def hyperparameters(recipe: Recipe) -> dict[str, Any]:
    """Every hyperparameter of `recipe` by name, in the order of definition."""
    return {name: getattr(recipe, name) for name in HYPERPARAMETERS}


def as_text(value: Any) -> str:
    """A hyperparameter as a user types it and MLflow shows it: 32,64,64 or 0.01 or true."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def customised(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """`recipe` with those hyperparameters changed that are not None. Raises WrongParameter."""
    changes = {name: value for name, value in changes.items() if value is not None}
    filters = changes.get("filters", recipe.filters)
    if len(filters) != len(recipe.filters):
        told = f"{recipe.name} has {len(recipe.filters)} convolutions, and takes one for each"
        raise WrongParameter(f"filters={as_text(filters)!r} has {len(filters)} numbers; {told}.")
    return replace(recipe, **changes)


CLASSIC = Recipe(
    name="classic",
    claim="the published recipe that everybody copies, exactly; the yardstick of all others",
    network="relu pool relu relu pool flatten hidden digits",
    filters=(32, 64, 64),
    epochs=10,
)

FAST = Recipe(
    name="fast",
    claim="most accuracy for the least time: 99.26 ± 0.07 % of validation (10 seeds), one epoch",
    # A first convolution of stride 2 leaves a quarter of the pixels to all that follow.
    network="frozen relu pool conv norm flatten digits",
    filters=(20, 32, 96),
    epochs=1,  # one cycle reaches in it what classic's constant rate does in 10
    batch_size=160,
    learning_rate=0.4,
    schedule="one_cycle",
    optimizer="muon",
    nesterov=True,
    label_smoothing=0.1,
    # Ways of writing that MNIST's writers hardly have, and what is no digit (docs/handwriting.md).
    drawn=0.2,
)

TINY = replace(
    FAST,
    name="tiny",
    claim="the smallest model that is still good, for a browser: 99.5 % in half of classic's time",
    # BatchNorm stands behind the pooling where there is one and not behind the first convolution:
    # an epoch is a quarter shorter than with one behind every convolution (docs/search.md).
    network="relu conv pool norm conv norm conv pool norm conv norm flatten digits",
    # Arithmetic is cheap to ship and weights are not: few filters, at the full resolution.
    filters=(10, 10, 16, 20, 20),
    epochs=10,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=0.03,
    label_smoothing=0.02,
    distort=0.8,
    drawn=0.15,
    emphasis=3.0,  # most images teach nothing after an epoch or two; the hard ones are few
)

ACCURATE = replace(
    TINY,
    name="accurate",
    claim="for digits in a bad state too: 99.7 % of validation, 97.7 % of MNIST-C (3 seeds)",
    # Few filters where the image is large, as many as wide vectors take at once; behind the
    # pooling more of them bring more than more epochs do, in the same time (docs/search.md).
    filters=(16, 16, 64, 128, 192),
    epochs=9,
    learning_rate=0.2,
    weight_decay=0.01,
    label_smoothing=0.1,
    emphasis=5.0,  # rather than 3: 0.02 points (docs/search.md)
    drawn=0.2,
    # For images in a bad state; a little costs clean ones nothing that is seen (docs/search.md).
    disturb=0.1,
)

RECIPES = {recipe.name: recipe for recipe in (CLASSIC, FAST, TINY, ACCURATE)}


def _side_by_side(text: str) -> dict[str, Recipe | None]:
    """Recipes by the text that asks for each: classic,fast:epochs=3:distort=1; bare is None."""
    found: dict[str, Recipe | None] = {}
    for part in text.split(","):
        name, *overrides = part.split(":")
        changes = {  # a comma separates recipes, so the filters of one are joined by a plus
            key: HYPERPARAMETERS[key][0].read(key, value.replace("+", ","))
            for key, value in (setting.split("=") for setting in overrides)
        }
        found[part] = None if part == "bare" else customised(RECIPES[name], changes)
    return found


SIDE_BY_SIDE = ValueType(
    f"a comma list of {', '.join(RECIPES)} and bare (classic in plain Keras), each with "
    "hyperparameters if wanted: fast:epochs=3:filters=8+16+16",
    _side_by_side,
)

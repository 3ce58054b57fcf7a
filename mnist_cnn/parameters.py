"""What a user may type: kinds of values, their ranges, and how a wrong one is refused.

Nothing here imports MLflow or TensorFlow, so that `--help` and a refusal take no time.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UserError(Exception):
    """What a user can cause and mend: shown as one sentence, without a traceback."""


class WrongParameter(UserError):
    """A parameter whose name or value is refused before anything is imported or written."""


@dataclass(frozen=True)
class Kind:
    """A kind of value: `allowed` in words, and `parse`, which raises ValueError outside of it."""

    allowed: str
    parse: Callable[[str], Any]


@dataclass(frozen=True)
class Parameter:
    """One thing a user may set: its default as typed, what it means and what it may be."""

    default: str
    meaning: str
    kind: Kind

    def read(self, name: str, text: str) -> Any:
        """Value of `text`. Raises WrongParameter naming the parameter, the value and the range."""
        try:
            return self.kind.parse(text)
        except (ValueError, OverflowError):
            raise WrongParameter(f"{name}={text!r} is not {self.kind.allowed}.") from None


def whole(low: int, high: int) -> Kind:
    """A whole number from `low` to `high`, both included."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a whole number from {low} to {high}", parse)


def number(low: float, high: float, above: bool = False) -> Kind:
    """A finite number from `low` (excluded if `above`) to `high`."""

    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high or (above and value == low):
            raise ValueError
        return value

    return Kind(f"a number {'above' if above else 'from'} {low:g} to {high:g}", parse)


def interval(low: float, high: float) -> Kind:
    """Two numbers LOW,HIGH with low < LOW < HIGH <= high."""
    one = number(low, high, above=True)

    def parse(text: str) -> tuple[float, ...]:
        first, second = (one.parse(part) for part in text.split(","))
        if first >= second:
            raise ValueError
        return first, second

    return Kind(f"two numbers LOW,HIGH, rising, above {low:g} and up to {high:g}", parse)


def one_of(*names: str) -> Kind:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return Kind("one of " + ", ".join(names), parse)


def _boolean(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def wholes(low: int, high: int, of: str) -> Kind:
    """A comma list of whole numbers, each from `low` to `high`; `of` says what they are."""
    one = whole(low, high)
    return Kind(
        f"a comma list of whole numbers from {low} to {high}, {of}",
        lambda text: tuple(one.parse(part) for part in text.split(",")),
    )


def _dataset(text: str) -> str:
    path = Path(text).expanduser()
    if text in ("mnist", "fashion_mnist"):
        return text
    if path.is_dir() or (path.suffix == ".npz" and path.is_file()):
        return str(path.resolve())
    raise ValueError


def _model(text: str) -> str:
    if text.startswith(("models:/", "runs:/")) and len(text.split(":/", 1)[1].strip("/")) > 0:
        return text
    path = Path(text).expanduser()
    if path.suffix in (".h5", ".keras") and path.is_file():
        return str(path.resolve())
    raise ValueError


TEXT = Kind("any text", str)
BOOLEAN = Kind("true or false", _boolean)
FILTERS = wholes(1, 1024, "one per convolution")
DATASET = Kind("mnist, fashion_mnist, a folder with the four IDX files, or an .npz file", _dataset)
MODEL = Kind(
    "a model URI (models:/name@alias, models:/name/version, runs:/id/model) "
    "or an existing .h5 or .keras file",
    _model,
)


def pairs(arguments: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value` as a dictionary; the last of a name counts.

    Raises WrongParameter for a word that is no parameter, or a name without a value.
    """
    found: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("--") or len(word) < 3:
            raise WrongParameter(f"{word!r} is not a parameter: write --name value.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise WrongParameter(f"--{name} has no value: write --{name} value.")
            value = following
        found[name.replace("-", "_")] = value
    return found


def refuse_unknown(name: str, known: Iterable[str], where: str) -> None:
    """Raise WrongParameter with the nearest name, if `name` is not one of `known`."""
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "allowed: " + ", ".join(known) + "."
    raise WrongParameter(f"{where} has no parameter {name!r}; {hint}")

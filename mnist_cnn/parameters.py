"""Types of values that a user may type, their ranges, and how a wrong one is refused.

Nothing here imports MLflow or TensorFlow, so that `--help` and a refusal take no time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class UserError(Exception):
    """What a user can cause and mend: shown as one sentence, without a traceback."""


class WrongParameter(UserError):
    """A parameter whose name or value is refused before anything is imported or written."""


class ValueType(click.ParamType):
    """A type of value: `allowed` in words, and `parse`, which raises ValueError outside of it."""

    def __init__(self, allowed: str, parse: Callable[[str], Any]) -> None:
        self.name = self.allowed = allowed
        self.parse = parse

    def read(self, name: str, text: str) -> Any:
        """Value of `text`. Raises WrongParameter naming the parameter, the value and the range."""
        try:
            return self.parse(text)
        except (ValueError, OverflowError):
            raise WrongParameter(f"{name}={text!r} is not {self.allowed}.") from None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click asks for it. Raises WrongParameter."""
        return self.read(str(param and param.name), value)


def whole(low: int, high: int) -> ValueType:
    """A whole number from `low` to `high`, both included."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return ValueType(f"a whole number from {low} to {high}", parse)


def number(low: float, high: float, above: bool = False) -> ValueType:
    """A finite number from `low` (excluded if `above`) to `high`; click's FloatRange takes NaN."""

    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high or (above and value == low):
            raise ValueError
        return value

    return ValueType(f"a number {'above' if above else 'from'} {low:g} to {high:g}", parse)


def interval(low: float, high: float) -> ValueType:
    """Two numbers LOW,HIGH with low < LOW < HIGH <= high."""
    one = number(low, high, above=True)

    def parse(text: str) -> tuple[float, ...]:
        first, second = (one.parse(part) for part in text.split(","))
        if first >= second:
            raise ValueError
        return first, second

    return ValueType(f"two numbers LOW,HIGH, rising, above {low:g} and up to {high:g}", parse)


def one_of(*names: str) -> ValueType:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return ValueType("one of " + ", ".join(names), parse)


def wholes(low: int, high: int, of: str) -> ValueType:
    """A comma list of whole numbers, each from `low` to `high`; `of` says what they are."""
    one = whole(low, high)
    return ValueType(
        f"a comma list of whole numbers from {low} to {high}, {of}",
        lambda text: tuple(one.parse(part) for part in text.split(",")),
    )


def _boolean(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError
    return str(Path(text).expanduser())


def file_of(*suffixes: str) -> ValueType:
    """An existing file with one of some suffixes; its absolute path."""

    def parse(text: str) -> str:
        path = Path(_path(text))
        if path.suffix not in suffixes or not path.is_file():
            raise ValueError
        return str(path.resolve())

    return ValueType(f"an existing {' or '.join(suffixes)} file", parse)


def _dataset(text: str) -> str:
    path = Path(_path(text))
    if text in ("mnist", "fashion_mnist"):
        return text
    return str(path.resolve()) if path.is_dir() else file_of(".npz").parse(text)


def _model(text: str) -> str:
    if text.startswith(("models:/", "runs:/")) and len(text.split(":/", 1)[1].strip("/")) > 0:
        return text
    return file_of(".h5", ".keras").parse(text)


TEXT = ValueType("any text", str)
PATH = ValueType("a path", _path)
BOOLEAN = ValueType("true or false", _boolean)
FILTERS = wholes(1, 1024, "one per convolution")
DATASET = ValueType(
    "mnist, fashion_mnist, a folder with the four IDX files, or an .npz file", _dataset
)
MODEL = ValueType(
    "a model URI (models:/name@alias, models:/name/version, runs:/id/model) "
    "or an existing .h5 or .keras file",
    _model,
)

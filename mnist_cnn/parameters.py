"""Types of values that a user may type, their ranges, and how a wrong one is refused.

Nothing here imports MLflow or TensorFlow, so that `--help` and a refusal take no time.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click


class UserError(Exception):
    """What a user can cause and mend: shown as one sentence, without a traceback."""


class WrongParameter(UserError):
    """A parameter whose name or value is refused before anything is imported or written."""


def reason(error: BaseException) -> str:
    """What an error of a library says, in a line; Keras puts its cause in bold letters."""
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, UserError):
        found = re.search(r"\w+Error: .*|assertion failed.*|(?<=\x1b\[1m).*(?=\x1b)", text)
        text = (found[0] if found else text).splitlines()[0][:200]
    return text.rstrip(".: ")


def without_password(text: str) -> str:
    """`text` as it may be logged: no password in any address, scheme://user:password@host."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


class ValueType(click.ParamType):
    """A type of value: `allowed` in words; `parse` and then `accepts` decide, or raise."""

    def __init__(self, allowed: str, parse: Callable, accepts: Callable = lambda _: True) -> None:
        self.name = self.allowed = allowed
        self._parse, self._accepts = parse, accepts

    def parse(self, text: str) -> Any:
        """Value of `text`. Raises ValueError for what is not allowed."""
        with suppress(KeyError, OverflowError, RuntimeError):  # RuntimeError: ~ of an unknown user
            if self._accepts(value := self._parse(text)):
                return value
        raise ValueError

    def read(self, name: str, text: str) -> Any:
        """Value of `text`. Raises WrongParameter naming the parameter, the value and the range."""
        try:
            return self.parse(text)
        except ValueError:
            raise WrongParameter(f"{name}={text!r} is not {self.allowed}.") from None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click asks for it. Raises WrongParameter."""
        return self.read(str(param and param.name), value)


def whole(low: int, high: int) -> ValueType:
    """A whole number from `low` to `high`, both included."""
    return ValueType(f"a whole number from {low} to {high}", int, lambda n: low <= n <= high)


def number(low: float, high: float, above: bool = False) -> ValueType:
    """A finite number from `low` (excluded if `above`) to `high`; click's FloatRange takes NaN."""
    words = f"a number {'above' if above else 'from'} {low:g} to {high:g}"
    return ValueType(words, float, lambda x: low <= x <= high and not (above and x == low))


def wholes(low: int, high: int, of: str) -> ValueType:
    """A comma list of whole numbers, each from `low` to `high`; `of` says what they are."""
    words = f"a comma list of whole numbers from {low} to {high}, {of}"
    return ValueType(words, lambda text: tuple(map(whole(low, high).parse, text.split(","))))


def one_of(*names: str) -> ValueType:
    """One of some words."""
    return ValueType("one of " + ", ".join(names), str, names.__contains__)


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError
    return str(Path(text).expanduser())


def file_of(*suffixes: str) -> ValueType:
    """An existing file with one of some suffixes; its absolute path."""
    return ValueType(
        f"an existing {' or '.join(suffixes)} file",
        lambda text: str(Path(_path(text)).resolve()),
        lambda path: Path(path).suffix in suffixes and Path(path).is_file(),
    )


def _dataset(text: str) -> str:
    if text in ("mnist", "fashion_mnist"):
        return text
    path = Path(_path(text)).resolve()
    return str(path) if path.is_dir() else file_of(".npz").parse(text)


def _model(text: str) -> str:
    if text.startswith(("models:/", "runs:/")) and text.split(":/", 1)[1].strip("/"):
        return text
    return file_of(".h5", ".keras").parse(text)


TEXT = ValueType("any text", str)
PATH = ValueType("a path", _path)
FORMATS = one_of("tfjs_layers_model", "tfjs_graph_model")
OBJECTIVES = one_of("likelihood", "accuracy", "front")
WIDTHS = one_of("none", "float16", "uint16", "uint8", "auto")
RATES = ValueType(
    "two numbers LOW,HIGH, rising, above 0 and up to 10",
    lambda text: tuple(map(number(0, 10, above=True).parse, text.split(","))),
    lambda ends: len(ends) == 2 and ends[0] < ends[1],
)
BOOLEAN = ValueType("true or false", lambda text: {"true": True, "false": False}[text.lower()])
DRAWINGS = file_of(".json")
FILTERS = wholes(1, 1024, "one per convolution")
DATASET = ValueType("mnist, fashion_mnist, a folder of four IDX files, or an .npz file", _dataset)
MODEL = ValueType(
    "a URI (models:/name@alias, models:/name/2, runs:/id/model) or an .h5 or .keras file", _model
)

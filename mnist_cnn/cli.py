"""The command line: which verbs there are, what each takes, and how it answers.

Values are checked before the verb's module is imported, for MLflow and TensorFlow take seconds.
"""

import gc
import os
import sys
from importlib import import_module
from typing import Any

import click

from mnist_cnn import parameters as types
from mnist_cnn.parameters import ValueType, file_of, number, one_of, whole, wholes
from mnist_cnn.recipes import HYPERPARAMETERS, RECIPES, SIDE_BY_SIDE, as_text, customised

verb_has_begun = False  # until then a signal ends the process at once: __main__.py


def _option(name: str, default: str | None, of: str, type: ValueType, **how: bool) -> click.Option:
    """`--name value`, with its default as typed (None: decided by the verb)."""
    help = f"{of}{f' (default {default})' if default else ''}: {type.allowed}"
    return click.Option([f"--{name}"], default=default, type=type, help=help, metavar="", **how)


def _hyperparameters(names: list[str]) -> str:
    """What --help says of them below the options: each with its default in every recipe."""
    lines = ["Hyperparameters, with the default of each recipe:", "", "\b"]
    lines.append(f"{'':17}{''.join(f' {name:13}' for name in RECIPES)}")
    for name in names:
        values = (as_text(getattr(recipe, name)) for recipe in RECIPES.values())
        lines.append(f"--{name:15}{''.join(f' {value:13}' for value in values)}")
        type, meaning = HYPERPARAMETERS[name]
        lines.append(f"  {meaning}: {type.allowed}")
    return "\n".join(map(str.rstrip, lines)) if names else ""


def _verb(name: str, what: str, *rows: click.Option) -> click.Command:
    """A command that imports the module of its name only when its values are right."""
    of_recipe = [str(row.name) for row in rows if row.hidden]

    def act(**values: Any) -> int:
        if of_recipe:
            changes = {name: values.pop(name) for name in of_recipe}
            values["recipe"] = customised(RECIPES[values["recipe"]], changes)
        global verb_has_begun
        gc.disable()  # it takes a quarter of the imports' time to find that all of it stays
        try:
            if dataset := values.get("dataset"):
                import_module("mnist_cnn.learning.data").begin_loading(dataset)
            action = getattr(import_module(f"mnist_cnn.{name}"), name)
        except RuntimeError as error:  # MLflow's, in `docker --user 12345`
            raise types.UserError(f"{str(error).rstrip('.')}: set HOME to a folder.") from None
        gc.freeze()  # and what stays is not looked through again
        gc.enable()
        verb_has_begun = True
        code = action(**values)
        return code if isinstance(code, int) else 0

    settings: dict[str, Any] = {"help_option_names": ["--help", "-h"]}
    settings["token_normalize_func"] = lambda name: name.replace("-", "_")  # --batch-size
    return click.Command(name, settings, act, list(rows), what, _hyperparameters(of_recipe), what)


_TRAIN = (
    _option("recipe", "fast", "which network, and how it is trained", one_of(*RECIPES)),
    _option("seed", "0", "of every random choice; same seed, same weights", whole(0, 2**31 - 1)),
    _option("dataset", "mnist", "the images", types.DATASET),
    *(_option(name, None, of, type, hidden=True) for name, (type, of) in HYPERPARAMETERS.items()),
)
_TAUGHT = _option("drawings", None, "drawings saved by the page, to learn from too", types.DRAWINGS)
_MEASURED = _option("drawings", None, "drawings saved by the page, to measure on", types.DRAWINGS)

_VERBS = (  # MLproject forwards to these and repeats nothing
    _verb("main", "Train, evaluate and convert one version, in one run.", *_TRAIN, _TAUGHT),
    _verb("train", "Train a recipe and register the model as the candidate.", *_TRAIN, _TAUGHT),
    _verb(
        "evaluate",
        "Report on the test images where a model fails; promote it if it is proven better.",
        _option("model", "models:/mnist-cnn@candidate", "the model to evaluate", types.MODEL),
        _option("dataset", None, "the images; by default as it was trained", types.DATASET),
        _option("promote", "true", "make it champion if the rule allows", types.BOOLEAN),
        _option("depth", "standard", "full: all strengths and images", one_of("standard", "full")),
        _MEASURED,
    ),
    _verb(
        "promote",
        "Make a version the champion: a person's own decision, and the way back.",
        _option("version", "", "version number of mnist-cnn", whole(1, 10**9)),
    ),
    _verb(
        "tune",
        "Sweep filter counts, learning rate and more with Optuna; register the best.",
        *(option for option in _TRAIN if option.name != "epochs"),
        _option("trials", "20", "finished trials in all", whole(1, 100000)),
        _option("workers", "0", "processes, sharing the cores; 0: a core each", whole(0, 64)),
        _option("study", "mnist-cnn", "name of the study; an existing one goes on", types.TEXT),
        _option("storage", "sqlite:///tune.db", "database of the study", types.TEXT),
        _option("epochs", "3", "of each trial", whole(1, 1000)),
        _option("timeout", "0", "seconds until no trial begins; 0: none", whole(0, 10**7)),
        _option("filters_choices", "8,16,20,32,48,64,96,128", "of each", wholes(1, 1024, "all")),
        _option("learning_rate_range", "0.02,0.5", "of the learning rate", types.RATES),
        _option("objective", "likelihood", "front: accuracy against size", types.OBJECTIVES),
        _option("max_parameters", "0", "most of a model; 0: any number", whole(0, 10**9)),
        _option("max_kilobytes", "0", "most of its TensorFlow.js files; 0: any", whole(0, 10**6)),
        _option("sampler", "tpe", "how to choose; random to compare", one_of("tpe", "random")),
        _option("pruner", "median", "how trials end early", one_of("median", "hyperband", "none")),
    ),
    _verb(
        "convert",
        "Write a model as TensorFlow.js files that are proven to answer as Keras does.",
        _option("model", None, "by default the champion, else the newest", types.MODEL),
        _option("output", "out", "folder to write", types.PATH),
        _option("output_format", "tfjs_layers_model", "a graph is faster and final", types.FORMATS),
        _option("quantize", "none", "auto: the smallest that loses nothing", types.WIDTHS),
        _option("max_accuracy_loss", "0.001", "most that quantising may lose", number(0, 1)),
        _option("weight_shard_size_bytes", "4194304", "largest file", whole(1024, 2**30)),
        _option("split_weights_by_layer", "false", "files of its own a layer", types.BOOLEAN),
        _option("metadata", "", "text to keep in model.json", types.TEXT),
        _MEASURED,
        _option("inputs", None, "your samples for the proof, an array an input", file_of(".npz")),
    ),
    _verb(
        "serve",
        "Show the page that convert wrote, on this machine only.",
        _option("output", "out", "the folder that convert wrote", types.PATH),
        _option("port", "8000", "where to listen", whole(1, 65535)),
    ),
    _verb(
        "benchmark",
        "Train recipes side by side with several seeds; mean ± sd of accuracy and time.",
        _option("recipes", "classic,bare,fast,tiny,accurate", "the first is 1", SIDE_BY_SIDE),
        _option("seeds", "1,2,3,4,5", "of each", wholes(0, 2**31 - 1, "the seeds")),
        _option("images", "0", "to train with; 0: all", wholes(0, 10**7, "the sizes")),
        _option("threads", "0", "0: one a core", wholes(0, 1024, "the numbers of threads")),
        _option("dataset", "mnist", "the images", types.DATASET),
    ),
    _verb("test", "Run the default test suite."),
)
PROGRAM = click.Group("mnist_cnn", _VERBS, help="VERB --help lists what it takes: --name value")
VERBS = PROGRAM.commands


def run(arguments: list[str]) -> int:
    """Do what `arguments` say. Exit code: 0 done, 1 failed, 2 refused before anything began."""
    told = " ".join(["mnist_cnn", *arguments[:1]])
    try:
        code = PROGRAM.main(arguments or ["--help"], "python -m mnist_cnn", standalone_mode=False)
        return code if arguments else 2
    except click.UsageError as error:
        hint = "" if getattr(error, "possibilities", None) else " (write --name value; try --help)"
        print(f"{told}: {error.format_message()}{hint}", file=sys.stderr)
        return 2
    except types.UserError as error:
        print(f"{told}: {error}", file=sys.stderr)
        return 2 if isinstance(error, types.WrongParameter) else 1
    except (KeyboardInterrupt, click.Abort):
        print(f"{told}: interrupted; nothing is half-written.", file=sys.stderr)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1

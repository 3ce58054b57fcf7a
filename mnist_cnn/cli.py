"""The command line: which verbs there are, what each takes, and how it answers.

Values are checked before the verb's module is imported, for MLflow and TensorFlow take seconds.
"""

import os
import sys
from importlib import import_module
from typing import Any

import click

from mnist_cnn import parameters as types
from mnist_cnn.parameters import UserError, ValueType, WrongParameter, one_of, whole, wholes
from mnist_cnn.recipes import HYPERPARAMETERS, RECIPES, SIDE_BY_SIDE, as_text, customised

verb_has_begun = False  # until then a signal ends the process at once: __main__.py


class Parameter(click.Option):
    """`--name value`: its default as typed (None: decided by the verb), meaning and type."""

    def __init__(
        self, name: str, default: str | None, meaning: str, type: ValueType, hidden: bool = False
    ) -> None:
        super().__init__([f"--{name}"], default=default, type=type, hidden=hidden)
        default = f" (default {default})" if default else ""
        self.help = f"{meaning}{default}: {type.allowed}"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Name, and meaning with default and range."""
        return None if self.hidden else (f"--{self.name}", str(self.help))


class Verb(click.Command):
    """A command that imports the module of its name only when its values are right."""

    def __init__(self, name: str, what: str, *rows: Parameter) -> None:
        context = {
            "help_option_names": ["--help", "-h"],
            # --batch-size is --batch_size.
            "token_normalize_func": lambda name: name.replace("-", "_"),
        }
        super().__init__(name, context, self.act, list(rows), what, short_help=what)
        self.hyperparameters = [str(row.name) for row in rows if row.hidden]

    def act(self, **values: Any) -> int:
        """Exit code of the verb. With a `recipe`, some of its values are hyperparameters."""
        if self.hyperparameters:
            changes = {name: values.pop(name) for name in self.hyperparameters}
            values["recipe"] = customised(RECIPES[values["recipe"]], changes)
        global verb_has_begun
        action = getattr(import_module(f"mnist_cnn.{self.name}"), str(self.name))
        verb_has_begun = True
        return action(**values) or 0

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The hyperparameters, each once, with its value in every recipe."""
        if not self.hyperparameters:
            return
        with formatter.section("Hyperparameters, with the default of each recipe"):
            head = f"{'':24}{''.join(f'{name:16}' for name in RECIPES)}"
            formatter.write(head.rstrip() + "\n")
            for name in self.hyperparameters:
                values = (as_text(getattr(recipe, name)) for recipe in RECIPES.values())
                row = f"  --{name:20}{''.join(f'{value:16}' for value in values)}"
                formatter.write(row.rstrip() + "\n")
                known = HYPERPARAMETERS[name]
                with formatter.indentation():
                    formatter.write_text(f"{known.meaning}: {known.type.allowed}")


class Program(click.Group):
    """All verbs, in the order of a model's life."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Not sorted."""
        return list(self.commands)


_TRAIN = (
    Parameter("recipe", "fast", "which network, and how it is trained", one_of(*RECIPES)),
    Parameter("seed", "0", "of every random choice; same seed, same weights", whole(0, 2**31 - 1)),
    Parameter("dataset", "mnist", "the images", types.DATASET),
    *(Parameter(name, None, h.meaning, h.type, hidden=True) for name, h in HYPERPARAMETERS.items()),
)
_TAUGHT = Parameter(
    "drawings", None, "recorded drawings to learn from too, as the page saves them", types.DRAWINGS
)
_MEASURED = Parameter(
    "drawings", None, "recorded drawings to measure on, as the page saves them", types.DRAWINGS
)

# MLproject forwards to these and repeats nothing.
_VERBS = (
    Verb("main", "Train, evaluate and convert one version, as steps of one run.", *_TRAIN, _TAUGHT),
    Verb("train", "Train a recipe and register the model as the new candidate.", *_TRAIN, _TAUGHT),
    Verb(
        "evaluate",
        "Report on the test images where a model fails; promote it if it is proven better.",
        Parameter("model", "models:/mnist-cnn@candidate", "the model to evaluate", types.MODEL),
        Parameter("dataset", None, "the images; by default as it was trained", types.DATASET),
        Parameter("promote", "true", "make it champion if the rule allows", types.BOOLEAN),
        Parameter(
            "depth",
            "standard",
            "full: corruptions at every strength, on all test images",
            one_of("standard", "full"),
        ),
        _MEASURED,
    ),
    Verb(
        "promote",
        "Make a version the champion: a person's own decision, and the way back.",
        Parameter("version", "", "version number of mnist-cnn", whole(1, 10**9)),
    ),
    Verb(
        "tune",
        "Sweep filter counts, learning rate and more with Optuna; register the best.",
        *(parameter for parameter in _TRAIN if parameter.name != "epochs"),
        Parameter("trials", "20", "finished trials in all", whole(1, 100000)),
        Parameter("workers", "0", "processes, sharing the cores; 0: a core each", whole(0, 64)),
        Parameter("study", "mnist-cnn", "name of the study; an existing one goes on", types.TEXT),
        Parameter("storage", "sqlite:///tune.db", "database of the study", types.TEXT),
        Parameter("epochs", "3", "of each trial", whole(1, 1000)),
        Parameter("timeout", "0", "seconds until no trial begins; 0: none", whole(0, 10**7)),
        Parameter(
            "filters_choices",
            "8,16,32,48,64,96,128",
            "what each convolution may have",
            wholes(1, 1024, "the choices"),
        ),
        Parameter("learning_rate_range", "0.02,0.5", "of the learning rate", types.interval(0, 10)),
        Parameter(
            "objective",
            "accuracy",
            "front: search accuracy against parameters, keep the cheapest as good as the best",
            one_of("accuracy", "front"),
        ),
        Parameter("sampler", "tpe", "how to choose; random to compare", one_of("tpe", "random")),
        Parameter(
            "pruner",
            "median",
            "how to stop early; none to compare",
            one_of("median", "hyperband", "none"),
        ),
    ),
    Verb(
        "convert",
        "Write a model as TensorFlow.js files that are proven to answer as Keras does.",
        Parameter("model", None, "by default the champion, else the newest", types.MODEL),
        Parameter("output", "out", "folder to write", types.PATH),
        Parameter(
            "output_format",
            "tfjs_layers_model",
            "layers, or a graph that is faster but final",
            one_of("tfjs_layers_model", "tfjs_graph_model"),
        ),
        Parameter(
            "quantize",
            "none",
            "width of the weights; auto: the smallest that loses nothing on validation",
            one_of("none", "float16", "uint16", "uint8", "auto"),
        ),
        Parameter(
            "max_accuracy_loss",
            "0.001",
            "most that quantisation may lose on validation",
            types.number(0, 1),
        ),
        Parameter(
            "weight_shard_size_bytes", "4194304", "largest file of weights", whole(1024, 2**30)
        ),
        Parameter("split_weights_by_layer", "false", "files of its own a layer", types.BOOLEAN),
        Parameter("metadata", "", "text to keep in model.json", types.TEXT),
        _MEASURED,
        Parameter(
            "inputs",
            None,
            "your own samples for the proof, an array for each input",
            types.file_of(".npz"),
        ),
    ),
    Verb(
        "serve",
        "Show the page that convert wrote, on this machine only.",
        Parameter("output", "out", "the folder that convert wrote", types.PATH),
        Parameter("port", "8000", "where to listen", whole(1, 65535)),
    ),
    Verb(
        "benchmark",
        "Train recipes side by side with several seeds; mean ± sd of accuracy and time.",
        Parameter(
            "recipes",
            "classic,bare,fast,tiny,accurate",
            "what to compare, the first as 1",
            SIDE_BY_SIDE,
        ),
        Parameter("seeds", "1,2,3,4,5", "seeds of each", wholes(0, 2**31 - 1, "the seeds")),
        Parameter(
            "images", "0", "numbers of training images; 0: all", wholes(0, 10**7, "the sizes")
        ),
        Parameter(
            "threads", "0", "numbers of threads; 0: one a core", wholes(0, 1024, "the numbers")
        ),
        Parameter("dataset", "mnist", "the images", types.DATASET),
    ),
    Verb("test", "Run the default test suite."),
)
VERBS: dict[str, click.Command] = {str(verb.name): verb for verb in _VERBS}


def run(arguments: list[str]) -> int:
    """Do what `arguments` say. Exit code: 0 done, 1 failed, 2 refused before anything began."""
    program = Program("mnist_cnn", VERBS, help="VERB --help lists what it takes: --name value ...")
    told = " ".join(["mnist_cnn", *arguments[:1]])
    try:
        code = program.main(arguments or ["--help"], "python -m mnist_cnn", standalone_mode=False)
        return code if arguments else 2
    except click.UsageError as error:
        hint = "" if getattr(error, "possibilities", None) else " (write --name value; try --help)"
        print(f"{told}: {error.format_message()}{hint}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"{told}: {error}", file=sys.stderr)
        return 2 if isinstance(error, WrongParameter) else 1
    except (KeyboardInterrupt, click.Abort):
        print(f"{told}: interrupted; nothing is half-written.", file=sys.stderr)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1

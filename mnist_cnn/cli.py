"""The command line: which verbs there are, what each takes, and how it answers.

Values are checked before the verb's module is imported, for MLflow and TensorFlow take seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mnist_cnn.parameters import (
    BOOLEAN,
    DATASET,
    MODEL,
    TEXT,
    Parameter,
    UserError,
    WrongParameter,
    interval,
    number,
    one_of,
    pairs,
    refuse_unknown,
    whole,
    wholes,
)
from mnist_cnn.recipes import RECIPES, SIDE_BY_SIDE, as_parameters, customised

_TRAIN = {
    "recipe": Parameter("fast", "which network, and how it is trained", one_of(*RECIPES)),
    "seed": Parameter("0", "of every random choice; same seed, same weights", whole(0, 2**31 - 1)),
    "dataset": Parameter("mnist", "the images", DATASET),
}

# verb: (what it does, its parameters). MLproject forwards to these and repeats nothing.
VERBS: dict[str, tuple[str, dict[str, Parameter]]] = {
    "main": (
        "Train, evaluate and convert one version, as steps of one run.",
        _TRAIN,
    ),
    "train": ("Train a recipe and register the model as the new candidate.", _TRAIN),
    "evaluate": (
        "Report on the test images where a model fails; promote it if it is proven better.",
        {
            "model": Parameter("models:/mnist-cnn@candidate", "the model to evaluate", MODEL),
            "dataset": Parameter(None, "the images; by default those it was trained for", DATASET),
            "promote": Parameter("true", "make it champion if the rule allows", BOOLEAN),
            "depth": Parameter(
                "standard",
                "full: corruptions at every strength, on all test images",
                one_of("standard", "full"),
            ),
        },
    ),
    "promote": (
        "Make a version the champion: a person's own decision, and the way back.",
        {"version": Parameter("", "version number of mnist-cnn", whole(1, 10**9))},
    ),
    "tune": (
        "Sweep filter counts, learning rate and more with Optuna; register the best.",
        {
            **_TRAIN,
            "trials": Parameter("20", "finished trials in all", whole(1, 100_000)),
            "workers": Parameter(
                "0", "processes that share the cores; 0: a core each", whole(0, 64)
            ),
            "study": Parameter("mnist-cnn", "name of the study; an existing one goes on", TEXT),
            "storage": Parameter("sqlite:///tune.db", "database of the study", TEXT),
            "epochs": Parameter("3", "of each trial", whole(1, 1000)),
            "timeout": Parameter("0", "seconds until no trial begins; 0: none", whole(0, 10**7)),
            "filters_choices": Parameter(
                "8,16,24,32,48,64",
                "what each convolution may have",
                wholes(1, 1024, "the choices"),
            ),
            "learning_rate_range": Parameter("0.02,0.5", "of the learning rate", interval(0, 10)),
            "objective": Parameter(
                "accuracy",
                "front: search accuracy against parameters, keep the cheapest as good as the best",
                one_of("accuracy", "front"),
            ),
            "sampler": Parameter(
                "tpe", "how to choose; random to compare", one_of("tpe", "random")
            ),
            "pruner": Parameter(
                "median",
                "how to stop early; none to compare",
                one_of("median", "hyperband", "none"),
            ),
        },
    ),
    "convert": (
        "Write a model as TensorFlow.js files that are proven to answer as Keras does.",
        {
            "model": Parameter(None, "the model; by default the champion, else the newest", MODEL),
            "output": Parameter("out", "folder to write", TEXT),
            "output_format": Parameter(
                "tfjs_layers_model",
                "layers, or a graph that is faster but final",
                one_of("tfjs_layers_model", "tfjs_graph_model"),
            ),
            "quantize": Parameter(
                "none",
                "width of the weights; auto: the smallest that loses nothing on validation",
                one_of("none", "float16", "uint16", "uint8", "auto"),
            ),
            "max_accuracy_loss": Parameter(
                "0.001", "most that quantisation may lose on validation", number(0, 1)
            ),
            "weight_shard_size_bytes": Parameter(
                "4194304", "largest file of weights", whole(1024, 2**30)
            ),
            "split_weights_by_layer": Parameter("false", "files of its own a layer", BOOLEAN),
            "metadata": Parameter("", "text to keep in model.json", TEXT),
        },
    ),
    "serve": (
        "Show the page that convert wrote, on this machine only.",
        {
            "output": Parameter("out", "the folder that convert wrote", TEXT),
            "port": Parameter("8000", "where to listen", whole(1, 65535)),
        },
    ),
    "benchmark": (
        "Train recipes side by side with several seeds; mean ± sd of accuracy and time.",
        {
            "recipes": Parameter(
                "classic,bare,fast,tiny,accurate", "what to compare, the first as 1", SIDE_BY_SIDE
            ),
            "seeds": Parameter("1,2,3,4,5", "seeds of each", wholes(0, 2**31 - 1, "the seeds")),
            "images": Parameter(
                "0", "numbers of training images to try; 0: all", wholes(0, 10**7, "the sizes")
            ),
            "threads": Parameter(
                "0", "numbers of threads to try; 0: one a core", wholes(0, 1024, "the numbers")
            ),
            "dataset": Parameter("mnist", "the images", DATASET),
        },
    ),
    "test": ("Run the default test suite.", {}),
}


def run(arguments: list[str]) -> int:
    """Do what `arguments` say. Exit code: 0 done, 1 failed, 2 refused before anything began."""
    try:
        if not arguments or arguments[0] in ("--help", "-h", "help"):
            print(overview())
            return 0 if arguments else 2
        verb, *rest = arguments
        if verb not in VERBS:
            refuse_unknown(verb, VERBS, "mnist_cnn")
        if "--help" in rest or "-h" in rest:
            print(usage(verb))
            return 0
        values = read(verb, pairs(rest))
    except WrongParameter as error:
        print(f"mnist_cnn: {error}", file=sys.stderr)
        return 2

    action: Callable[..., Any] = getattr(import_module(f"mnist_cnn.{verb}"), verb)
    try:
        return action(**values) or 0
    except UserError as error:
        print(f"mnist_cnn {verb}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"mnist_cnn {verb}: interrupted; nothing is half-written.", file=sys.stderr)
    return 1


def read(verb: str, texts: dict[str, str]) -> dict[str, Any]:
    """The keyword arguments of `verb` from the texts a user typed. Raises WrongParameter.

    With a `recipe`, the parameters that the verb does not know are its hyperparameters.
    """
    parameters = VERBS[verb][1]
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        text = texts.get(name, parameter.default)
        values[name] = None if text is None else parameter.read(name, text)
    others = {name: text for name, text in texts.items() if name not in parameters}
    if "recipe" in parameters:
        recipe = RECIPES[values["recipe"]]
        for name in others:
            refuse_unknown(
                name, [*parameters, *as_parameters(recipe)], f"{verb} (recipe={recipe.name})"
            )
        values["recipe"] = customised(recipe, others)
    for name in others:
        if "recipe" not in parameters:
            refuse_unknown(name, parameters, verb)
    return values


def overview() -> str:
    """The verbs, one a line."""
    lines = [f"  {verb:10} {what}" for verb, (what, _) in VERBS.items()]
    return "\n".join(
        [
            "python -m mnist_cnn VERB --name value ...",
            "",
            *lines,
            "",
            "VERB --help lists its parameters.",
        ]
    )


def usage(verb: str) -> str:
    """What `verb` does, and each of its parameters: meaning, default and range."""
    what, parameters = VERBS[verb]
    lines = [f"python -m mnist_cnn {verb}: {what}"]
    lines += _described(parameters)
    if "recipe" in parameters:
        for recipe in RECIPES.values():
            lines += ["", f"hyperparameters of recipe={recipe.name} ({recipe.claim}):"]
            own = as_parameters(recipe)
            lines += _described({n: own[n] for n in own if n not in parameters})
    return "\n".join(lines)


def _described(parameters: dict[str, Parameter]) -> list[str]:
    def line(name: str, parameter: Parameter) -> str:
        default = f" (default {parameter.default})" if parameter.default else ""
        return f"  --{name:16} {parameter.meaning}{default}: {parameter.kind.allowed}"

    return [line(name, parameter) for name, parameter in parameters.items()]

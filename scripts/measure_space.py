"""Which hyperparameters move results on the sets of measure_sweeps, as a table of Markdown.

    python -m scripts.measure_space FOLDER [FASHION_MNIST [CONFIGURATIONS]]

Random configurations of the space of `tune` by default, with weight decay and distortion beside
it: each trains on the first TRAIN images of a set with as many epochs as a trial of a sweep, and
is judged by its likelihood for the next 5,000. Importance: share of the variance (Optuna's
fANOVA). ρ: Spearman's coefficient of correlation with the likelihood, of all configurations and of
the better half. A process a core; FOLDER is that of measure_sweeps, or another: the same command
goes on where it was ended.
"""

import sys
from dataclasses import fields, replace
from pathlib import Path

import optuna
import pandas as pd
from optuna.study import MaxTrialsCallback
from optuna.trial import Trial, TrialState
from scipy.stats import spearmanr

from mnist_cnn.cli import VERBS
from mnist_cnn.evaluation.metrics import likelihood
from mnist_cnn.learning.data import Split, load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.model import predict
from mnist_cnn.learning.processes import run_workers
from mnist_cnn.learning.study import FINISHED, Sweep
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import FAST
from mnist_cnn.tracking.runs import cores
from scripts.measure_sweeps import SETS, dataset_of, markdown

TRAIN = {"Fashion-MNIST": 10_000, "6,000 images": 5_500, "turned": 10_000}
BESIDE = {"weight_decay": 0.1, "distort": 1.0}  # up to, from 0 on


def work(storage: str, name: str, dataset: str, count: int, worker: int) -> None:
    """One process: trials on a set until `count` have ended."""
    values = VERBS["tune"].make_context("tune", []).params | {"recipe": FAST}
    values |= {"dataset_digest": "", "parent": ""}
    sweep = Sweep(**{field.name: values[field.name] for field in fields(Sweep)})
    every, n = load_training(dataset), TRAIN[name]
    train, held_out = (
        Split(every.train.x[part], every.train.y[part]) for part in (slice(n), slice(n, n + 5000))
    )
    data = replace(every, name="part", train=train, validation=held_out)

    def objective(trial: Trial) -> float:
        beside = {key: trial.suggest_float(key, 0, most) for key, most in BESIDE.items()}
        try:
            fitted = fit(replace(sweep.suggest(trial), **beside), data, seed=0)
        except UserError:
            raise optuna.TrialPruned from None  # it diverged
        trial.set_user_attr("accuracy", fitted.history["val_accuracy"][-1])
        return likelihood(held_out.y, predict(fitted.model, held_out.x))

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=f"space {name}", storage=storage, sampler=optuna.samplers.RandomSampler()
    )
    study.optimize(objective, callbacks=[MaxTrialsCallback(count, states=FINISHED)])


def columns(study: optuna.Study, name: str) -> dict[str, pd.Series]:
    """Importance and correlations of each hyperparameter."""
    trials = study.get_trials(states=[TrialState.COMPLETE])
    table = pd.DataFrame([trial.params | {"value": trial.value} for trial in trials])
    importance = pd.Series(optuna.importance.get_param_importances(study)).mul(100).round()
    found = {f"{name}, importance, %": importance.astype(int)}
    halves = {"": table, ", better half": table[table.value >= table.value.median()]}
    for told, some in halves.items():
        ranks = {key: spearmanr(some[key], some.value).statistic for key in importance.index}
        found[f"{name}, ρ{told}"] = pd.Series(ranks).map("{:+.2f}".format)
    return found


def main() -> None:
    """Train what is missing, and print the table."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    fashion = sys.argv[2] if len(sys.argv) > 2 else "fashion_mnist"
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    storage, found = f"sqlite:///{folder}/space.db", dict[str, pd.Series]()
    for name in SETS:
        study = optuna.create_study(
            direction="maximize", study_name=f"space {name}", storage=storage, load_if_exists=True
        )
        if len(study.get_trials(states=FINISHED)) < count:
            # The images that the set of 6,000 does not have judge it better than its own 500.
            dataset = "mnist" if name == "6,000 images" else dataset_of(name, folder, fashion)
            run_workers(work, (storage, name, dataset, count), cores(), cores())
        found |= columns(study, name)
    print(markdown(pd.DataFrame(found).rename_axis("hyperparameter").reset_index()))


if __name__ == "__main__":
    main()

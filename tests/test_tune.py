"""The sweep: tracked, seeded, blind to the test images, and alive after a kill."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import mlflow
import numpy as np
import optuna
import psutil
import pytest
from scipy.stats import ttest_ind

from mnist_cnn import cli, tune
from mnist_cnn.browser import tfjs
from mnist_cnn.evaluation.study_results import (
    described,
    finalists,
    gain_with_error,
    report,
    summary,
)
from mnist_cnn.learning import study as studies
from mnist_cnn.learning.data import load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.study import Sweep
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import FAST, TINY
from mnist_cnn.tracking import registry
from tests.conftest import DEADLY, served, start, wait_for
from tests.test_tracked import artifacts, last_run
from tests.test_tracked import described as lines_of

# Few filters, few steps: what is measured here is not how well they learn.
SMALL = ["--epochs", "2", "--filters_choices", "2,3", "--seed", "3", "--workers", "1"]


def trials(study, folder):
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder}/tune.db").trials


def finished(study, folder):
    try:
        states = [trial.state.name for trial in trials(study, folder)]
    except Exception:  # the database is not there yet
        return 0
    return sum(state in ("COMPLETE", "PRUNED") for state in states)


@pytest.fixture(scope="module", autouse=True)
def short_end():
    """Two seeds and one finalist at the end instead of three, in the sweeps of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "SEEDS", 2)
        patch.setattr(tune, "FINALISTS", 1)
        yield


@pytest.fixture(scope="module")
def swept(store, small):
    command = ["tune", "--study", "one", "--dataset", str(small), *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "FINALISTS", 2)
        assert cli.run([*command, "--trials", "2"]) == 0
    return command


def test_sweep_is_tracked_and_its_best_registered(swept, store):
    parent = last_run("tune")
    assert {"trials.csv", "best_params.json", "study.html"} <= artifacts(parent)
    finalists = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/finalists.json")
    assert len(finalists) == 2
    best = max(finalists.values(), key=lambda found: np.mean(found["val_likelihood"]))
    metrics, accuracy = parent.data.metrics, np.mean(best["val_accuracy"])
    assert metrics["study/best_val_accuracy"] == pytest.approx(accuracy)
    for other in ("recipe", "recipe_same_epochs"):
        gain = metrics[f"{other}/val_accuracy"] + metrics[f"{other}/gain"]
        assert gain == pytest.approx(accuracy)
    page = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/study.html")
    assert "src=" not in page[:400], "nothing from elsewhere"
    assert "Accuracy against cost" in page
    assert "<title>Study one</title>" in page
    assert "2 trials of fast, 0 of them ended early. The best" in page[:400]
    assert parent.info.run_name == "tune fast, study one"
    (images,) = parent.inputs.dataset_inputs
    assert images.dataset.digest == parent.data.params["dataset_digest"]
    summary, gain = lines_of(parent)
    assert "The best on validation is trial" in summary
    assert gain.startswith("val_accuracy of fast with epochs=2")
    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
    )
    by_verb = [run.data.tags["verb"] for run in children]
    assert by_verb.count("trial") == 2
    one = next(run.info.run_id for run in children if run.data.tags["verb"] == "trial")
    curve = mlflow.MlflowClient().get_metric_history(one, "val_accuracy")
    assert [point.step for point in curve] == [1, 2], "a value an epoch"
    tried = {lines_of(run) for run in children if run.data.tags["verb"] == "trial"}
    assert {first for first, _ in tried} == {f"Trial {n} of study one." for n in (0, 1)}
    assert all(second.startswith("val_accuracy: 0.") for _, second in tried)
    assert {"train", "evaluate"} <= set(by_verb)
    candidate = registry.find("models:/mnist-cnn@candidate")
    assert len(candidate.tags) <= 8, "with the evaluation, no more than a person reads"
    assert metrics["study/finished_trials"] == 2
    by_trial = [trial.value for trial in trials("one", store)]
    assert by_trial == [trial.user_attrs["val_likelihood"] for trial in trials("one", store)]
    told = mlflow.MlflowClient().get_metric_history(parent.info.run_id, "study/best_so_far")
    best_so_far = [(1, by_trial[0]), (2, max(by_trial))]
    assert [(metric.step, metric.value) for metric in told] == best_so_far


def test_another_search_of_the_same_name_is_refused(swept, store, capsys):
    assert cli.run([*swept, "--learning_rate_range", "0.1,0.2", "--trials", "9"]) == 1
    assert "study=one exists with another learning_rate_range=0.02,0.5" in capsys.readouterr().err
    assert finished("one", store) == 2
    assert cli.run([*swept, "--objective", "front"]) == 1
    assert "study=one exists with another objective=likelihood" in capsys.readouterr().err
    assert cli.run([*swept, "--storage", "sqlite:///nowhere/tune.db"]) == 1
    told = "storage=sqlite:///nowhere/tune.db cannot be used: unable to open database file."
    assert told in capsys.readouterr().err
    assert cli.run([*swept, "--storage", "nonsense"]) == 1
    assert cli.run([*swept, "--storage", "postgresql://me:a/secret@127.0.0.1:1/x"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "secret" not in err
    assert "secret" not in str(last_run("tune").data)


@pytest.fixture
def no_end(monkeypatch):
    """Without the finalists and the evaluation: they take long, and `swept` has them."""
    monkeypatch.setattr(tune, "_train_the_best", lambda *_: None)


def test_selection_never_sees_the_test_images(swept, no_end, store, small):
    """With other test images the same trials give the same values."""
    data = dict(np.load(small))
    data["x_test"] = 255 - data["x_test"]
    np.savez(store / "poisoned.npz", **data)
    command = ["tune", "--study", "two", "--dataset", "poisoned.npz", *SMALL, "--trials", "2"]
    assert cli.run(command) == 0
    ours, theirs = (
        [(trial.params, trial.values) for trial in trials(study, store)[:2]]
        for study in ("one", "two")
    )
    assert ours == theirs


def test_no_model_above_a_bound_is_trained_or_kept(no_end, store, small, tmp_path, capsys):
    """The size is that of the TensorFlow.js files; what is above it counts as no trial."""
    command = ["tune", "--study", "bounded", "--dataset", str(small), *SMALL]
    command += ["--objective", "front", "--filters_choices", "2,16", "--max_kilobytes"]
    assert cli.run([*command, "4", "--trials", "2"]) == 1
    assert "max_kilobytes=4 allows nothing: the smallest model of" in capsys.readouterr().err
    assert cli.run([*command, "8", "--trials", "2"]) == 0
    trained = [trial for trial in trials("bounded", store) if trial.values]
    assert len(trained) == 2
    assert all(trial.constraints["max_kilobytes"] <= 0 for trial in trained)
    filters = tuple(trained[0].params[f"filters_{i}"] for i in (1, 2, 3))
    fitted = fit(replace(FAST, filters=filters), load_training(str(small)), 0)
    tfjs.write(fitted.model, tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.glob("[gm]*"))
    assert trained[0].constraints["max_kilobytes"] == pytest.approx(size / 8000 - 1)
    above = [t for t in trials("bounded", store) if max(t.constraints.values(), default=0) > 0]
    assert above
    assert not any("mlflow_run" in trial.user_attrs for trial in above)
    assert cli.run([*command, "9", "--trials", "3"]) == 1
    assert "study=bounded exists with another max_kilobytes=8" in capsys.readouterr().err


def test_a_bound_leaves_the_filter_counts_that_some_model_within_it_has(tmp_path):
    """Only two of 32,768 models of `tiny` keep this bound."""
    every = sweep(tmp_path, (8, 16, 20, 32, 48, 64, 96, 128))
    assert tune._within_bounds(every) == every
    small = tune._within_bounds(replace(every, recipe=TINY, max_kilobytes=20))
    assert small.filters_choices == (8, 16)


def diverging(*_):
    raise UserError("the loss is nan after epoch 1")


def test_the_finals_are_shared_by_the_workers_and_none_is_trained_twice(
    store, small, tmp_path, monkeypatch
):
    """A kill among them costs only those that were being trained."""
    held, data = replace(sweep(tmp_path), dataset=str(small)), load_training(str(small))
    study = studies.open_study(held, 0)
    wide = replace(FAST, filters=(4, 4, 4))
    first = tune._with_other_seeds([wide], study, held, 2, data)
    assert set(first[wide]) == {"val_accuracy", "val_likelihood"}
    assert all(len(set(found)) == 2 for found in first[wide].values()), "two seeds"
    monkeypatch.setattr(tune, "fit", None)
    assert tune._with_other_seeds([wide], study, held, 2, data) == first
    monkeypatch.setattr(tune, "fit", diverging)
    other = tune._with_other_seeds([FAST], study, held, 1, data)
    assert other[FAST]["val_likelihood"] == [0.0, 0.0], "one that diverges is no finalist to keep"
    monkeypatch.setattr(tune, "run_workers", lambda *_: [0, 1])
    with pytest.raises(UserError, match="a worker died; the same command goes on"):
        tune._with_other_seeds([replace(FAST, epochs=2), wide], study, held, 2, data)


def runs(**wanted):
    """Runs in the store with these tags, newest first."""
    query = " and ".join(f"tags.{name} = '{value}'" for name, value in wanted.items())
    return mlflow.search_runs(filter_string=query, output_format="list")


def states(study):
    return [run.info.status for run in runs(study=study, verb="trial")]


def test_the_best_is_the_most_accurate_or_the_cheapest_as_good():
    def study(directions, *values):
        made = optuna.create_study(directions=directions)
        for accuracy, cost in values:
            both = [accuracy, cost][: len(directions)]
            attributes = {studies.COST: cost}
            made.add_trial(optuna.trial.create_trial(values=both, user_attrs=attributes))
        return made

    values = (0.99, 900), (0.99, 800), (0.989, 300), (0.95, 100)

    def costs(*directions):
        found = finalists(study(directions, *values), images=5000, count=3)
        return [trial.user_attrs[studies.COST] for trial in found]

    assert costs("maximize") == [800, 900, 300], "of equals the cheapest"
    assert costs("maximize", "minimize") == [300], "within a standard error of 0.0014"
    with pytest.raises(UserError, match="no completed trial"):
        finalists(study(["maximize"]), 5000, 3)


def sweep(tmp_path, choices=FAST.filters, trials=1):
    """A sweep with a new database."""
    space = {"filters_choices": choices, "learning_rate_range": (0.02, 0.5)}
    how = {"objective": "accuracy", "sampler": "tpe", "pruner": "none", "epochs": 3, "seed": 0}
    bounds = {"max_parameters": 0, "max_kilobytes": 0}
    where = {"study": "some", "storage": f"sqlite:///{tmp_path}/study.db", "timeout": 60}
    data = {"dataset": "mnist", "dataset_digest": "digest", "parent": ""}
    return Sweep(recipe=FAST, trials=trials, **space, **how, **where, **data, **bounds)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_the_recipe_itself_is_the_first_trial_where_the_space_holds_it(tmp_path):
    (tmp_path / "other").mkdir()
    assert not studies.open_study(sweep(tmp_path / "other", (2, 4)), 0).trials
    held = sweep(tmp_path)
    for _ in range(2):  # opened twice, tried once
        study = studies.open_study(held, 0)
    first, second = (held.suggest(study.ask()) for _ in range(2))
    assert first == replace(FAST, epochs=3)
    assert second != first


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_trial_killed_before_its_first_heartbeat_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "HEARTBEAT", 1)
    held = sweep(tmp_path)
    study = studies.open_study(held, 0)
    study.ask()  # what a process leaves that is killed right after

    def objective(trial):
        assert held.suggest(trial) == replace(FAST, epochs=3), "the first in the queue, again"
        return 0.9

    studies.run_trials(study, held, objective, lambda *_: None)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_several_begin_a_study_at_once(tmp_path):
    """They make the tables of a new database together."""
    for i in range(5):
        (tmp_path / str(i)).mkdir()
        held, together = sweep(tmp_path / str(i), (2,)), Barrier(4)

        def begin(worker, held=held, together=together):
            together.wait()
            return studies.open_study(held, worker)

        with ThreadPoolExecutor(4) as pool:
            assert {study.study_name for study in pool.map(begin, range(4))} == {"some"}


def test_a_trial_that_ends_while_all_are_counted_is_counted(monkeypatch):
    """Missed, it made one trial more than was asked for: of 60 on four workers, once."""
    study = optuna.create_study()
    trial, look = study.ask(), study.get_trials

    def get_trials(**how):
        found = look(**how)
        if trial.number in [t.number for t in look(states=(optuna.trial.TrialState.RUNNING,))]:
            study.tell(trial, 1.0)
        return found

    monkeypatch.setattr(study, "get_trials", get_trials)
    assert studies.count(study, optuna.trial.TrialState.RUNNING) == 1
    assert studies.count(study) == 1


def test_summary_counts_the_trials_and_names_the_best():
    study = optuna.create_study(direction="maximize")
    for value, params in ((0.98, {"x": 0.12345}), (0.97, {"x": 2.0})):
        spaces = {"x": optuna.distributions.FloatDistribution(0, 3)}
        trial = optuna.trial.create_trial(value=value, params=params, distributions=spaces)
        study.add_trial(trial)
    study.ask(spaces).report(0.9, 1)
    study.tell(2, state=optuna.trial.TrialState.PRUNED)
    assert described(study.trials[1]) == "trial 1: 0.9700 with x=2"
    # Optuna gives it the last value reported, which is another figure than that of a whole trial.
    assert study.trials[2].value == 0.9
    assert described(study.trials[2]).startswith("trial 2: ended early with x=")
    told = summary(study)
    assert told.startswith("3 trials of a recipe, 1 of them ended early.")
    assert told.endswith("is trial 0: 0.9800 with x=0.123.")


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_the_page_of_a_study_of_one_trial_or_none_has_all_plots(directions):
    study = optuna.create_study(directions=directions)
    for complete in (0, 1):
        page = report(study)
        assert page.count('class="plotly-graph-div"') == 6
        assert f"{complete} trials of" in page
        trial = optuna.trial.create_trial(
            values=[0.9, 100.0][: len(directions)],
            params={"learning_rate": 0.1},
            distributions={"learning_rate": optuna.distributions.FloatDistribution(0.01, 1)},
            user_attrs={studies.COST: 100},
        )
        study.add_trial(trial)


def test_gain_has_the_standard_error_of_welch():
    new, old = [0.99, 0.992, 0.994], [0.98, 0.985, 0.981]
    gain, error = gain_with_error(new, old)
    assert gain / error == pytest.approx(ttest_ind(new, old, equal_var=False).statistic)


@pytest.mark.slow
def test_the_front_keeps_the_cheapest_of_the_good(store, small):
    command = ["tune", "--study", "front", "--dataset", str(small), *SMALL]
    assert cli.run([*command, "--objective", "front", "--trials", "3"]) == 0
    study = optuna.load_study(study_name="front", storage=f"sqlite:///{store}/tune.db")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    best = max(trial.values[0] for trial in study.trials)
    margin = (best * (1 - best) / 100) ** 0.5
    cheapest = min(trial.values[1] for trial in study.trials if trial.values[0] >= best - margin)
    version = registry.find("models:/mnist-cnn@candidate")
    assert registry.load(version).count_params() == cheapest
    page = mlflow.artifacts.load_text(f"{last_run('tune').info.artifact_uri}/study.html")
    assert "Accuracy against cost" in page


def test_time_is_up_before_a_trial_completes(store, small, capsys):
    """Nothing but a foreign trial that never ends: after the timeout, one sentence."""
    command = ["tune", "--study", "late", "--dataset", str(small), *SMALL, "--trials", "1"]
    other = optuna.create_study(
        study_name="late", storage=f"sqlite:///{store}/tune.db", direction="maximize"
    )
    other.ask()
    assert cli.run([*command, "--timeout", "2"]) == 1
    assert "study=late has no completed trial yet" in capsys.readouterr().err


def test_sweep_goes_on_after_a_killed_worker_and_ctrl_c(no_end, store, small, monkeypatch):
    """Two workers: one is killed and the other goes on; then Ctrl-C, and the same command again."""
    command = ["tune", "--study", "killed", "--dataset", str(small), *SMALL]
    parent = start(store, *command, "--trials", "500", "--workers", "2")

    def workers():
        found = psutil.Process(parent.pid).children(recursive=True)
        return [p for p in found if "spawn_main" in " ".join(p.cmdline())]

    wait_for(lambda: finished("killed", store) >= 1, parent, every=0.3)
    first, second = workers()
    first.kill()
    now = finished("killed", store)
    wait_for(lambda: finished("killed", store) > now, parent, every=0.3)
    assert second.is_running(), "the other worker goes on"
    # Ctrl-C in a terminal reaches the workers too.
    os.killpg(parent.pid, signal.SIGINT)
    _, err = parent.communicate(timeout=600)
    assert parent.returncode == 1
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert "RUNNING" not in states("killed")

    done = finished("killed", store)
    assert now < done < 500
    monkeypatch.setattr(studies, "HEARTBEAT", 1)
    assert cli.run([*command, "--trials", str(done + 1)]) == 0
    assert finished("killed", store) == done + 1
    assert "RUNNING" not in states("killed")


def test_machines_join_one_study_on_postgresql(store, small, postgres, tmp_path):
    """Two machines, one server, one database; one machine dies, the other ends the study alone.

    It dies with its second trial begun and no sign of life of it given.
    """
    brief = (
        "from mnist_cnn import tune\nfrom mnist_cnn.learning import study\nstudy.HEARTBEAT = 2\n"
    )
    brief += "tune._train_the_best = lambda *_: print('The best is trained.')\n"
    program = ("-c", brief + DEADLY, "optuna.study._optimize:get_heartbeat_thread", "before")
    machines = [tmp_path / "a", tmp_path / "b"]
    with served(tmp_path / "server") as address:
        joined = []
        for folder in machines:
            folder.mkdir()
            command = ["tune", "--study", "joint", "--storage", postgres, "--trials", "4"]
            command += ["--dataset", str(small), *SMALL, "--epochs", "1"]
            environment = {"MLFLOW_TRACKING_URI": address, "PGPASSWORD": "between-us"}
            if joined:  # the second machine keeps it in a password file
                (folder / "pgpass").write_text("*:*:*:sweeper:between-us\n")
                (folder / "pgpass").chmod(0o600)
                environment["PGPASSFILE"] = str(folder / "pgpass")
                del environment["PGPASSWORD"]
            death = "never" if joined else "2"
            machine = start(folder, *command, program=(*program, death, "0"), **environment)
            joined.append(machine)
        _, err = joined[0].communicate(timeout=600)
        assert joined[0].returncode == -signal.SIGKILL, err
        out, err = joined[1].communicate(timeout=600)
        assert joined[1].returncode == 0, err
        assert "4 trials of fast" in out

        client = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        every = client.search_runs(["0"])
        trials = [run for run in every if run.data.tags["verb"] == "trial"]
        done = [run for run in trials if run.data.tags.get("state") in ("finished", "pruned")]
        assert len(done) == 4
        assert len({run.data.tags["mlflow.parentRunId"] for run in done}) == 2, "both had a part"
        assert "RUNNING" not in [run.info.status for run in trials]
        assert out.count("The best is trained.") == 1
        assert "between-us" not in out + err + json.dumps([run.to_dictionary() for run in every])


@pytest.mark.slow
def test_two_workers_of_one_thread_do_more_than_one_of_two(store, tmp_path):
    """Trials an hour on 2 cores: 1 worker of 1 thread, 1 of 2 threads, 2 of 1 thread each."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    seconds = {}
    same = {"learning_rate": 0.15, "batch_size": 64, "label_smoothing": 0.05}
    same |= {f"filters_{i}": 16 for i in (1, 2, 3)}
    for name, workers, mine in (("1x1", 1, cores[:1]), ("1x2", 1, cores), ("2x1", 2, cores)):
        study = f"speed-{name}"
        # The same trial again and again: batches of 32 or 128 would be compared otherwise.
        storage = f"sqlite:///{store}/tune.db"
        made = optuna.create_study(storage=storage, study_name=study, direction="maximize")
        for _ in range(14):
            made.enqueue_trial(same)
        command = ["tune", "--study", study, "--epochs", "1", "--trials", "12"]
        command += ["--workers", workers, "--sampler", "random", "--pruner", "none"]
        command += ["--filters_choices", "16"]
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, mine)
        process = start(store, *command)
        os.sched_setaffinity(0, everywhere)
        # Seldom: to look costs a core some 50 ms, and the cores are what is measured.
        wait_for(lambda study=study: finished(study, store) >= 12, process, every=3)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        # From the end of the second trial on: imports and the first tracing are not the pace.
        ends = sorted(trial.datetime_complete for trial in trials(study, store)[:12])
        seconds[name] = (ends[-1] - ends[1]).total_seconds() / 10
    print({name: f"{3600 / each:.0f} trials an hour" for name, each in seconds.items()})
    assert seconds["1x2"] / seconds["2x1"] > 1
    factor = seconds["1x1"] / seconds["2x1"]
    assert factor >= 1.8

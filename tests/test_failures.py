"""Stores and servers that cannot be used: each is told in one true sentence, at once."""

import json
import sqlite3
import tempfile
import threading
import urllib.request
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import numpy as np
import pytest

from mnist_cnn import cli
from mnist_cnn.browser import drawings
from mnist_cnn.learning.data import FILES, SOURCES, cache_folder, load_test
from mnist_cnn.parameters import UserError
from mnist_cnn.tracking import registry, runs
from tests.conftest import Server, small_disk, start, tracking_uri, wait_for

VERBS = {
    "train": ["train", "--epochs", "1"],
    "evaluate": ["evaluate"],
    "promote": ["promote", "--version", "1"],
    "convert": ["convert"],
    "tune": ["tune", "--trials", "1", "--workers", "1", "--storage", "sqlite:///never.db"],
    "benchmark": ["benchmark", "--recipes", "fast", "--seeds", "1"],
    "main": ["main", "--epochs", "1"],
}


def told(command, capsys):
    """The one sentence that a failing command says; another would say that it waits."""
    capsys.readouterr()
    assert cli.run(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_that_is_no_database_is_one_sentence(store, capsys, verb):
    (store / "text.db").write_text("this is no database " * 100)
    with tracking_uri(f"sqlite:///{store}/text.db"):
        line = told(VERBS[verb], capsys)
    assert line == (
        f"mnist_cnn {verb}: the tracking store sqlite:///{store}/text.db cannot be used: "
        "file is not a database."
    )
    assert (store / "text.db").read_text().startswith("this is no database"), "untouched"


def test_a_folder_as_database_is_one_sentence(store, capsys):
    (store / "folder.db").mkdir()
    with tracking_uri(f"sqlite:///{store}/folder.db"):
        assert "cannot be used: unable to open database file." in told(VERBS["train"], capsys)


def test_a_database_that_may_only_be_read_is_one_sentence(store, capsys):
    mlflow.MlflowClient().search_experiments()  # which makes the tables
    with tracking_uri(f"sqlite:///file:{store}/mlflow.db?mode=ro&uri=true"):
        assert told(VERBS["promote"], capsys).endswith("attempt to write a readonly database.")


def test_a_database_without_its_driver_is_one_sentence(store, capsys):
    with tracking_uri("mysql://me:secret@127.0.0.1/x"):
        line = told(VERBS["promote"], capsys)
    told_so = "mnist_cnn promote: the tracking store mysql://me:***@127.0.0.1/x cannot be used: "
    assert line == f"{told_so}No module named 'MySQLdb'."


def test_a_wrong_scheme_is_told_without_the_password(store, capsys):
    """MLflow itself repeats the address as it was typed."""
    with tracking_uri("postgres://me:secret@localhost/x"):
        line = told(VERBS["promote"], capsys)
    assert "unsupported URI 'postgres://me:***@localhost/x'" in line
    assert "secret" not in line


def test_a_postgresql_that_is_down_is_one_sentence_without_the_password(store, capsys):
    with tracking_uri("postgresql://me:secret@127.0.0.1:9/x"):
        line = told(VERBS["train"], capsys)
    assert line.startswith("mnist_cnn train: the tracking store postgresql://me:***@127.0.0.1:9/x")
    assert "refused" in line
    assert "secret" not in line


def test_a_registry_that_is_away_is_told_before_the_training(store, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://me:secret@127.0.0.1:9")
    both = f"sqlite:///{store}/mlflow.db or the registry http://me:***@127.0.0.1:9"
    told_so = f"mnist_cnn train: the tracking server {both} cannot be reached."
    assert told(VERBS["train"], capsys) == told_so


def test_a_server_that_is_waited_for_is_named_without_the_password(store, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    client = mlflow.MlflowClient("http://me:secret@127.0.0.1:9")
    with tracking_uri(client.tracking_uri), pytest.raises(mlflow.MlflowException):
        client.search_experiments()
    assert capsys.readouterr().err == (
        "The tracking server http://me:***@127.0.0.1:9 does not answer: waiting for it "
        "(MLFLOW_HTTP_REQUEST_MAX_RETRIES=2).\n"
    )


@pytest.mark.slow
def test_a_database_that_another_process_holds_is_one_sentence(store, capsys):
    """Slow: MLflow waits 20 seconds for SQLite, and has no setting for it."""
    with closing(sqlite3.connect(store / "held.db")) as other:
        other.execute("CREATE TABLE some (x)")
        other.execute("BEGIN EXCLUSIVE")
        with tracking_uri(f"sqlite:///{store}/held.db"):
            line = told(VERBS["train"], capsys)
    assert "cannot be used: " in line
    assert "database is locked." in line


def failing(write):
    """What a run says whose body is `write`."""
    with pytest.raises(UserError) as failed, runs.tracked("a verb"):
        write()
    (run,) = mlflow.search_runs(max_results=1, output_format="list", search_all_experiments=True)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", str(failed.value))
    return str(failed.value)


def test_a_full_disk_is_named(store, tmp_path, monkeypatch):
    """A write that fails does not say where; what MLflow copies, it says of the source too."""
    load_test("mnist")  # from its source, if it is not there
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        (tmp_path / "large").mkdir()
        (tmp_path / "large" / "file").write_bytes(bytes(10**6))
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_EXPERIMENT_ID", mlflow.create_experiment("full", str(disk)))
            for write in (
                lambda: mlflow.log_text("x" * 10**6, "text"),
                lambda: mlflow.log_artifacts(str(tmp_path / "large")),
            ):
                told = failing(write)
                assert told.startswith(f"{disk}/")
                assert told.endswith("/artifacts cannot be used: No space left on device.") or (
                    told.endswith("/artifacts/file cannot be used: No space left on device.")
                )
        with monkeypatch.context() as patch:  # of Node's files too
            patch.setattr(tempfile, "tempdir", str(disk))
            assert failing(drawings.read) == f"{disk} cannot be used: No space left on device."
        content = {name: (cache_folder() / "mnist" / name).read_bytes() for name in FILES["mnist"]}
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(disk))
            patch.setitem(SOURCES, "mnist", {"here": lambda: iter(content.items())})
            told = failing(lambda: load_test("mnist"))
            assert told == f"{disk}/mnist_cnn cannot be used: No space left on device."


ANSWERS = {
    401: "(Unauthorized): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    403: "(Forbidden): its administrator can allow it to the user named in MLFLOW_TRACKING_USER",
    404: "(Not Found): set MLFLOW_TRACKING_URI to the address of an MLflow server.",
    413: "(Request Entity Too Large).",
    429: "(Too Many Requests).",
    500: "(Internal Server Error): its own log may say why.",
    503: "(Service Unavailable): its own log may say why.",
}


@contextmanager
def answering(status):
    """Address of a web server that answers all with `status`, and the paths it is asked for."""
    asked = []

    class Refuse(BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>no</html>")

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("status", ANSWERS)
def test_a_server_that_refuses_is_told_as_it_answered(store, capsys, status):
    with answering(status) as (address, asked), tracking_uri(address):
        line = told(VERBS["train"], capsys)
    assert line.startswith(f"mnist_cnn train: the tracking server {address} answered {status} ")
    assert ANSWERS[status] in line
    assert len(asked) == 1, "asked once: a refusal is no lost server"


@pytest.mark.parametrize("status", [403, 413])
def test_a_server_that_takes_no_artefacts_is_told_too(store, status, monkeypatch):
    """As a gateway does that allows small requests only; MLflow raises another error then."""
    with answering(status) as (address, _):
        place = f"{address}/api/2.0/mlflow-artifacts/artifacts"
        experiment = mlflow.create_experiment(f"refused {status}", place)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        said = failing(lambda: mlflow.log_text("x", "text"))
    assert f"answered {status} {ANSWERS[status]}" in said


def test_a_user_without_a_home_folder_is_told_what_to_set(tmp_path):
    """As in `docker --user 12345`: HOME is not set, and no entry of passwd says where it is."""
    nobody = "import os, sys; del os.environ['HOME']; os.getuid = lambda: 12345;"
    program = ("-c", f"{nobody} from mnist_cnn import cli; sys.exit(cli.run(['train']))")
    process = start(tmp_path, program=program)
    _, err = process.communicate(timeout=300)
    told = "Could not determine home directory: set HOME to a folder."
    assert (process.returncode, err) == (1, f"mnist_cnn train: {told}\n")


def test_a_home_that_cannot_be_written_is_no_matter_to_matplotlib(tmp_path):
    nowhere = {"HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null", "MPLCONFIGDIR": ""}
    process = start(tmp_path, program=("-c", "import mnist_cnn.evaluation.plots"), **nowhere)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("verb", ["main", "tune", "benchmark"])
def test_a_data_set_without_test_images_is_refused_before_any_training(store, capsys, verb):
    data = {"x_train": np.zeros((24, 28, 28), np.uint8), "y_train": np.arange(24) % 10}
    np.savez(store / "half.npz", **data)
    np.savez(store / "empty.npz", **data, x_test=data["x_train"][:0], y_test=data["y_train"][:0])
    assert "x_test and y_test is missing" in told([*VERBS[verb], "--dataset", "half.npz"], capsys)
    assert "the t10k split is empty" in told([*VERBS[verb], "--dataset", "empty.npz"], capsys)
    assert not mlflow.search_runs(filter_string="tags.verb = 'train'", output_format="list")
    assert not (store / "never.db").exists()


@pytest.mark.slow
def test_the_champion_answers_through_mlflows_own_server_and_command(small, store, tmp_path):
    command = ["train", "--dataset", str(small), "--epochs", "2", "--batch_size", "32"]
    assert cli.run(command) == 0
    assert cli.run(["promote", "--version", "1"]) == 0
    uri = f"models:/{registry.NAME}@champion"
    images = np.load(small)["x_test"][:3, :, :, None] / 255
    expected = mlflow.pyfunc.load_model(uri).predict(images.astype(np.float32))
    request = json.dumps({"inputs": images.tolist()})
    (tmp_path / "in.json").write_text(request)

    where = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    models = ["-m", "mlflow", "models"]
    same = ["-m", uri, "--env-manager", "local"]
    files = ["-i", tmp_path / "in.json", "-o", tmp_path / "out.json"]
    process = start(store, *files, program=(*models, "predict", *same), **where)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found = json.loads((tmp_path / "out.json").read_text())["predictions"]
    np.testing.assert_allclose(found, expected, atol=1e-5)

    free = Server(tmp_path / "port")  # only for a free port
    serve = (*models, "serve", *same)
    with start(store, "-p", free.port, program=serve, **where) as free.process:
        try:
            wait_for(lambda: alive(free.address), free.process)
            header = {"Content-Type": "application/json"}
            asked = urllib.request.Request(f"{free.address}/invocations", request.encode(), header)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                found = json.loads(answer.read())["predictions"]
            np.testing.assert_allclose(found, expected, atol=1e-5)
        finally:
            free.kill()


def alive(address):
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_a_server_with_passwords_on_postgresql(small, tmp_path, postgres, monkeypatch):
    """MLflow's own basic authentication: the right password does all, a wrong one is told."""
    monkeypatch.setenv("PGPASSWORD", "between-us")
    server = Server(tmp_path / "server", postgres.replace("/study?", "/tracking2?"))
    server.options = ["--app-name", "basic-auth"]
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "for this test only")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "right between us")
    work = tmp_path / "work"
    work.mkdir()
    where = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_TRACKING_USERNAME": "admin"}
    right = {**where, "MLFLOW_TRACKING_PASSWORD": "right between us"}
    wrong = {**where, "MLFLOW_TRACKING_PASSWORD": "wrong"}
    data = ["--dataset", str(small), "--batch_size", "32"]
    tune = ["tune", *data[:2], "--trials", "2", "--workers", "1", "--epochs", "1"]
    tune += ["--storage", postgres, "--filters_choices", "2,4"]

    def ends(process):
        _, err = process.communicate(timeout=900)
        assert "Traceback" not in err, err
        return process.returncode, err

    server.start()
    try:
        for command in (["main", *data], ["evaluate"], ["promote", "--version", "1"]):
            code, err = ends(start(work, *command, **wrong))
            assert code == 1
            assert f"the tracking server {server.address} answered 401 (Unauthorized)" in err
            code, err = ends(start(work, *command, **right))
            assert code == 0, err
        both = [start(work, *tune, **right) for _ in range(2)]
        assert [ends(process)[0] for process in both] == [0, 0]
    finally:
        server.kill()

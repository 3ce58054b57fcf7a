"""Convert replaces its own files only, one by one; a reader always finds a whole model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.browser import output_folder
from mnist_cnn.parameters import UserError
from tests.conftest import ROOT


def staged(folder, content, *more):
    """A model as convert hands it over: two shards named by digest, and a page."""
    folder.mkdir()
    shards = {
        f"group1-shard{n}-{output_folder.digest(content + b'%d' % n)}.bin": content + b"%d" % n
        for n in (1, 2)
    }
    for name, data in shards.items():
        (folder / name).write_bytes(data)
    manifest = [{"paths": list(shards), "weights": []}]
    (folder / "model.json").write_text(
        json.dumps({"of": content.decode(), "weightsManifest": manifest})
    )
    for name in ("page.js", *more):
        (folder / name).write_bytes(content)
    return folder


def read(folder):
    """What a reader gets: the name of the model, all its weights being its own."""
    model = json.loads((folder / "model.json").read_text())
    for n, path in enumerate(model["weightsManifest"][0]["paths"], 1):
        assert (folder / path).read_text() == f"{model['of']}{n}"
    return model["of"]


def names(folder):
    return {path.name for path in folder.iterdir()}


def snapshot(folder):
    return {
        p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")
    }


@pytest.fixture
def models(tmp_path):
    return staged(tmp_path / "new_a", b"a", "index.html"), staged(tmp_path / "new_b", b"b")


def test_filled_and_filled_again(tmp_path, models):
    out = tmp_path / "deep" / "out"
    for model in (*models, models[0]):
        output_folder.check(str(out))
        output_folder.replace(str(out), model)
        assert read(out) == model.name[-1]
        assert names(out) - {output_folder.LOCK, output_folder.MANIFEST} == names(model)


FOREIGN = {
    "a picture": lambda out: (out / "cat.png").write_text("cat"),
    "a hidden folder": lambda out: (out / ".git").mkdir(),
    "a changed page": lambda out: (out / "page.js").write_text("mine"),
    "a link for a file": lambda out: (
        (out / "page.js").rename(out.parent / "page.js"),
        (out / "page.js").symlink_to(out.parent / "page.js"),
    ),
    "no manifest": lambda out: (out / output_folder.MANIFEST).unlink(),
    "another's manifest": lambda out: (out / output_folder.MANIFEST).write_text('{"files": {}}'),
    "a manifest without digests": lambda out: (out / output_folder.MANIFEST).write_text(
        json.dumps({"written_by": output_folder.WRITER, "files": dict.fromkeys(names(out))})
    ),
    "a link for the scratch folder": lambda out: (out / output_folder.PARTIAL).symlink_to(out),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_with_anything_else_is_refused_and_untouched(tmp_path, models, change):
    out = tmp_path / "out"
    output_folder.replace(str(out), models[0])
    change(out)
    before = snapshot(out)
    with pytest.raises(UserError, match="other files in it"):
        output_folder.check(str(out))
    with pytest.raises(UserError, match="other files in it"):
        output_folder.replace(str(out), models[1])
    assert snapshot(out) == before


def test_files_of_the_system_and_of_mlflow_are_left_alone(tmp_path, models):
    out = tmp_path / "out"
    (out / "lost+found").mkdir(parents=True)
    (out / "mlflow.db").write_text("runs")
    for model in models:
        output_folder.replace(str(out), model)
    assert read(out) == "b"
    assert (out / "mlflow.db").read_text() == "runs"


def test_the_folder_keeps_link_inode_and_mode(tmp_path, models, monkeypatch):
    www, site = tmp_path / "www", tmp_path / "site"
    site.symlink_to("www")
    output_folder.replace(str(site), models[0])  # a link whose folder is still to be made
    www.chmod(0o2775)
    before = www.stat()
    output_folder.replace(str(site), models[1])
    after = www.stat()
    assert site.is_symlink()
    assert (before.st_ino, before.st_mode, before.st_gid) == (
        after.st_ino,
        after.st_mode,
        after.st_gid,
    )
    monkeypatch.chdir(www)
    output_folder.replace(".", models[0])
    assert read(Path()) == "a", "the working folder is still the one with the files"


def test_a_mount_point_is_filled_and_stays_one(tmp_path, models):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        for model in models:
            output_folder.check(str(disk))
            output_folder.replace(str(disk), model)
            assert read(disk) == model.name[-1]
        assert disk.is_mount()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_is_no_folder_is_refused(tmp_path, models):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    for output in ("file", "file/out", "loop", "loop/out", "x" * 300):
        with pytest.raises(UserError, match="output="):
            output_folder.check(str(tmp_path / output))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_while_copying_changes_nothing(tmp_path, models, monkeypatch):
    out = tmp_path / "out"
    output_folder.replace(str(out), models[0])
    before = snapshot(out)
    copied = []

    def full(source, target):
        copied.append(source)
        if len(copied) == 3:
            raise OSError(28, "No space left on device")
        Path(target).write_bytes(source.read_bytes())

    monkeypatch.setattr(output_folder.shutil, "copyfile", full)
    for output in (out, tmp_path / "other"):
        copied.clear()
        with pytest.raises(UserError, match="No space left on device"):
            output_folder.replace(str(output), models[1])
    assert snapshot(out) == before
    assert names(tmp_path / "other") == {output_folder.LOCK}


# Kills a child at its nth file operation in `replace`, for n = 1, 2, ... until one ends by itself.
KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from mnist_cnn.browser import output_folder
work, first, second = map(Path, sys.argv[1:])
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile")

def hook(event, arguments):
    global left
    if event in EVENTS and left is not None:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

left = None
sys.addaudithook(hook)
for n in range(1, 1000):
    out = work / f"{n}"
    if first != second:
        output_folder.replace(str(out), first)
    child = os.fork()
    if child == 0:
        left = n
        output_folder.replace(str(out), second)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(n)
        break
"""


@pytest.mark.parametrize("existing", [True, False], ids=["filled", "new"])
def test_killed_at_every_file_operation(tmp_path, models, existing):
    (tmp_path / "killed").mkdir()
    first, second = models if existing else (models[1], models[1])
    command = [sys.executable, "-c", KILLED, tmp_path / "killed", first, second]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    count = int(done.stdout)
    assert count > 25
    for n in range(1, count + 1):
        out = tmp_path / "killed" / f"{n}"
        if existing:
            assert read(out) in ("a", "b")
        elif (out / "model.json").exists():
            assert read(out) == "b"
        output_folder.replace(str(out), models[0])
        assert read(out) == "a"
        assert names(out) - {output_folder.LOCK, output_folder.MANIFEST} == names(models[0])


def earlier(folder, by, *more):
    folder.mkdir()
    content = {"convertedBy": by, "weightsManifest": [{"paths": ["group1-shard1of1.bin"]}]}
    (folder / "model.json").write_text(json.dumps(content))
    for name in ("group1-shard1of1.bin", *more):
        (folder / name).write_text("old")
    return folder


def test_a_folder_of_a_version_before_the_manifest_is_known_by_its_names(tmp_path, models):
    converter, page = "TensorFlow.js Converter v4.22.0", output_folder.EARLIER_PAGE
    known = (
        earlier(tmp_path / "plain", "mnist_cnn"),
        earlier(tmp_path / "page", "mnist_cnn", *page),
        earlier(tmp_path / "graph", converter, *page),
    )
    for out in known:
        output_folder.replace(str(out), models[1])
        assert names(out) - {output_folder.LOCK, output_folder.MANIFEST} == names(models[1])
    others = (
        earlier(tmp_path / "converter", converter),
        earlier(tmp_path / "app", "mnist_cnn", "index.html"),
        earlier(tmp_path / "app2", "mnist_cnn", *page, "app.js"),
    )
    for out in others:
        before = snapshot(out)
        with pytest.raises(UserError, match="other files"):
            output_folder.check(str(out))
        assert snapshot(out) == before

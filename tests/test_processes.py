"""Worker processes share the cores, ignore Ctrl-C, and end with the process that started them."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from mnist_cnn.learning import processes
from mnist_cnn.learning.processes import run_workers
from mnist_cnn.tracking import runs
from tests.conftest import ROOT, wait_for
from tests.worker_targets import interrupt_parent, write_threads


def test_cores_are_counted_where_no_process_can_be_held_on_some(monkeypatch):
    assert runs.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr("os.sched_getaffinity")
    assert runs.cores() == os.cpu_count()


def test_each_worker_has_its_share_of_the_cores_and_its_exit_code_comes_back(tmp_path):
    assert run_workers(write_threads, (tmp_path,), count=3, cores=8) == [0, 3, 0]
    assert [(tmp_path / str(i)).read_text() for i in range(3)] == ["3", "3", "2"]
    assert "TF_NUM_INTRAOP_THREADS" not in os.environ


@pytest.mark.parametrize("inherited", [True, False], ids=["inherited", "as on Windows"])
def test_ctrl_c_is_heard_by_the_parent_alone_which_ends_the_workers(
    tmp_path, inherited, monkeypatch
):
    # Started in the background, Python ignores Ctrl-C itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not inherited:  # only the worker itself ignores the signal
        monkeypatch.setattr(processes.signal, "SIG_IGN", signal.SIG_DFL, raising=True)
    with pytest.raises(KeyboardInterrupt):
        run_workers(interrupt_parent, (tmp_path,), count=1, cores=2)
    assert not psutil.pid_exists(int((tmp_path / "worker").read_text()))


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    program = "import pathlib; from mnist_cnn.learning.processes import run_workers\n"
    program += "from tests.worker_targets import work_without_end\n"
    program += f"run_workers(work_without_end, (pathlib.Path({str(tmp_path)!r}),), 1, 1)"
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    number = tmp_path / "worker"
    wait_for(lambda: number.exists() and number.read_text(), parent)
    worker = psutil.Process(int(number.read_text()))
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([worker], timeout=60)[1]

"""Worker processes on one machine: they share its cores and end with the process that starts them.

One way for Linux, macOS and Windows: new interpreters (TensorFlow does not survive a fork), and
TensorFlow's own variables for its threads, since only Linux can bind a process to cores.
"""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Any

SECONDS_TO_END = 30  # that workers have after Ctrl-C before they are killed


def run_workers(
    target: Callable[..., Any], arguments: tuple[Any, ...], count: int, cores: int
) -> list[int | None]:
    """Run `target(*arguments, number, stop)` in `count` processes; returns their exit codes.

    `number` counts from 0. On Ctrl-C, which a terminal sends to every process, the workers go on
    until they see `stop` set; then KeyboardInterrupt is raised here. `target` must be importable.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    work = pickle.dumps((target, arguments))
    shares = [max(1, len(range(i, cores, count))) for i in range(count)]
    processes = [
        context.Process(target=_run, args=(work, i, stop, threads))
        for i, threads in enumerate(shares)
    ]
    # What they inherit, except on Windows: to ignore Ctrl-C from the first moment.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for process in processes:
            process.start()
        signal.signal(signal.SIGINT, handler)
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        stop.set()
        for process in processes:
            process.join(SECONDS_TO_END)
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
        for process in processes:
            if process.is_alive():  # not so if it was never started
                process.kill()
    return [process.exitcode for process in processes]


def _run(work: bytes, number: int, stop: Event, threads: int) -> None:
    """The life of a worker. Only its last step imports TensorFlow, which reads the variables."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
    target, arguments = pickle.loads(work)
    target(*arguments, number, stop)


def parent_is_gone() -> bool:
    """Whether this is a worker whose parent process has ended, killed perhaps."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()

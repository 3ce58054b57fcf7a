"""Worker processes on one machine: they share its cores and end with the process that starts them.

New interpreters, for TensorFlow survives no fork; its own variables set their numbers of threads.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable


def run_workers(target: Callable, arguments: tuple, count: int, cores: int) -> list[int | None]:
    """Run `target(*arguments, number)` in `count` processes; returns their exit codes.

    `number` counts from 0. `target` must be importable. Whatever ends this call kills them:
    Ctrl-C, which a terminal sends to every process, is heard here only.
    """
    context = multiprocessing.get_context("spawn")
    work = pickle.dumps((target, arguments))
    processes = [
        context.Process(target=_run, args=(work, i, max(1, len(range(i, cores, count)))))
        for i in range(count)
    ]
    # What they inherit, except on Windows: to ignore Ctrl-C from the first moment.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for process in processes:
            process.start()
        signal.signal(signal.SIGINT, handler)
        for process in processes:
            process.join()
    finally:
        signal.signal(signal.SIGINT, handler)
        for process in processes:
            if process.is_alive():  # not so if it was never started
                process.kill()
                process.join()
    return [process.exitcode for process in processes]


def _run(work: bytes, number: int, threads: int) -> None:
    """The life of a worker. Only its last step imports TensorFlow, which reads the variables."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
    target, arguments = pickle.loads(work)
    target(*arguments, number)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)

"""Who evaluates candidates: this process, several of this machine, or a Ray cluster.

Work goes out as genomes and comes back as figures, in the order in which it was given, so that a
search does not depend on the number of workers. Only the process that drives it writes anything.
A worker that dies takes none with it but the item that kills every process it is given to. Whoever
stops asking for results finds the workers idle.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch

from lilliput.context import Context
from lilliput.distill.speed import torch_threads
from lilliput.errors import LilliputError, Missing
from lilliput.models.factory import modules_of_files

A = TypeVar("A")
B = TypeVar("B")

RAY = "ray"

PATIENCE = 60.0
"""Seconds for Ray to stop what is no longer waited for: one operation, unless a machine is gone."""


def trainers(context: Context) -> str:
    """Who trains briefly: the workers, or "1" where those cannot do what this process can.

    A forked process hangs as soon as it computes with several threads after its parent did, and
    cannot use a GPU; Ray gives none to who reserves none.
    """
    threaded = context.train_threads > 1 and not context.workers.startswith(RAY)
    return "1" if threaded or context.device != "cpu" else context.workers


def mapped(
    work: Callable[[A], B], items: Sequence[A], workers: str, lost: Callable[[A], B]
) -> Iterator[B]:
    """`work` of every item, in their order.

    Args:
        work: Must not write anything, and must not raise: what it gives is all that comes back.
        items: Plain values.
        workers: A number of processes, 1 for this one; "ray" or "ray://host:port".
        lost: What stands for an item whose process died, and died again when it was repeated.

    Raises:
        Missing: Ray is asked for and not installed.
        LilliputError: `workers` is neither, or no Ray answers.
    """
    if workers.startswith(RAY):
        return _on_ray(work, items, workers, lost) if items else iter(())
    if not workers.isdecimal() or int(workers) < 1:
        raise LilliputError(
            f"no workers {workers!r}", hint="give a number of processes, `ray`, or ray://host:port"
        )
    if int(workers) == 1 or not items or "fork" not in multiprocessing.get_all_start_methods():
        return map(work, items)
    return _in_processes(work, items, min(int(workers), len(items)), lost)


_work: Callable[[Any], Any] | None = None
"""What the processes of this machine do; they inherit it, for networks cannot all be pickled."""


def _begin(driver: int) -> None:
    threading.Thread(target=_end_after, args=[driver], daemon=True).start()
    # Ctrl-C reaches all of a terminal's processes; the one that drives these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _end_after(driver: int) -> None:
    # A run that was killed may be resumed at once, and measure latency.
    while os.getppid() == driver:
        time.sleep(0.2)
    os._exit(1)


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool; its processes end at once, whatever they are at, when nobody waits any longer."""
    others = set(multiprocessing.active_children())
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, fork, _begin, (os.getpid(),)) as pool:
        try:
            yield pool
        except BaseException:
            # In this order: the pool's own thread trips over what is cancelled and dead at once.
            pool.shutdown(wait=False, cancel_futures=True)
            ours = set(multiprocessing.active_children()) - others
            for process in ours:
                process.kill()
            # The pool's thread waits for them too: who of the two comes second is told nothing
            # until the first has written down what it saw.
            while any(process.is_alive() for process in ours):
                time.sleep(0.001)
            raise


def _in_processes(
    work: Callable[[A], B], items: Sequence[A], count: int, lost: Callable[[A], B]
) -> Iterator[B]:
    global _work  # inherited by the processes, which begin below
    _work = work
    left = deque(items)
    try:
        with suppress(BrokenProcessPool), _processes(count) as pool:
            for result in pool.map(_do, items):
                left.popleft()
                yield result
        # One at a time: then the guilty one is known, and has the memory for itself.
        for item in left:
            yield _alone(item, lost)
    finally:
        _work = None


def _alone(item: A, lost: Callable[[A], B]) -> B:
    # Its process may have died in the pool for another's sake: that counts for nothing.
    for _ in range(2):
        with suppress(BrokenProcessPool), _processes(1) as pool:
            result: B = pool.submit(_do, item).result()
            return result
    return lost(item)


@contextmanager
def ray_ended() -> Iterator[None]:
    """A Ray that begins inside ends with it: what follows is timed on an idle machine."""
    before = _ray_runs()
    try:
        yield
    finally:
        if _ray_runs() and not before:
            sys.modules[RAY].shutdown()


def _ray_runs() -> bool:
    ray = sys.modules.get(RAY)
    return ray is not None and bool(ray.is_initialized())


def _connected(address: str) -> Any:
    """Ray, which tells its makers nothing and the user no more than errors.

    Raises:
        Missing: It is not installed.
        LilliputError: No cluster answers at the address, or it wants a token.
    """
    # Read when it is imported, and by the processes that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise Missing(
            "Ray is not installed",
            hint='pip install "lilliput[ray]"; or give a number of processes',
        ) from error
    if not ray.is_initialized():
        where = None if address == RAY else address
        try:
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise LilliputError(
                f"no answer from {address}: {error}",
                hint="see that it runs; where it asks for a token, set RAY_AUTH_MODE=token",
            ) from error
        # It prints deaths of workers to stdout, where a run's JSON goes, and has no switch for it.
        with suppress(AttributeError):
            ray._private.worker.print_to_stdstream = lambda *_args, **_facts: None
    return ray


def _on_ray(
    work: Callable[[A], B], items: Sequence[A], address: str, lost: Callable[[A], B]
) -> Iterator[B]:
    ray = _connected(address)
    for code in modules_of_files():
        ray.cloudpickle.register_pickle_by_value(code)
    # Stored once, and fetched once by each node: it holds the network and the examples.
    shared = ray.put(work)

    died = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    )

    # By itself, Ray repeats what dies for want of memory without end.
    @ray.remote(num_cpus=1, max_retries=0)  # type: ignore[untyped-decorator,unused-ignore]
    def task(given: Callable[[A], B], item: A) -> B:
        with torch_threads(1):
            return given(item)

    def repeated(item: A) -> B:
        try:
            result: B = ray.get(task.remote(shared, item))
        except died:
            return lost(item)
        return result

    waiting = deque((item, task.remote(shared, item)) for item in items)
    try:
        while waiting:
            item, pending = waiting[0]
            try:
                result = ray.get(pending)
            except died:
                result = repeated(item)
            waiting.popleft()
            yield result
    finally:
        left = [pending for _, pending in waiting]
        for pending in left:
            ray.cancel(pending)
        if left:
            ray.wait(left, num_returns=len(left), timeout=PATIENCE)

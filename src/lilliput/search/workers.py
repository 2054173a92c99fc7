"""Who evaluates candidates: this process, several of this machine, or a Ray cluster.

Work goes out as genomes and comes back as figures, in the order in which it was given, so that a
search does not depend on the number of workers. Only the process that drives it writes anything.
A worker that dies takes none with it but the item that kills every process it is given to.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, TypeVar

import torch

from lilliput.errors import LilliputError, Missing
from lilliput.models.factory import modules_of_files

A = TypeVar("A")
B = TypeVar("B")

RAY = "ray"


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
        LilliputError: `workers` is neither.
    """
    if workers.startswith(RAY):
        return _on_ray(work, items, workers, lost)
    if not workers.isdecimal() or int(workers) < 1:
        raise LilliputError(
            f"no workers {workers!r}", hint="give a number of processes, `ray`, or ray://host:port"
        )
    if int(workers) == 1 or not items or "fork" not in multiprocessing.get_all_start_methods():
        return map(work, items)
    return _in_processes(work, items, min(int(workers), len(items)), lost)


_work: Callable[[Any], Any] | None = None
"""What the processes of this machine do; they inherit it, for networks cannot all be pickled."""


def _begin() -> None:
    torch.set_num_threads(1)


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def _processes(count: int) -> ProcessPoolExecutor:
    fork = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(count, mp_context=fork, initializer=_begin)


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


def _on_ray(
    work: Callable[[A], B], items: Sequence[A], address: str, lost: Callable[[A], B]
) -> Iterator[B]:
    try:
        import ray
    except ImportError as error:
        raise Missing(
            "Ray is not installed",
            hint='pip install "lilliput[ray]"; or give a number of processes',
        ) from error
    if not ray.is_initialized():
        ray.init(address=None if address == RAY else address, log_to_driver=False)
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
            item, pending = waiting.popleft()
            try:
                result = ray.get(pending)
            except died:
                result = repeated(item)
            yield result
    finally:
        for _, pending in waiting:
            ray.cancel(pending)

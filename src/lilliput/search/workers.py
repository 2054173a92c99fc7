"""Who evaluates candidates: this process, several of this machine, or a Ray cluster.

Work goes out as genomes and comes back as figures, in the order in which it was given, so that a
search does not depend on the number of workers. Only the process that drives it writes anything.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from lilliput.errors import LilliputError, Missing

A = TypeVar("A")
B = TypeVar("B")

RAY = "ray"


def mapped(work: Callable[[A], B], items: Sequence[A], workers: str) -> Iterator[B]:
    """`work` of every item, in their order.

    Args:
        work: Must not write anything, and must not raise: what it gives is all that comes back.
        items: Plain values.
        workers: A number of processes; "ray" or "ray://host:port".

    Raises:
        Missing: Ray is asked for and not installed.
        LilliputError: A worker died, or `workers` is neither.
    """
    if workers.startswith(RAY):
        return _on_ray(work, items, workers)
    if not workers.isdecimal() or int(workers) < 1:
        raise LilliputError(
            f"no workers {workers!r}", hint="give a number of processes, `ray`, or ray://host:port"
        )
    count = min(int(workers), len(items))
    if count <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        return map(work, items)
    return _in_processes(work, items, count)


_work: Callable[[Any], Any] | None = None
"""What the processes of this machine do; they inherit it, for networks cannot all be pickled."""


def _begin() -> None:
    torch.set_num_threads(1)


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def _in_processes(work: Callable[[A], B], items: Sequence[A], count: int) -> Iterator[B]:
    global _work  # inherited by the processes, which begin below
    _work = work
    fork = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(count, mp_context=fork, initializer=_begin) as pool:
            yield from pool.map(_do, items)
    except BrokenProcessPool as error:
        raise LilliputError(
            "a worker process died, perhaps for want of memory", hint="use fewer `--workers`"
        ) from error
    finally:
        _work = None


def _on_ray(work: Callable[[A], B], items: Sequence[A], address: str) -> Iterator[B]:
    try:
        import ray
    except ImportError as error:
        raise Missing(
            "Ray is not installed",
            hint='pip install "lilliput[ray]"; or give a number of processes',
        ) from error
    if not ray.is_initialized():
        ray.init(address=None if address == RAY else address, log_to_driver=False)
    # Stored once, and fetched once by each node: it holds the network and the examples.
    shared = ray.put(work)

    @ray.remote(num_cpus=1)  # type: ignore[untyped-decorator,unused-ignore]
    def task(given: Callable[[A], B], item: A) -> B:
        return given(item)

    for pending in [task.remote(shared, item) for item in items]:
        yield ray.get(pending)

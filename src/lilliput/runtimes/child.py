"""The child process that hosts a foreign runtime: `python -m lilliput.runtimes.child MODULE`.

It obeys frames on its standard input and answers on its standard output, and ends when its
parent does (end of input). Bursts are timed in here, so that no pipe is in any figure. MODULE
offers `open_here(path, target) -> Session` and, if it can, `profile_here(path, target, feeds)`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.runtimes.base import Session
from lilliput.runtimes.frames import receive, send
from lilliput.target import Target

Answer = tuple[dict[str, Any], list[Array]]


class Worker:
    """Obeys one request at a time for the sessions that it holds."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._sessions: dict[int, Session] = {}

    def obey(self, message: dict[str, Any], arrays: list[Array]) -> Answer:
        """Do what the message asks; a mistake becomes an answer, a crash ends the process."""
        duties: dict[str, Callable[[dict[str, Any], list[Array]], Answer]] = {
            "load": self._load,
            "run": self._run,
            "bind": self._bind,
            "burst": self._burst,
            "close": self._close,
            "profile": self._profile,
            "peak": self._peak,
        }
        try:
            return duties[message["do"]](message, arrays)
        except LilliputError as error:
            return {"mistake": {"thing": error.thing, "at": error.at, "hint": error.hint}}, []
        except Exception as error:  # noqa: BLE001  # a library's own error, told to the parent
            first = (str(error).strip().splitlines() or [""])[0]
            return {"mistake": {"thing": f"{type(error).__name__}: {first}"}}, []

    def _load(self, message: dict[str, Any], _: list[Array]) -> Answer:
        path, target = Path(message["path"]), Target.model_validate(message["target"])
        session: Session = self._module.open_here(path, target)
        self._sessions[message["session"]] = session
        return {
            "inputs": [spec.model_dump(mode="json") for spec in session.inputs],
            "outputs": list(session.outputs),
            "load_seconds": session.load_seconds,
            "conditions": {**session.conditions, "process": f"child {os.getpid()}"},
        }, []

    def _run(self, message: dict[str, Any], arrays: list[Array]) -> Answer:
        return {}, self._sessions[message["session"]].run(arrays)

    def _bind(self, message: dict[str, Any], arrays: list[Array]) -> Answer:
        self._sessions[message["session"]].bind(arrays)
        return {}, []

    def _burst(self, message: dict[str, Any], _: list[Array]) -> Answer:
        return {}, [self._sessions[message["session"]].burst(message["count"])]

    def _close(self, message: dict[str, Any], _: list[Array]) -> Answer:
        self._sessions.pop(message["session"]).close()
        return {}, []

    def _profile(self, message: dict[str, Any], arrays: list[Array]) -> Answer:
        path, target = Path(message["path"]), Target.model_validate(message["target"])
        measure = getattr(self._module, "profile_here", None)
        nodes = [] if measure is None else measure(path, target, arrays)
        return {"nodes": [node.model_dump(mode="json") for node in nodes]}, []

    def _peak(self, _message: dict[str, Any], _: list[Array]) -> Answer:
        return {"peak_bytes": peak_memory_bytes()}, []


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far (resident set).

    On Linux from /proc: `getrusage` would inherit the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024
    import psutil

    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def serve(requests: BinaryIO, answers: BinaryIO, worker: Worker) -> None:
    """Obey until the requests end."""
    while True:
        try:
            message, arrays = receive(requests)
        except EOFError:
            return
        send(answers, *worker.obey(message, arrays))


def main(module: str) -> None:
    """Serve on the standard streams; what libraries print goes to standard error instead.

    Ctrl-C reaches every process of a terminal; whether this one is done with is its parent's word.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers, Worker(importlib.import_module(module)))


if __name__ == "__main__":
    main(sys.argv[1])

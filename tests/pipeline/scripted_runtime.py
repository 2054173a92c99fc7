"""ONNX Runtime in a child process that dies over files of certain names, as by the OOM killer."""

import os
import signal
from pathlib import Path

from lilliput.runtimes import ort
from lilliput.runtimes.base import Session
from lilliput.target import Target


class Dying(ort.OrtSession):
    """Ends its process when it is asked for what the environment names."""

    def run(self, feeds):
        die_if_told("run", self.name)
        return super().run(feeds)

    def burst(self, count):
        die_if_told("burst", self.name)
        return super().burst(count)


def open_here(path: Path, target: Target) -> Session:
    session = Dying(path, target)
    session.name = path.name
    return session


def die_if_told(doing: str, name: str) -> None:
    if os.environ.get("DIES_OVER") == f"{doing} {name}":
        os.kill(os.getpid(), signal.SIGKILL)

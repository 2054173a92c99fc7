"""A foreign runtime as bad as they get: what it does depends on the file's name."""

import os
import signal
import sys
import time

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError
from lilliput.runtimes.null import NullSession


class Misbehaving(NullSession):
    def run(self, feeds):
        print("I print on stdout")
        doing = self.outputs[0]
        if doing == "crash":
            print("about to die of std::length_error", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if doing == "leave":
            os._exit(3)
        if doing == "sleep":
            time.sleep(30)
        if doing == "fail":
            raise RuntimeError("no kernel for Frobnicate\nmore of it")
        if doing == "explain":
            raise LilliputError("the input is upside down", at="layer 3", hint="turn it")
        return super().run(feeds)


def open_here(path, target):
    if path.stem == "unloadable":
        raise ValueError("not a model")
    if path.stem == "slow":
        time.sleep(1)
    inputs = (TensorSpec(name="x", shape=(None, 1)),)
    session = Misbehaving(inputs=inputs, outputs=(path.stem,))
    session.conditions = {"pid": os.getpid(), "threads": target.threads}
    return session

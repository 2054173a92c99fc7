"""The parent's side of a runtime that lives in a child process.

Foreign runtimes crash (an unsupported layer ends the interpreter), set process-wide threads and
keep global state. In a child, a crash is an error that names the file, and nothing else is lost.
Sessions of one runtime share a child: times taken in different processes differ by several
percent from memory layout alone, times taken in one process by about one.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.runtimes.base import NodeTime, Session
from lilliput.runtimes.frames import receive, send
from lilliput.runtimes.opening import check_feeds, installed_version
from lilliput.target import Target

TIMEOUT_SECONDS = 600.0


class Host:
    """One child process. `ask` sends a request and waits for its answer, its death or the time."""

    def __init__(
        self,
        runtime: str,
        module: str,
        *,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.runtime, self.timeout_seconds = runtime, timeout_seconds
        self.sessions = 0
        self._count = 0
        self._lock = threading.Lock()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", "lilliput.runtimes.child", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **(environment or {}), "PYTHONPATH": _search_path()},
        )
        self._answers: queue.SimpleQueue[tuple[dict[str, Any], list[Array]] | None]
        self._answers = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def next_session(self) -> int:
        self._count += 1
        return self._count

    def ask(
        self, message: dict[str, Any], arrays: Sequence[Array] = (), *, file: str
    ) -> tuple[dict[str, Any], list[Array]]:
        """One request about `file`; raises `LilliputError` when the child fails at it."""
        with self._lock:
            try:
                send(cast("BinaryIO", self._process.stdin), message, arrays)
                answer = self._answers.get(timeout=self.timeout_seconds)
            except (OSError, ValueError):  # its pipe is broken, or was closed after a crash
                answer = None
            except queue.Empty:
                self.kill()
                raise LilliputError(
                    f"{self.runtime} did not answer within {self.timeout_seconds:g} s "
                    f"(asked to {message['do']} {file!r}); it was ended",
                    at=file,
                    hint="try a smaller input or batch, or another runtime",
                ) from None
            except BaseException:
                # The answer would still come, and be taken for that to the next request.
                self.kill()
                raise
        if answer is None:
            raise self._crash(message["do"], file)
        if "mistake" in answer[0]:
            mistake = answer[0]["mistake"]
            raise LilliputError(
                f"{self.runtime} cannot {message['do']} {file!r}: {mistake['thing']}",
                at=mistake.get("at"),
                hint=mistake.get("hint"),
            )
        return answer

    def kill(self) -> None:
        """End the child now."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let the child end by itself; end it if it does not within 2 seconds."""
        try:
            cast("IO[bytes]", self._process.stdin).close()
            self._process.wait(timeout=2.0)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        self._stderr.close()

    def _listen(self) -> None:
        stream = cast("BinaryIO", self._process.stdout)
        try:
            while True:
                self._answers.put(receive(stream))
        except (EOFError, OSError, ValueError):
            self._answers.put(None)

    def _crash(self, doing: str, file: str) -> LilliputError:
        self.kill_if_hanging()
        code = self._process.returncode
        how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        last = self._last_words()
        hint = (
            "the system ends a process like this when memory runs out: free some, or try a "
            "smaller batch"
            if how == "by SIGKILL"
            else "the file may hold an operator that this runtime cannot take; "
            "`lilliput explain` lists its operators, another runtime may run it"
        )
        return LilliputError(
            f"{self.runtime} crashed ({how}) when asked to {doing} {file!r}"
            + (f"; its last words: {last}" if last else ""),
            at=file,
            hint=hint,
        )

    def kill_if_hanging(self) -> None:
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def _last_words(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""


class HostedSession:
    """A file loaded in a child process."""

    def __init__(self, host: Host, path: Path, target: Target, runtime: Hosted) -> None:
        self._host, self._file, self._runtime = host, path.name, runtime
        self._id = host.next_session()
        host.sessions += 1
        self._open = True
        try:
            facts, _ = self._ask(
                "load", path=str(path.resolve()), target=target.model_dump(mode="json")
            )
        except BaseException:
            self._release()
            raise
        self.inputs = tuple(TensorSpec.model_validate(spec) for spec in facts["inputs"])
        self.outputs: tuple[str, ...] = tuple(facts["outputs"])
        self.load_seconds: float = facts["load_seconds"]
        self.conditions: dict[str, Any] = facts["conditions"]

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Inputs in the order of `inputs` → outputs in the order of `outputs`."""
        check_feeds(feeds, self.inputs)
        return self._ask("run", feeds)[1]

    def bind(self, feeds: Sequence[Array]) -> None:
        """Set the inputs that `burst` runs on; they stay in the child."""
        check_feeds(feeds, self.inputs)
        self._ask("bind", feeds)

    def burst(self, count: int) -> NDArray[np.int64]:
        """Run `count` times on the bound inputs, timed in the child; (count,) nanoseconds."""
        return self._ask("burst", count=count)[1][0].astype(np.int64)

    def close(self) -> None:
        """Free the file; the last session of a child ends it."""
        if self._open and self._host.alive:
            self._ask("close")
        self._release()

    def _ask(
        self, do: str, arrays: Sequence[Array] = (), **facts: Any
    ) -> tuple[dict[str, Any], list[Array]]:
        message = {"do": do, "session": self._id, **facts}
        return self._host.ask(message, arrays, file=self._file)

    def _release(self) -> None:
        if self._open:
            self._open = False
            self._host.sessions -= 1
            self._runtime.released(self._host)


class Hosted:
    """A runtime whose library is only ever imported in a child process.

    Args:
        name: The runtime's name.
        module: Where the child finds `open_here` and `profile_here`.
        formats: File suffixes it opens.
        precisions: What a target may ask for.
        package: The distribution whose presence makes it available.
        install: The exact command that installs it.
        environment: Variables that the child must start with.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        formats: tuple[str, ...],
        precisions: tuple[str, ...] = ("f32",),
        package: str,
        install: str,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.name, self.formats, self.precisions = name, formats, precisions
        self._module, self._package, self._install = module, package, install
        self._environment = dict(environment or {})
        self._timeout_seconds = timeout_seconds
        self._hosts: dict[int, Host] = {}

    def unavailable(self) -> str | None:
        """None when it can be used here, else the command that installs it."""
        return None if installed_version(self._package) else self._install

    def load(self, path: Path, target: Target) -> Session:
        """Load the file in this runtime's child process, started if there is none."""
        return HostedSession(self._host(target.threads), path, target, self)

    def profile(self, path: Path, target: Target, feeds: Sequence[Array]) -> list[NodeTime]:
        """Time per operator as the library reports it, slowest first; empty if it cannot."""
        host = self.start(target.threads)
        try:
            message = {
                "do": "profile",
                "path": str(path.resolve()),
                "target": target.model_dump(mode="json"),
            }
            facts, _ = host.ask(message, feeds, file=path.name)
        finally:
            host.close()
        return [NodeTime.model_validate(node) for node in facts["nodes"]]

    @contextmanager
    def held(self, threads: int) -> Iterator[None]:
        """Keep the child process, though all its files be closed, for others to be opened in it."""
        host = self._host(threads)
        host.sessions += 1
        try:
            yield
        finally:
            host.sessions -= 1
            self.released(host)

    def start(self, threads: int) -> Host:
        """A child of its own, which the caller closes."""
        environment = {**self._environment, "OMP_NUM_THREADS": str(threads)}
        return Host(
            self.name,
            self._module,
            environment=environment,
            timeout_seconds=self._timeout_seconds,
        )

    def released(self, host: Host) -> None:
        """A session of `host` was closed."""
        if host.sessions <= 0 or not host.alive:
            self._hosts = {threads: h for threads, h in self._hosts.items() if h is not host}
            host.close()

    def _host(self, threads: int) -> Host:
        host = self._hosts.get(threads)
        if host is None or not host.alive:
            host = self._hosts[threads] = self.start(threads)
        return host


def _search_path() -> str:
    """Where the child finds what we find, whatever put it on our path."""
    return os.pathsep.join(entry for entry in sys.path if entry)

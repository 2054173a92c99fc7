"""A disk that takes nothing more: a clean stop that names the place, and a run that goes on."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lilliput.artifact import Artifact
from lilliput.atomic import write_atomically
from lilliput.attempts import attempt
from lilliput.errors import CannotWrite, LilliputError
from lilliput.runs import folder, lock
from lilliput.runs.folder import RunFolder, is_run
from lilliput.runs.journal import JournalFile, read_entries
from lilliput.runs.record import sha256_of


@pytest.fixture(autouse=True)
def machine_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the machine what it is takes longer than all that is tested here."""
    monkeypatch.setattr(folder, "environment", lambda: {"cpu": "one"})


class Text:
    """Stands for a recipe."""

    def placed(self, home: Path) -> Text:
        return self

    def dump(self) -> str:
        return "model: x\n"


def small_run(path: Path) -> None:
    """All that a run writes, in small: networks, journal, the best file, a report."""
    with RunFolder.open(path) if is_run(path) else RunFolder.create(path, Text()) as run:
        for n in range(3):

            def work(n: int = n) -> dict[str, str]:
                file = run.networks / f"{n}.bin"
                write_atomically(file, bytes([n]) * 5000)
                return {"sha256": sha256_of(file)}

            run.journal.once(f"train {n}", work)
            run.journal.note("stage", number=n)
        run.deliver(Artifact.of(run.networks / "2.bin"))
        run.write("report.md", "front\n" * 100)
        run.journal.note("finished", best="2")


def outcome(path: Path) -> dict[str, bytes]:
    """What is in the folder, apart from the clock's words; nothing half written is left."""
    assert not list(path.rglob("*.tmp"))
    files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    for varies in ("journal.jsonl", "environment.json", lock.HOLDER):
        files.pop(varies)
    done = {
        e.facts["key"]: e.facts["result"]
        for e in read_entries(path / "journal.jsonl")
        if e.event == "once"
    }
    return {name: file.read_bytes() for name, file in files.items()} | {
        key: str(result).encode() for key, result in done.items()
    }


@contextmanager
def full_from(
    call: int, place: Path, monkeypatch: pytest.MonkeyPatch, *, code: int = errno.ENOSPC
) -> Iterator[list[str]]:
    """A disk that is full at the `call`-th write or flush into the folder, and from then on.

    The first write that does not fit is cut short, as the system does it. Yields what was asked.
    """
    asked: list[str] = []
    write, fsync = os.write, os.fsync

    def beyond(handle: int, what: str) -> bool:
        if not Path(f"/proc/self/fd/{handle}").readlink().is_relative_to(place):
            return False
        asked.append(what)
        return len(asked) >= call

    def full_write(handle: int, content: bytes) -> int:
        if beyond(handle, "write"):
            if len(asked) == call and len(content) > 1:
                return write(handle, content[: len(content) // 2])
            raise OSError(code, os.strerror(code))
        return write(handle, content)

    def full_fsync(handle: int) -> None:
        if beyond(handle, "fsync"):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full_write)
        patched.setattr(os, "fsync", full_fsync)
        yield asked


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


@needs_proc
def test_full_at_any_write_stops_cleanly_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # users-ask 30: the disk is full at the 1st, 2nd, ... write or flush, until none is left
    monkeypatch.setattr(os, "fsync", lambda _: None)
    small_run(tmp_path / "whole")
    whole = outcome(tmp_path / "whole")
    stops = 0
    for call in itertools.count(1):
        run = tmp_path / f"full-{call}"
        error = None
        with full_from(call, run, monkeypatch) as asked:
            try:
                small_run(run)
            except CannotWrite as raised:
                error = raised
        if error is not None:
            stops += 1
            assert str(run) in str(error.at)
            assert str(error).splitlines() == [
                f"{error.at}: cannot write: No space left on device",
                "  → make room on this disk; a run goes on with `lilliput resume`",
            ]
        if len(asked) < call:
            break
        small_run(run)
        assert outcome(run) == whole, f"full at call {call}: {asked[-1]}"
    # Folders are flushed as a courtesy: that alone may fail without a word.
    assert stops > 30


@needs_proc
def test_a_lock_whose_holder_cannot_be_told_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    RunFolder.create(tmp_path / "run", Text()).close()
    with (
        full_from(1, tmp_path / "run", monkeypatch),
        pytest.raises(CannotWrite, match=r"\.lock\.json: cannot write"),
    ):
        RunFolder.open(tmp_path / "run")
    assert lock.holder(tmp_path / "run") is None
    RunFolder.open(tmp_path / "run").close()


@needs_proc
def test_a_broken_disk_has_another_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with (
        full_from(2, tmp_path, monkeypatch, code=errno.EIO),
        pytest.raises(CannotWrite, match=r"Input/output error\n.*see that the disk is there"),
    ):
        write_atomically(tmp_path / "a.bin", b"x" * 100)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_failure_of_a_candidate(tmp_path: Path):
    # Wherever it lies in the chain of causes, and whatever a library made of it.
    from lilliput.testing import tiny_context

    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(tmp_path, journal=journal)

        def full() -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")

        def torch_like() -> dict[str, object]:
            try:
                full()
            except OSError:
                raise RuntimeError("PytorchStreamWriter failed") from None
            return {}

        with pytest.raises(CannotWrite, match=r"/tmp/x: cannot write: No space left"):
            attempt("k", torch_like, context, stage="distill", candidate="a")
        assert journal.recall("k") is None


INSIDE = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_full_disk import outcome, small_run
from lilliput.errors import CannotWrite

disk = Path(sys.argv[2])
def mount(options): subprocess.run(["mount", *options, str(disk)], check=True)
def refused():
    try: small_run(disk / "run")
    except CannotWrite as error: print(str(error).splitlines()[0]); print(error.hint)
mount(["-t", "tmpfs", "-o", "size=24k", "tmpfs"])
refused()
mount(["-o", "remount,size=4m"])
small_run(disk / "run")
small_run(Path(sys.argv[3]))
print(outcome(disk / "run") == outcome(Path(sys.argv[3])))
mount(["-o", "remount,ro"])
refused()
"""


def test_a_real_small_disk_and_a_real_read_only_one(tmp_path: Path):
    # A mount of our own in a name space of our own, which most systems grant to anybody.
    if shutil.which("unshare") is None:
        pytest.skip("needs `unshare`")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run(
        [*command, "mount", "-t", "tmpfs", "x", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [*command, sys.executable, "-c", INSIDE, here, str(disk), str(tmp_path / "whole")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    full, room, same, read_only, rights = done.stdout.splitlines()
    assert full.startswith(f"{disk}/run/")
    assert full.endswith(": cannot write: No space left on device")
    assert room.startswith("make room on this disk;")
    assert same == "True"
    assert read_only.endswith(": cannot write: Read-only file system")
    assert rights.startswith("allow writing here, or give another folder;")


@pytest.mark.skipif(os.geteuid() == 0, reason="a folder's mode does not bind root")
def test_a_folder_without_write_permission(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(CannotWrite, match=r"Permission denied\n.*allow writing here"):
        RunFolder.create(tmp_path / "run", Text())
    tmp_path.chmod(0o700)


def test_what_killed_writers_left_is_cleared_away(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".environment.json.12-ab.tmp").write_text("{")
    RunFolder.create(run, Text()).close()
    for place in (run, run / "files", run / "networks"):
        (place / ".x.onnx.12-ab.tmp").write_bytes(b"half")
    RunFolder.open(run).close()
    assert not list(run.rglob("*.tmp"))


def interrupted_at(call: int, name: str) -> Callable[[], None]:
    """Ctrl-C just after the `call`-th use of a function of `os`; gives what stops it."""
    real, count = getattr(os, name), itertools.count(1)

    def then_ctrl_c(*args: object) -> object:
        done = real(*args)
        if next(count) == call:
            raise KeyboardInterrupt
        return done

    patched = pytest.MonkeyPatch()
    patched.setattr(os, name, then_ctrl_c)
    return patched.undo


@pytest.mark.parametrize("name", ["write", "fsync"])
def test_ctrl_c_between_disk_and_memory_leaves_them_alike(tmp_path: Path, name: str):
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        journal.note("a")
        undo = interrupted_at(1, name)
        with pytest.raises(KeyboardInterrupt):
            journal.note("b")
        undo()
        journal.note("c")
        assert [e.event for e in journal] == ["a", "c"]
    assert [(e.number, e.event) for e in read_entries(tmp_path / "journal.jsonl")] == [
        (1, "a"),
        (2, "c"),
    ]


def test_what_failed_is_remembered_until_it_is_asked_for_again(tmp_path: Path):
    from lilliput.testing import tiny_context

    path, calls = tmp_path / "journal.jsonl", []

    def work(*, fails: bool) -> dict[str, object]:
        calls.append(fails)
        if fails:
            raise LilliputError("too thin", hint="leave more")
        return {"x": 1}

    def once(journal: JournalFile, *, fails: bool = True) -> dict[str, object] | None:
        context = tiny_context(tmp_path, journal=journal)
        return attempt(
            "k", lambda: work(fails=fails), context, stage="prune", candidate="a", number=2
        )

    with JournalFile(path) as journal:
        assert once(journal) is None
    with JournalFile(path) as journal:
        assert once(journal, fails=False) is None
        assert calls == [True]
        journal.forget_failures()
        assert once(journal, fails=False) == {"x": 1}
    with JournalFile(path) as journal:
        assert once(journal) == {"x": 1}
    assert calls == [True, False]

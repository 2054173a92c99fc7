"""Results outside a run: found once, kept one by one, never mixed up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lilliput.context import SilentProgress
from lilliput.errors import LilliputError
from lilliput.runs.cache import cache_for, collected, digest_of


class Watched(SilentProgress):
    def __init__(self) -> None:
        self.tracked: list[tuple[str, int]] = []
        self.said: list[str] = []

    def track(self, items: Any, *, label: str, total: int | None = None) -> Any:
        self.tracked.append((label, len(items)))
        yield from items

    def say(self, line: str) -> None:
        self.said.append(line)


def work(done: list[str], *keys: str, fails: str = "") -> dict[str, Callable[[], dict[str, Any]]]:
    def piece(key: str) -> Callable[[], dict[str, Any]]:
        def do() -> dict[str, Any]:
            if key == fails:
                raise KeyboardInterrupt
            done.append(key)
            return {"was": key, "count": len(done)}

        return do

    return {key: piece(key) for key in keys}


def test_what_was_found_before_an_interruption_is_not_done_again(tmp_path: Path) -> None:
    progress, done = Watched(), []
    with (
        pytest.raises(KeyboardInterrupt),
        cache_for("layers", {"file": "a"}, progress, root=tmp_path) as cache,
    ):
        cache.collect("layers", work(done, "one", "two", "three", fails="three"))
    with cache_for("layers", {"file": "a"}, progress, root=tmp_path) as cache:
        found = cache.collect("layers", work(done, "zero", "one", "two", "three"))
    assert done == ["one", "two", "zero", "three"]
    assert list(found) == ["zero", "one", "two", "three"]
    assert found["two"] == {"was": "two", "count": 2}
    assert progress.tracked == [("layers", 3), ("layers", 2)]
    assert progress.said == ["layers: 2 of 4 were found before"]


def test_another_question_has_another_cache(tmp_path: Path) -> None:
    done: list[str] = []
    for asked in ({"file": "a", "seed": 0}, {"file": "a", "seed": 1}, {"seed": 0, "file": "a"}):
        with cache_for("layers", asked, SilentProgress(), root=tmp_path) as cache:
            cache.collect("layers", work(done, "one"))
    assert done == ["one", "one"]
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1})
    (entry, *_) = cache.journal.entries
    assert (entry.event, entry.facts) == ("asked", {"file": "a", "seed": 0})


def test_two_processes_do_not_find_out_the_same_at_once(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lilliput.context import SilentProgress\n"
        "from lilliput.runs.cache import cache_for\n"
        "try:\n"
        "    with cache_for('layers', {'a': 1}, SilentProgress(), root=Path(sys.argv[1])): pass\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    with cache_for("layers", {"a": 1}, SilentProgress(), root=tmp_path):
        told = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        )
    assert "another process is finding out the same\n  → wait for it: what it" in told.stdout


def test_a_changed_cache_is_refused_and_says_what_to_delete(tmp_path: Path) -> None:
    with cache_for("layers", {"a": 1}, SilentProgress(), root=tmp_path) as cache:
        cache.collect("layers", work([], "one", "two"))
        path = cache.journal.path
    path.write_text(path.read_text().replace("one", "eno"))
    with (
        pytest.raises(LilliputError, match=r"was changed since\n  → this is a cache: delete /"),
        cache_for("layers", {"a": 1}, SilentProgress(), root=tmp_path),
    ):
        pass
    # The lock was given back.
    path.unlink()
    with cache_for("layers", {"a": 1}, SilentProgress(), root=tmp_path):
        pass


def test_without_a_cache_the_work_is_simply_done() -> None:
    done: list[str] = []
    assert collected("layers", work(done, "b", "a")) == {
        "b": {"was": "b", "count": 1},
        "a": {"was": "a", "count": 2},
    }


def test_the_users_own_folder_is_the_place_unless_another_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    with cache_for("layers", {"a": 1}, SilentProgress()) as cache:
        assert cache.journal.path.parents[1] == tmp_path / "lilliput" / "layers"

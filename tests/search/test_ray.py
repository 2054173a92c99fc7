"""A search on a real Ray of this machine, in a process of its own that must end without a trace."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from lilliput.candidate import Candidate
from lilliput.models.factory import build_module
from lilliput.runs.journal import JournalFile
from lilliput.search.delivering import explored
from lilliput.search.workers import mapped, ray_ended
from lilliput.steps.search_filters import SearchFilters
from lilliput.testing.tiny import tiny_context, tiny_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # two workers load torch, beside whatever else runs here
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason='Ray is not installed: pip install "lilliput[ray]"',
    ),
]

MARK = "LILLIPUT_TEST_OF_RAY"
"""In the environment of all processes that the session begins."""

MODEL = """
from neighbour import TinyResidual


class Net(TinyResidual):
    pass
"""

SETTINGS = {
    "population": 4,
    "generations": 1,
    "screen_examples": 24,
    "rank_examples": 48,
    "screen_steps": 1,
    "tau_sample": 1,
    "points": 1,
    "epochs": 0,
    "batch_size": 32,
    "refit_examples": 32,
    "max_drop": 90.0,
}


def searched(folder: Path, network, workers: str) -> dict:
    folder.mkdir()
    with JournalFile(folder / "journal.jsonl") as journal:
        context = tiny_context(folder)
        given = Candidate("original", network=network)
        context = replace(context, original=given, journal=journal, workers=workers)
        quest = SearchFilters(**SETTINGS).quest(given, context)
        list(explored(quest, given, suffix="found"))
        results = {
            entry.facts["key"]: entry.facts["result"]
            for entry in journal.entries
            if entry.event == "once"
        }
    for result in results.values():
        result.get("generation", {}).pop("minutes", None)
    return results


def deadly(folder: Path, number: int) -> list:
    with (folder / "tries").open("a") as tries:
        tries.write(f"{number}\n")
    first = (folder / "tries").read_text().split().count(str(number)) == 1
    if number == 0 or (number == 1 and first):
        os.kill(os.getpid(), signal.SIGKILL)
    return [number, torch.get_num_threads(), os.environ.get("RAY_USAGE_STATS_ENABLED")]


def endless(folder: Path, number: int) -> None:
    (folder / f"begun {number}").touch()
    try:
        while True:
            time.sleep(0.01)
    finally:
        (folder / f"ended {number}").touch()


def interrupted_when_begun(folder: Path) -> None:
    while not list(folder.glob("begun *")):
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


def session(folder: Path) -> dict:
    """All that is asked of a Ray, of one, for it takes long to begin."""
    network = replace(tiny_network(), module=build_module(f"{folder / 'model.py'}:Net").eval())
    with ray_ended():
        found = list(mapped(partial(deadly, folder), [0, 1, 2], "ray", lambda n: [n]))
        threading.Thread(target=interrupted_when_begun, args=[folder], daemon=True).start()
        with suppress(KeyboardInterrupt):
            list(mapped(partial(endless, folder), [0, 1, 2, 3], "ray", str))
        begun, ended = (
            sorted(path.name.split()[1] for path in folder.glob(f"{what} *"))
            for what in ("begun", "ended")
        )
        results = searched(folder / "ray", network, "ray")
    return {
        "deadly": found,
        "begun": begun,
        "ended": ended,
        "ray": results,
        "alone": searched(folder / "alone", network, "1"),
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    (folder / "model.py").write_text(MODEL)
    source = "from lilliput.testing.tiny import TinyResidual as Theirs\n"
    (folder / "neighbour.py").write_text(f"{source}class TinyResidual(Theirs):\n    pass\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment[MARK] = str(folder)
    ended = subprocess.run(
        [sys.executable, __file__, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads((folder / "told.json").read_text())
    return {**found, "folder": folder, "said": ended.stdout + ended.stderr}


def test_a_search_finds_the_same_to_the_bit(told):
    assert told["ray"] == told["alone"]
    assert any(" steps genome " in key for key in told["ray"])
    assert not any("failed" in result for result in told["ray"].values())


# users-ask 33
def test_a_worker_that_is_killed_costs_one_candidate_at_most(told):
    assert told["deadly"] == [[0], [1, 1, "0"], [2, 1, "0"]]
    tries = (told["folder"] / "tries").read_text().split()
    assert sorted(tries) == ["0", "0", "1", "1", "2"]


def test_ctrl_c_stops_what_is_under_way(told):
    assert told["begun"]
    assert told["ended"] == told["begun"]


def test_it_says_nothing_and_leaves_no_process(told):
    assert told["said"] == ""
    until = time.monotonic() + 30
    while left := processes_of(told["folder"]):
        assert time.monotonic() < until, left
        time.sleep(0.5)


def processes_of(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder):
                found.append(f"{process.pid} {process.name()}")
    return found


if __name__ == "__main__":
    where = Path(sys.argv[1])
    (where / "told.json").write_text(json.dumps(session(where)))

"""Each genome once a run, by any number of workers; failures are kept."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import types
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import cloudpickle
import numpy as np
import psutil
import pytest
import torch

from lilliput.errors import LilliputError, Missing
from lilliput.models.factory import MADE_UP, build_module
from lilliput.runs.journal import JournalFile
from lilliput.search.evaluation import Evaluations, Scales
from lilliput.search.genomes import key_of
from lilliput.search.ladder import rank_correlation, trust
from lilliput.search.searching import figures_of, judged_again, trained_briefly
from lilliput.search.workers import mapped, ray_ended, trainers
from lilliput.steps.search_filters import SearchFilters
from lilliput.testing.tiny import tiny_context

GENOMES = [np.array([n, 1]) for n in range(5)]


def score(genome):
    if genome[0] == 3:
        raise ValueError("three is bad luck")
    return {"loss": float(genome[0]), "bytes": 10.0 * genome.sum()}


@pytest.fixture
def journalled(tmp_path, monkeypatch):
    monkeypatch.delenv("LILLIPUT_DEBUG", raising=False)
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        yield replace(tiny_context(tmp_path), journal=journal)


def test_a_second_time_comes_from_the_journal(journalled):
    calls = []

    def counted(genome):
        calls.append(genome.tolist())
        return score(genome)

    evaluate = Evaluations("search", "stage", counted, journalled)
    first = evaluate(GENOMES, label="once")
    assert evaluate(GENOMES[::-1], label="twice") == first[::-1]
    assert len(calls) == 5


def test_the_number_of_workers_changes_nothing(journalled):
    alone = Evaluations("one", "stage", score, journalled)(GENOMES, label="alone")
    many = Evaluations("two", "stage", score, journalled, "2")(GENOMES, label="many")
    assert alone == many


# users-ask 33
@pytest.mark.parametrize("count", [1, 3], ids=["the last of a generation", "a generation"])
def test_a_process_that_dies_costs_no_more_than_its_candidate(journalled, tmp_path, count):
    begun, driver = tmp_path / "begun", os.getpid()

    def deadly(genome):
        assert os.getpid() != driver
        with begun.open("a") as file:
            file.write(f"{genome[0]}\n")
        once = begun.read_text().split().count(str(genome[0])) == 1
        if genome[0] == 0 or (genome[0] == 2 and once):
            os.kill(os.getpid(), signal.SIGKILL)
        return score(genome)

    genomes = GENOMES[:count]
    alone = Evaluations("one", "stage", score, journalled)(genomes, label="alone")
    evaluate = Evaluations("two", "stage", deadly, journalled, "2")
    told = evaluate(genomes, label="deadly")
    assert told[1:] == alone[1:]
    assert told[0]["failed"]["candidate"] == key_of(GENOMES[0])
    assert told[0]["failed"]["error"].startswith("its process died twice")
    tries = begun.read_text().split().count("0")
    assert tries in (2, 3), "in the pool, where another may be faster to end it, and twice alone"
    assert evaluate(genomes, label="again") == told
    assert begun.read_text().split().count("0") == tries


@pytest.mark.parametrize("rung", [figures_of, judged_again, trained_briefly])
def test_what_workers_of_a_cluster_are_given_pickles(journalled, rung):
    settings = {
        "refit_examples": 32,
        "screen_examples": 16,
        "rank_examples": 24,
        "screen_steps": 1,
        "batch_size": 32,
        "criterion": "l2",
    }
    quest = SearchFilters(**settings).quest(journalled.original, journalled)
    genome = quest.encoding.seeds()[1]
    work = partial(rung, quest.silent())
    assert pickle.loads(pickle.dumps(work))(genome) == work(genome)


def test_a_failure_is_an_outcome(journalled):
    told = Evaluations("search", "stage", score, journalled)(GENOMES, label="x")
    scales = Scales.of(("loss", "bytes"), {"loss": 50.0, "bytes": 40.0}, 2.5, {})
    outcomes = [scales.outcome(one) for one in told]
    assert outcomes[3].failed == "ValueError: three is bad luck"
    assert outcomes[2].values == (2 / 50, 30 / 40)
    assert [o.feasible for o in outcomes] == [True, True, True, False, False]
    assert scales.goals.reference == (0.05, 1.0)
    assert scales.outcome({"loss": float("nan"), "bytes": 1.0}).failed


def test_a_cost_over_its_limit_is_infeasible_by_how_much_it_is_over():
    scales = Scales.of(("loss", "bytes"), {"loss": 50.0, "bytes": 40.0}, 2.5, {"macs": 100.0})
    judged = [
        scales.outcome({"loss": loss, "bytes": 20.0, "macs": macs})
        for loss, macs in ((1.0, 100.0), (1.0, 150.0), (5.0, 90.0))
    ]
    assert [outcome.feasible for outcome in judged] == [True, False, False]
    assert judged[1].violation == pytest.approx(0.5)
    assert judged[1].values == (0.02, 0.5)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_when_time_is_over_the_first_are_evaluated_and_the_rest_is_not(journalled, workers):
    evaluate = Evaluations("search", "stage", score, journalled, workers)
    assert evaluate(GENOMES, label="short", over=lambda: True) == [score(GENOMES[0])]
    assert [journalled.journal.recall(f"search genome {key_of(g)}") for g in GENOMES[1:]] == (
        [None] * 4
    )


def test_what_is_measured_is_measured_here_and_of_sound_candidates_alone(journalled):
    seen = []

    def measure(genomes):
        seen.extend(genome.tolist() for genome in genomes)
        return [{"latency": 0.5} for _ in genomes]

    told = Evaluations("search", "stage", score, journalled, "1", measure)(GENOMES, label="x")
    assert seen == [[0, 1], [1, 1], [2, 1], [4, 1]]
    assert told[0]["latency"] == 0.5
    assert "latency" not in told[3]


def test_one_that_cannot_be_measured_fails_alone(journalled):
    def measure(genomes):
        if any(genome[0] == 2 for genome in genomes):
            raise LilliputError("two does not load")
        return [{"latency": float(genome[0])} for genome in genomes]

    told = Evaluations("search", "stage", score, journalled, "1", measure)(GENOMES, label="x")
    assert [one.get("latency") for one in told] == [0.0, 1.0, None, None, 4.0]
    assert "two does not load" in told[2]["failed"]["error"]
    assert "failed" in journalled.journal.recall(f"search genome {key_of(GENOMES[2])}")


def begun_or_slow(folder, number):
    (folder / str(number)).touch()
    if number:
        time.sleep(60)
        (folder / "in full").touch()
    return number


def test_processes_that_nobody_waits_for_are_ended_in_the_middle_of_their_work(tmp_path):
    results = mapped(partial(begun_or_slow, tmp_path), [0, 1, 2], "2", str)
    assert next(results) == 0
    while not (tmp_path / "1").exists():
        time.sleep(0.01)
    begun = multiprocessing.active_children()
    results.close()
    for process in begun:
        process.join(10)
        assert not process.is_alive()
    assert not (tmp_path / "in full").exists()


def test_processes_end_with_the_one_that_drives_them(tmp_path):
    def endless(number):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    fork = multiprocessing.get_context("fork")
    driver = fork.Process(target=lambda: list(mapped(endless, [1, 2], "2", str)))
    driver.start()
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    workers = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
    driver.kill()
    assert not psutil.wait_procs(workers, timeout=30)[1]


@pytest.mark.parametrize("cut_short", [False, True])
def test_no_process_lives_while_latency_is_measured(journalled, cut_short):
    before = set(multiprocessing.active_children())

    def measure(genomes):
        assert set(multiprocessing.active_children()) <= before
        return [{"latency": 0.5} for _ in genomes]

    def scored(genome):
        return score(genome) | {"pid": os.getpid()}

    evaluate = Evaluations("search", "stage", scored, journalled, "2", measure)
    told = evaluate(GENOMES[:3], label="x", over=lambda: cut_short)
    assert len(told) == (1 if cut_short else 3)
    assert all(one["pid"] != os.getpid() and one["latency"] == 0.5 for one in told)


@pytest.mark.parametrize(
    ("settings", "who"),
    [
        ({"workers": "4"}, "4"),
        ({"workers": "4", "train_threads": 2}, "1"),
        ({"workers": "ray", "train_threads": 2}, "ray"),
        ({"workers": "ray", "device": "cuda"}, "1"),
    ],
)
def test_who_trains_briefly(journalled, settings, who):
    """A forked process hangs with several threads; neither kind of worker has a GPU."""
    assert trainers(replace(journalled, **settings)) == who


def test_workers_that_are_none_are_refused():
    with pytest.raises(LilliputError, match="no workers 'many'") as refused:
        list(mapped(str, [1], "many", str))
    assert "number of processes" in str(refused.value)


def test_without_ray_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Missing, match="Ray is not installed") as missing:
        list(mapped(str, [1], "ray", str))
    assert 'pip install "lilliput[ray]"' in str(missing.value)


class FakeRay(types.ModuleType):
    """Runs a task when its result is asked for; some of these die as a worker does."""

    def __init__(self, deaths):
        super().__init__("ray")
        self.begun, self.facts, self.deaths = [], [], list(deaths)
        self.cancelled, self.awaited = [], []
        self.cancel = self.cancelled.append
        names = ("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError")
        self.cloudpickle = cloudpickle
        self.exceptions = types.SimpleNamespace(**{n: type(n, (Exception,), {}) for n in names})

    def is_initialized(self):
        return bool(self.begun)

    def init(self, **facts):
        self.begun.append(facts)

    def shutdown(self):
        self.begun.clear()

    def put(self, value):
        return value

    def wait(self, left, *, num_returns, timeout):
        assert num_returns == len(left)
        self.awaited += left

    def remote(self, **facts):
        self.facts.append(facts)
        return lambda function: types.SimpleNamespace(remote=partial(partial, function))

    def get(self, pending):
        death = self.deaths.pop(0) if self.deaths else None
        if death:
            raise getattr(self.exceptions, death)
        return pending()


def test_ray_is_given_the_work_once_and_answers_in_order(monkeypatch):
    ray = FakeRay([])
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert list(mapped(lambda n: n * n, [3, 1, 2], "ray://pi:10001", str)) == [9, 1, 4]
    (begun,) = ray.begun
    assert (begun["address"], begun["log_to_driver"]) == ("ray://pi:10001", False)


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    def deaf(**_facts):
        raise ConnectionError("timeout")

    ray = FakeRay([])
    monkeypatch.setattr(ray, "init", deaf)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(LilliputError, match="no answer from ray://pi:10001: timeout") as refused:
        list(mapped(str, [1], "ray://pi:10001", str))
    assert "RAY_AUTH_MODE" in str(refused.value)


def test_ray_is_not_begun_for_nothing(monkeypatch):
    ray = FakeRay([])
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert list(mapped(str, [], "ray", str)) == []
    assert not ray.begun


def test_a_ray_that_a_search_began_ends_with_it_and_another_goes_on(monkeypatch):
    ray = FakeRay([])
    monkeypatch.setitem(sys.modules, "ray", ray)
    for already in (False, True):
        if already:
            ray.init()
        with ray_ended():
            list(mapped(str, [1], "ray", str))
            assert ray.begun
        assert bool(ray.begun) is already


def test_what_is_no_longer_waited_for_is_taken_back_from_ray(monkeypatch):
    ray = FakeRay([])
    monkeypatch.setitem(sys.modules, "ray", ray)
    results = mapped(lambda n: n * n, [3, 1, 2], "ray", str)
    assert next(results) == 9
    results.close()
    assert [pending() for pending in ray.cancelled] == [1, 4]
    assert ray.awaited == ray.cancelled, "latency may be measured next"


class RayElsewhere(FakeRay):
    """Runs tasks in a process that was never told where the model's file is."""

    def __init__(self, pool):
        super().__init__([])
        self.pool = pool

    def put(self, value):
        return cloudpickle.dumps(value)

    def remote(self, **facts):
        def sent(function, shared, item):
            return self.pool.submit(unpickled, cloudpickle.dumps(function), shared, item)

        return lambda function: types.SimpleNamespace(remote=partial(sent, function))

    def get(self, pending):
        return pending.result()


def unpickled(function, shared, item):
    return pickle.loads(function)(pickle.loads(shared), item)


def without_models_of_files():
    for name in [name for name in sys.modules if name.startswith(MADE_UP)]:
        del sys.modules[name]


def test_a_model_of_a_file_goes_to_a_cluster_that_cannot_import_it(monkeypatch, tmp_path):
    (tmp_path / "blocks.py").write_text("from torch import nn\nclass Block(nn.Linear):\n    pass\n")
    file = tmp_path / "mynet.py"
    file.write_text(
        "from torch import nn\nfrom blocks import Block\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.block = Block(2, 1)\n"
        "    def forward(self, x):\n        return self.block(x)\n"
    )
    network = build_module(f"{file}:Net")
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, fork, initializer=without_models_of_files) as pool:
        monkeypatch.setitem(sys.modules, "ray", RayElsewhere(pool))
        (found,) = mapped(partial(answer_of, network), [[1.0, 2.0]], "ray", str)
    assert found == answer_of(network, [1.0, 2.0])


def answer_of(network, row):
    return network(torch.tensor(row)).item()


# users-ask 33
def test_what_a_lost_worker_of_ray_was_at_is_repeated_once(monkeypatch):
    ray = FakeRay(["NodeDiedError", None, "OutOfMemoryError", "WorkerCrashedError"])
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert list(mapped(lambda n: n * n, [3, 1, 2], "ray", str)) == [9, "1", 4]
    assert ray.facts == [{"num_cpus": 1, "max_retries": 0}]


def test_rank_correlation_of_rungs():
    cheap = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert rank_correlation(cheap, dict(zip("abcd", (9, 8, 7, 6), strict=True))) == -1
    assert rank_correlation(cheap, {"a": 1.0, "b": 2.0, "c": 4.0, "d": 3.0}) == pytest.approx(2 / 3)
    assert np.isnan(rank_correlation(cheap, {"a": 1.0, "b": 2.0}))


def test_a_poor_order_is_not_to_be_trusted():
    assert "do not trust rung 0" in trust(0.4, "rung 0", "rung 1", 9)
    assert "do not trust" not in trust(0.6, "rung 0", "rung 1", 9)
    assert "say nothing" in trust(float("nan"), "rung 0", "rung 1", 2)

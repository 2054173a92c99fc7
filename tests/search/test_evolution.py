"""The engine, on a problem whose best genomes are known."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.errors import LilliputError
from lilliput.search import breeding
from lilliput.search.breeding import fitness
from lilliput.search.evolution import Evolution
from lilliput.search.genomes import key_of
from lilliput.search.members import FAILED_VIOLATION, Goals, Member, Outcome
from lilliput.search.survival import hypervolume, non_dominated

LENGTH = 24
ALGORITHMS = ("nsga2", "nsga3", "random", "paper")


class Strings:
    """Bits: the first half loses quality when off, all of them cost when on."""

    name = "strings"
    levels = np.full(LENGTH, 2)

    def seeds(self):
        return [np.ones(LENGTH, np.int64)]

    def sample(self, rng):
        return (rng.random(LENGTH) < rng.random()).astype(np.int64)

    def repair(self, genome):
        return genome.copy()

    def crossover(self, one, other, rng):
        swap = rng.random(LENGTH) < 0.5
        return np.where(swap, other, one), np.where(swap, one, other)

    def mutate(self, genome, rng):
        return genome ^ (rng.random(LENGTH) < 1 / LENGTH)

    def express(self, genome):
        return genome

    def describe(self, genome):
        return {"on": int(genome.sum())}


GOALS = Goals(("loss", "cost"), (1.0, 1.0))


def worth(genome, *, limit=2.0):
    loss = 1 - genome[: LENGTH // 2].mean()
    return Outcome((float(loss), float(genome.mean())), float(loss - limit))


def evolution(algorithm="nsga2", *, goals=GOALS, population=12, seed=0):
    return Evolution(Strings(), goals, algorithm=algorithm, population=population, seed=seed)


def grown(engine, generations, judge=worth):
    for _ in range(generations):
        engine.tell([judge(genome) for genome in engine.ask()])
    return engine


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_goes_on_from_any_generation_as_if_undisturbed(algorithm):
    whole = grown(evolution(algorithm), 6)
    for generation in range(7):
        half = grown(evolution(algorithm), generation)
        resumed = evolution(algorithm, seed=99)
        resumed.load_state(json.loads(json.dumps(half.state())))
        assert grown(resumed, 6 - generation).state() == whole.state()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_seed_decides_the_whole_run(algorithm):
    one, same, other = (grown(evolution(algorithm, seed=seed), 4).state() for seed in (3, 3, 4))
    assert one == same
    assert one["archive"] != other["archive"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_mended_is_what_lives_on(algorithm):
    class Mending(Strings):
        """The first two genes may not both be off."""

        def repair(self, genome):
            mended = genome.copy()
            mended[0] |= 1 - genome[:2].any()
            return mended

    engine, judged = Evolution(Mending(), GOALS, algorithm=algorithm, population=12), []

    def judge(genome):
        judged.append(genome)
        return worth(genome)

    grown(engine, 6, judge)
    members = [*engine.archive.values(), *engine.population]
    genomes = [*judged, *(np.array(member.genome) for member in members)]
    assert all(genome[:2].any() for genome in genomes)
    assert {key_of(genome) for genome in judged} == set(engine.archive)
    for key, member in engine.archive.items():
        assert member.outcome == worth(np.array(member.genome))
        assert key == key_of(np.array(member.genome))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("generations", [0, 3])
def test_of_a_generation_that_is_cut_short_the_first_are_kept(algorithm, generations):
    engine = grown(evolution(algorithm), generations)
    known, asked = len(engine.archive), engine.ask()
    engine.shorten(1)
    assert [genome.tolist() for genome in engine.ask()] == [asked[0].tolist()]
    grown(engine, 1)
    assert len(engine.archive) == known + 1
    assert key_of(asked[0]) in engine.archive
    assert {m.number for m in engine.population} <= {m.number for m in engine.archive.values()}
    assert engine.front()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_front_never_gets_worse(algorithm):
    found = grown(evolution(algorithm), 10)
    assert found.hypervolumes == sorted(found.hypervolumes)
    assert len(found.hypervolumes) == 10


def test_the_paper_keeps_its_fittest():
    engine, best = evolution("paper"), 0.0
    for _ in range(10):
        engine = grown(engine, 1)
        fittest = max(fitness(member) for member in engine.population)
        assert fittest >= best
        best = fittest


def test_the_papers_operators_get_their_shares(monkeypatch):
    used = dict.fromkeys(("exchanged", "inverted"), 0)

    def watched(name):
        operator = getattr(breeding, name)

        def counting(*given):
            used[name] += 1
            return operator(*given)

        return counting

    for name in used:
        monkeypatch.setattr(breeding, name, watched(name))
    rng = np.random.default_rng(0)
    genomes = [Strings().sample(rng) for _ in range(8)]
    members = [Member(n, 0, tuple(g.tolist()), worth(g)) for n, g in enumerate(genomes)]
    children = breeding.Paper().brood(members, Strings(), 5000, rng)
    best = max(members, key=fitness)
    assert tuple(children[0].tolist()) == best.genome
    crossed, mutated = used["exchanged"], used["inverted"]
    copied = len(children) - 1 - 2 * crossed - mutated
    shares = np.array([copied, crossed, mutated]) / (copied + crossed + mutated)
    np.testing.assert_allclose(shares, [0.2, 0.7, 0.1], atol=0.03)


def test_fitness_by_hand():
    member = Member(0, 0, (1,), Outcome((0.1, 0.4)))
    assert fitness(member) == pytest.approx(0.9 + 0.6)
    assert fitness(Member(0, 0, (1,), Outcome.failure("no"))) == 0


def test_evolution_beats_chance_at_equal_evaluations():
    for seed in range(3):
        ours, theirs = (grown(evolution(a, seed=seed), 12) for a in ("nsga2", "random"))
        assert len(ours.archive) == len(theirs.archive)
        assert ours.hypervolumes[-1] > theirs.hypervolumes[-1]


@pytest.mark.parametrize("algorithm", ["nsga2", "nsga3", "random"])
def test_nothing_is_evaluated_twice(algorithm):
    engine, seen = evolution(algorithm), []
    for _ in range(6):
        asked = engine.ask()
        assert [key_of(g) for g in engine.ask()] == [key_of(g) for g in asked]
        seen += map(key_of, asked)
        engine.tell([worth(genome) for genome in asked])
    assert len(seen) == len(set(seen)) == 6 * 12


def test_a_space_that_runs_out_ends_quietly():
    class Two(Strings):
        def sample(self, rng):
            return np.full(LENGTH, rng.integers(2))

        def mutate(self, genome, rng):
            return genome

        def crossover(self, one, other, rng):
            return one, other

    engine = Evolution(Two(), GOALS, population=8)
    grown(engine, 3)
    assert len(engine.archive) == 2


def test_failures_are_kept_and_neither_breed_nor_lead():
    def judge(genome):
        return Outcome.failure("it burnt") if genome.sum() < 16 else worth(genome)

    engine = grown(evolution(), 8, judge)
    failed = [m for m in engine.archive.values() if m.outcome.failed]
    assert failed
    assert all(m.outcome == Outcome((), FAILED_VIOLATION, "it burnt") for m in failed)
    assert not any(m.outcome.failed for m in [*engine.front(), *engine.population])
    resumed = evolution()
    resumed.load_state(json.loads(json.dumps(engine.state())))
    assert resumed.state() == engine.state()


@pytest.mark.parametrize("algorithm", ["nsga2", "nsga3"])
def test_a_limit_on_the_loss_holds_on_the_front(algorithm):
    engine = grown(evolution(algorithm), 8, lambda genome: worth(genome, limit=0.3))
    assert engine.front()
    assert all(member.outcome.values[0] <= 0.3 for member in engine.front())


@pytest.mark.parametrize("algorithm", ["nsga2", "nsga3"])
def test_three_goals(algorithm):
    def judge(genome):
        loss, cost = worth(genome).values
        return Outcome((loss, cost, float(genome[::2].mean())))

    goals = Goals(("loss", "cost", "time"), (1.0, 1.0, 1.0))
    engine = grown(evolution(algorithm, goals=goals), 5, judge)
    assert engine.hypervolumes == sorted(engine.hypervolumes)


def test_what_is_told_must_fit_what_was_asked():
    engine = evolution()
    with pytest.raises(LilliputError, match="nothing was asked"):
        engine.tell([])
    asked = engine.ask()
    with pytest.raises(LilliputError, match=f"1 outcomes were told, and {len(asked)} were asked"):
        engine.tell([worth(asked[0])])


def test_another_algorithms_state_is_refused():
    with pytest.raises(LilliputError, match="'random' cannot go on by 'nsga2'"):
        evolution().load_state(evolution("random").state())


coordinates = st.integers(0, 5)
points = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=25)
in_space = st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=1, max_size=25)


@given(points | in_space)
def test_the_front_agrees_with_comparing_all_pairs(rows):
    values = np.array(rows, float)
    kept = non_dominated(values)

    def beaten(n):
        return any((o <= values[n]).all() and (o < values[n]).any() for o in values)

    expected = [n for n in range(len(rows)) if not beaten(n) and rows.index(rows[n]) == n]
    assert kept == expected


@given(points | in_space)
def test_hypervolume_counts_the_cells_that_something_dominates(rows):
    values, sides = np.array(rows, float), len(rows[0])
    cells = list(itertools.product(range(6), repeat=sides))
    covered = sum(any((row <= cell).all() for row in values) for cell in cells)
    box = (6.0,) * sides
    assert hypervolume(values, box) == pytest.approx(covered / len(cells))
    assert hypervolume(values[non_dominated(values)], box) == pytest.approx(covered / len(cells))


def test_hypervolume_of_three_known_points():
    front = np.array([[0.2, 0.8], [0.5, 0.5], [0.8, 0.2]])
    known = (1 - 0.8) * (1 - 0.2) + (0.8 - 0.5) * (1 - 0.5) + (0.5 - 0.2) * (1 - 0.8)
    assert hypervolume(front, (1.0, 1.0)) == pytest.approx(known)
    more = np.vstack([front, [[0.6, 0.6], [2.0, 0.1]]])
    assert hypervolume(more, (1.0, 1.0)) == pytest.approx(known)
    assert hypervolume(2 * front, (2.0, 2.0)) == pytest.approx(known)
    assert hypervolume(np.zeros((0, 2)), (1.0, 1.0)) == 0
    assert hypervolume(np.array([[-1.0, 0.0]]), (1.0, 1.0)) == 1

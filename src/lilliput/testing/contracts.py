"""What every step, runtime and task promises, as tests that a plug-in's author inherits.

They are plain pytest classes: subclass one, name the things to be tested, and its tests run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.models.store import load_saved, save_network
from lilliput.network import Edit, Network, flat_outputs
from lilliput.prune.edits import replay
from lilliput.runtimes.base import NodeTime, Runtime, Session
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.steps.base import STAGES, Stage, Step
from lilliput.target import Target
from lilliput.tasks.base import Task
from lilliput.testing.tiny import tiny_context, tiny_data, tiny_network


def pytest_parametrize(metafunc: pytest.Metafunc, name: str, values: Sequence[Any]) -> None:
    """Give a test that asks for `name` every one of `values`."""
    if name in metafunc.fixturenames:
        metafunc.parametrize(name, values, ids=[_label(value) for value in values])


def _label(value: Any) -> str:
    return str(value["edit"] if isinstance(value, dict) else getattr(value, "name", value))


class StepContract:
    """Subclass and set `stages`: at least one instance of each step with settings that differ."""

    stages: Sequence[Step] = ()
    task: str = "classification"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        pytest_parametrize(metafunc, "stage", self.stages)

    def given(self, stage: Step, folder: Path, **settings: Any) -> tuple[Candidate, Context]:
        """A candidate of the kind that the stage takes, and a context with these settings."""
        context = tiny_context(folder, self.task, **settings)
        if stage.takes == "network":
            return context.original, context
        artifact = export_network(tiny_network(self.task), folder / "tiny.onnx")
        return Candidate("tiny-fp32", artifact=artifact, parent="original"), context

    def applied(self, stage: Step, folder: Path, **settings: Any) -> tuple[Candidate, Candidate]:
        given, context = self.given(stage, folder, **settings)
        stage.requires(given, context)
        name = stage.child_id(given.id)
        return given, stage.apply(replace(given, id=name), context)

    def test_input_is_untouched(self, stage: Step, tmp_path: Path) -> None:
        given, context = self.given(stage, tmp_path)
        before = fingerprint(given)
        stage.apply(replace(given, id=stage.child_id(given.id)), context)
        assert fingerprint(given) == before

    def test_output_is_of_the_promised_kind_and_runs(self, stage: Step, tmp_path: Path) -> None:
        given, made = self.applied(stage, tmp_path)
        assert made.kind == stage.gives
        assert shapes_of(made) == shapes_of(given)

    def test_its_files_answer_as_it_does(self, stage: Step, tmp_path: Path) -> None:
        if stage.gives == "artifact":
            pytest.skip("what it makes is a file already")
        made = self.applied(stage, tmp_path)[1].the_network()
        inputs = made.example(5)
        answers = _answers(made.module, inputs)

        saved = save_network(made, tmp_path / "made.safetensors")
        again = load_saved(saved, tiny_network(self.task).module)
        assert all(map(torch.equal, _answers(again.module, inputs), answers))
        assert _as_json(again) == _as_json(made)

        exported = export_network(made, tmp_path / "made.onnx").path
        with closing(open_session(exported, Target())) as session:
            ours = session.run([x.numpy() for x in inputs])
        for mine, theirs in zip(ours, answers, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4, rtol=1e-4)

    def test_same_seed_same_result(self, stage: Step, tmp_path: Path) -> None:
        results = []
        for turn in ("first", "second"):
            folder = tmp_path / turn
            folder.mkdir()
            # A seed fixes everything that is not a clock; here the clock is scripted.
            made = self.applied(stage, folder, target=Target(runtime="null"))[1]
            results.append(fingerprint(made))
        assert results[0] == results[1]

    def test_wrong_kind_is_refused_with_a_way_out(self, stage: Step, tmp_path: Path) -> None:
        context = tiny_context(tmp_path, self.task)
        wrong = context.original
        if stage.takes == "network":
            artifact = export_network(tiny_network(self.task), tmp_path / "tiny.onnx")
            wrong = Candidate("tiny-fp32", artifact=artifact)
        with pytest.raises(Refused, match="works on") as refused:
            stage.requires(wrong, context)
        assert refused.value.hint

    def test_recipe_round_trip(self, stage: Stage) -> None:
        ((name, settings),) = stage.described().items()
        assert STAGES[name].model_validate(settings) == stage

    def test_unknown_settings_are_refused(self, stage: Stage) -> None:
        with pytest.raises(ValueError, match="no_such_setting"):
            type(stage).model_validate({**stage.model_dump(), "no_such_setting": 1})

    def test_every_setting_and_the_source_are_described(self, stage: Stage) -> None:
        assert stage.source, "say which paper and section, or that there is none"
        assert inspect.getdoc(type(stage)), "say what it does"
        for name, field in type(stage).model_fields.items():
            assert field.description, f"setting {name!r} has no description"


class EditContract:
    """Subclass and set `edits`: entries, as their makers give them, that fit the tiny network."""

    edits: Sequence[Edit] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        pytest_parametrize(metafunc, "edit", self.edits)

    def test_from_json_it_does_the_same_on_a_fresh_network(self, edit: Edit) -> None:
        network = tiny_network()
        made, again = (
            replay(network.module, [entry]) for entry in (edit, json.loads(json.dumps(edit)))
        )
        again.load_state_dict(made.state_dict())
        inputs = network.example(3)
        assert all(map(torch.equal, _answers(again, inputs), _answers(made, inputs)))

    def test_a_damaged_one_is_refused(self, edit: Edit) -> None:
        module = tiny_network().module
        for key in edit:
            rest = {name: value for name, value in edit.items() if name != key}
            for damaged in (rest, *({**rest, key: value} for value in (None, "x", -1, [1]))):
                with pytest.raises(LilliputError):
                    replay(module, [damaged])


class RuntimeContract:
    """Subclass and set `runtimes`; those that are not installed skip with their reason."""

    runtimes: Sequence[Runtime] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "runtime" in metafunc.fixturenames:
            metafunc.parametrize("runtime", self.runtimes, ids=_label, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def file(
        cls, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Path, Network]:
        """The tiny network in a format that the runtime opens."""
        reason = runtime.unavailable()
        if reason is not None:
            pytest.skip(reason)
        network, folder = tiny_network(), tmp_path_factory.mktemp("runtime")
        if ".onnx" in runtime.formats:
            return export_network(network, folder / "tiny.onnx").path, network
        from lilliput.export.program_file import export_pt2

        return export_pt2(network, folder / "tiny.pt2").path, network

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, runtime: Runtime, file: tuple[Path, Network]) -> Iterator[Session]:
        """One for all tests, since some runtimes take seconds to open a file."""
        with closing(runtime.load(file[0], cls.target_for(runtime))) as session:
            yield session

    @classmethod
    def target_for(cls, runtime: Runtime) -> Target:
        return Target(runtime=runtime.name, precision=runtime.precisions[0])

    def test_agrees_with_torch(self, session: Session, file: tuple[Path, Network]) -> None:
        network = file[1]
        inputs = network.example(5)
        with torch.no_grad():
            expected = flat_outputs(network.module(*inputs))
        ours = session.run([x.numpy() for x in inputs])
        for mine, theirs in zip(ours, expected, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=2e-4, rtol=1e-3)

    def test_bursts_are_positive_nanoseconds(self, session: Session) -> None:
        session.bind(random_feeds(session.inputs))
        taken = session.burst(4)
        assert taken.shape == (4,)
        assert (taken > 0).all()

    def test_says_what_it_is(self, session: Session, file: tuple[Path, Network]) -> None:
        assert [len(spec.shape) for spec in session.inputs] == [
            len(spec.shape) for spec in file[1].inputs
        ]
        assert session.load_seconds >= 0
        assert session.conditions

    def test_profile_is_sorted_or_empty(self, runtime: Runtime, file: tuple[Path, Network]) -> None:
        path, network = file
        feeds = [x.numpy() for x in network.example(1)]
        times: list[NodeTime] = runtime.profile(path, self.target_for(runtime), feeds)
        seconds = [node.seconds for node in times]
        assert seconds == sorted(seconds, reverse=True)

    def test_a_file_that_is_none_is_an_error_that_names_it(
        self, runtime: Runtime, tmp_path: Path
    ) -> None:
        if runtime.unavailable() is not None:
            pytest.skip("not installed")
        path = tmp_path / f"broken{runtime.formats[0]}"
        path.write_bytes(b"this is no network")
        with pytest.raises(LilliputError, match="broken"):
            runtime.load(path, self.target_for(runtime))


class TaskContract:
    """Subclass and set `tasks`: names of registered tasks that `tiny_data` knows."""

    tasks: Sequence[str] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        pytest_parametrize(metafunc, "task", self.tasks)

    def test_batches_cover_the_split_in_order(self, task: str, tmp_path: Path) -> None:
        context = tiny_context(tmp_path, task)
        batches = list(context.task.batches(context.data.test, _preprocessing(task), 5))
        assert sum(len(batch.inputs[0]) for batch in batches) == len(context.data.test)
        assert all(batch.inputs[0].dtype == np.float32 for batch in batches)

    def test_training_batches_depend_on_the_generator_alone(
        self, task: str, tmp_path: Path
    ) -> None:
        context = tiny_context(tmp_path, task)

        def epoch(seed: int) -> list[Any]:
            rng = np.random.default_rng(seed)
            batches = context.task.training_batches(
                context.data.train, _preprocessing(task), 4, rng, augment=("flip", "shift")
            )
            return [batch.inputs[0] for batch in batches]

        first, again, other = epoch(1), epoch(1), epoch(2)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))

    def test_a_perfect_answer_beats_a_wrong_one(self, task: str, tmp_path: Path) -> None:
        context = tiny_context(tmp_path, task)
        named: Task = context.task
        batch = next(iter(named.batches(context.data.test, _preprocessing(task), 1)))
        module = tiny_network(task).module
        with torch.no_grad():
            output = flat_outputs(module(torch.from_numpy(batch.inputs[0])))[0].numpy()
        truth = named.as_truth(output)
        right, wrong = named.scores(output, truth), named.scores(-output, truth)
        assert right.shape == (1,)
        assert (right.mean() > wrong.mean()) == named.metric.higher_is_better

    def test_losses_are_finite_scalars_with_gradients(self, task: str, tmp_path: Path) -> None:
        context = tiny_context(tmp_path, task)
        network = tiny_network(task)
        batch = next(
            iter(
                context.task.training_batches(
                    context.data.train, network.preprocessing, 4, np.random.default_rng(0)
                )
            )
        )
        output = flat_outputs(network.module(torch.from_numpy(batch.inputs[0])))[0]
        target = torch.as_tensor(batch.targets)
        for loss in (
            context.task.loss(output, target),
            context.task.imitation(output, output.detach() + 0.1),
        ):
            assert loss.shape == ()
            assert torch.isfinite(loss)
            assert torch.autograd.grad(loss, output, retain_graph=True)[0].shape == output.shape

    def test_settings_make_the_task_again(self, task: str) -> None:
        from lilliput.tasks import task_of

        named = task_of(task)
        assert task_of(named.settings()) == named


def _preprocessing(task: str) -> Any:
    return tiny_network(task).preprocessing


def fingerprint(candidate: Candidate) -> bytes:
    """All that a candidate computes with, as bytes: weights and buffers, or the file."""
    if candidate.artifact is not None:
        return candidate.artifact.path.read_bytes()
    state = candidate.the_network().module.state_dict()
    return b"".join(
        name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in state.items()
    )


def shapes_of(candidate: Candidate) -> list[tuple[int, ...]]:
    """Shapes of the outputs at a batch of 1 and of 3."""
    if candidate.artifact is not None:
        return _file_shapes(candidate.artifact)
    network = candidate.the_network()
    with torch.no_grad():
        return [
            tuple(t.shape)
            for batch in (1, 3)
            for t in flat_outputs(network.module.eval()(*network.example(batch)))
        ]


def _answers(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return flat_outputs(module.eval()(*inputs))


def _as_json(network: Network) -> str:
    """What a network was changed by and is held to."""
    return json.dumps([list(network.edits), dict(network.held)], sort_keys=True)


def _file_shapes(artifact: Artifact) -> list[tuple[int, ...]]:
    with closing(open_session(artifact.path, Target())) as session:
        return [
            tuple(output.shape)
            for batch in (1, 3)
            for output in session.run(random_feeds(session.inputs, batch=batch))
        ]


__all__ = ["EditContract", "RuntimeContract", "StepContract", "TaskContract", "tiny_data"]

"""Which layer suffers: by int8, by cuts, and how few have to stay as they are."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context, Progress, SilentProgress
from lilliput.data.dataset import SPLITS, Dataset
from lilliput.data.sources import load_data
from lilliput.data.sources.splits import fingerprints
from lilliput.encode.calibration import Calibration, calibration_of
from lilliput.encode.execute import chain
from lilliput.encode.saturation import saturates
from lilliput.encode.study import plain_settings, study_layers
from lilliput.errors import LilliputError, Refused
from lilliput.meter.candidates import with_truth
from lilliput.meter.host import cpu_flags
from lilliput.meter.layer_times import identity
from lilliput.meter.sensitivities import CutSensitivity, Sensitivities
from lilliput.meter.trials import Trials
from lilliput.onnx_io import SUFFIXES, read_bytes, read_model
from lilliput.preprocessing import IDENTITY, Preprocessing
from lilliput.reports import write_report
from lilliput.runs.cache import Cache, cache_for
from lilliput.runs.folder import RunFolder
from lilliput.runtimes.reference import completed
from lilliput.target import Target
from lilliput.verbs.evaluate import task_of_file

if TYPE_CHECKING:
    from lilliput.network import Network

VERSION = 1
"""To be raised when the same question gets another answer; cached ones are then asked anew."""

NO_NETWORK = "a file's channels are not cut; give the network's code and weights for that"


@dataclass(frozen=True)
class _Request:
    """The model as the user names it, and in what form it is to be looked into."""

    model: str
    weights: Path | str | None
    data: str
    task: str | dict[str, Any] | None
    target: Target
    preprocessing: Preprocessing | None
    input_shape: tuple[int, ...] | None
    seed: int | None


@dataclass(frozen=True)
class _Subject:
    """What is looked into: a float file, in the context of its data, and what it was called."""

    name: str
    artifact: Artifact
    context: Context

    @property
    def network(self) -> Network | None:
        return self.context.original.network

    @property
    def preprocessing(self) -> Preprocessing:
        return self.artifact.metadata.preprocessing or IDENTITY


@dataclass(frozen=True)
class _Effort:
    """Numbers of examples to calibrate with and to score on, and shares of channels to cut."""

    images: int
    validation_images: int
    ratios: tuple[float, ...]


def sensitivity(
    model: str | Path,
    *,
    data: str,
    weights: Path | str | None = None,
    task: str | dict[str, Any] | None = None,
    target: str | Target = "onnxruntime",
    preprocessing: Preprocessing | None = None,
    input_shape: tuple[int, ...] | None = None,
    images: int = 256,
    validation_images: int = 1000,
    ratios: Sequence[float] = (0.25, 0.5),
    seed: int | None = None,
    run: Path | str | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Sensitivities:
    """What each layer loses by int8 and each group of channels by a cut, the worst first.

    Every figure is kept when it is found: called again after an interruption with the same
    arguments, it goes on with what is left; called once more, it answers at once.

    Args:
        model: A float `.onnx` or `.lil` file; or `file.py:function`, `package.module:function` or
            a `.pt2` file, which is exported first and whose channels are cut as well.
        data: A folder, an `.npz`, a named set, or `module:function`. Its calibration examples (or
            else those for training) give the output errors, its validation examples the drops.
        weights: `.safetensors`, or a state dict in `.pt`.
        task: Left out, the task that the file says it was made for, or classification.
        target: A runtime's name, or a whole Target; its CPU decides which weights are safe.
        preprocessing: Left out, what the file says of itself.
        input_shape: Batch first; unset, taken from the data.
        images: Examples to calibrate with.
        validation_images: Examples to score on, at most.
        ratios: Shares of a group's channels that are cut.
        seed: Of the draw of examples; left out, the one that the file was made with, or 0.
        run: A run's folder, whose report then shows the result too.
        cache_dir: Where results are kept; the user's cache folder by default.
        progress: Watches.

    Raises:
        LilliputError: The data does not fit the model; another process finds out the same.
        Refused: The file is quantized already, nothing in it can run in int8, or it does not say
            what it was made for.
    """
    watched = progress or SilentProgress()
    effort = _Effort(images, validation_images, _checked(ratios))
    if run is not None:
        RunFolder.look(run)
    with tempfile.TemporaryDirectory(prefix="lilliput-sensitivity-") as folder:
        request = _Request(
            model=str(model),
            weights=weights,
            data=data,
            task=task,
            target=Target.parse(target) if isinstance(target, str) else target,
            preprocessing=preprocessing,
            input_shape=input_shape,
            seed=seed,
        )
        is_file = Path(model).suffix in SUFFIXES
        subject = (_of_file if is_file else _of_network)(request, Path(folder), watched)
        asked = _asked(subject, effort)
        root = None if cache_dir is None else Path(cache_dir)
        with cache_for("sensitivity", asked, watched, root=root) as cache:
            # Also as a whole, so that who asks again waits for nothing.
            found = cache.journal.once("all", lambda: _found(subject, effort, cache))
    names = {"model": subject.name, "sha256": asked["file"]}
    study = Sensitivities.model_validate(found | names)
    if run is not None:
        _show_in(Path(run), study)
    return study


def _checked(ratios: Sequence[float]) -> tuple[float, ...]:
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise LilliputError(
                f"{ratio:g} is no share of channels to cut", hint="between 0 and 1, as 0.25"
            )
    return tuple(sorted({float(ratio) for ratio in ratios}))


# What is looked into ----------------------------------------------------------------------------


def _of_file(request: _Request, folder: Path, progress: Progress) -> _Subject:
    name = request.model
    if request.weights is not None:
        raise Refused(f"{name!r} holds its weights; leave `weights` out")
    artifact = Artifact.of(name)
    if any(node.op_type == "DequantizeLinear" for node in read_model(name).graph.node):
        raise Refused(f"{name!r} is quantized already", hint="give the float file")
    task = task_of_file(artifact, request.task)
    form = request.preprocessing or artifact.metadata.preprocessing
    seed = artifact.metadata.seed if request.seed is None else request.seed
    loaded = load_data(request.data, task=task, seed=seed, preprocessing=form)
    examples = task.prepare(loaded)
    artifact = completed(artifact, form, examples)
    metadata = artifact.metadata.model_copy(update={"task": task.settings()})
    artifact = artifact.model_copy(update={"metadata": metadata})
    context = Context(
        data=examples,
        task=task,
        target=request.target,
        original=Candidate("original", artifact=artifact),
        folder=folder,
        seed=seed,
        progress=progress,
    )
    return _Subject(name, artifact, context)


def _of_network(request: _Request, folder: Path, progress: Progress) -> _Subject:
    """The network, exported into the folder."""
    from lilliput.distill.speed import torch_threads
    from lilliput.opening import load_examples, load_original
    from lilliput.steps.export import Export
    from lilliput.tasks import task_of
    from lilliput.verbs.compress import recipe_for

    left_open = {"task": request.task or "classification", "seed": request.seed or 0}
    goals = {**vars(request), **left_open}
    recipe = recipe_for(**goals, budget=None, time_budget_minutes=None, epochs=None)
    task = task_of(recipe.task.model_dump())
    data = load_examples(recipe, task)
    with torch_threads(1):
        original = load_original(recipe, task, data)
        context = Context(
            data=data,
            task=task,
            target=recipe.target,
            original=original,
            folder=folder,
            seed=recipe.seed,
            progress=progress,
        )
        exported = Export().apply(replace(original, id="network"), context)
    return _Subject(request.model, exported.the_artifact(), context)


def _asked(subject: _Subject, effort: _Effort) -> dict[str, Any]:
    """All that the answer depends on."""
    context = subject.context
    packages = ["lilliput", "onnxruntime", "onnx", *([] if subject.network is None else ["torch"])]
    return {
        "version": VERSION,
        "versions": {name: version(name) for name in packages},
        "file": hashlib.sha256(read_bytes(subject.artifact.path)).hexdigest(),
        "network": None if subject.network is None else _digest(subject.network),
        "data": _digests(context.data),
        "task": context.task.settings(),
        "preprocessing": subject.preprocessing.model_dump(mode="json"),
        "runs on": identity(context.target),
        "saturating": _saturating(context),
        "seed": context.seed,
        "images": effort.images,
        "validation_images": effort.validation_images,
        "ratios": effort.ratios,
    }


def _digests(data: Dataset) -> dict[str, Any]:
    """Of all examples with what they should give, and of what lies in which split, in order."""
    splits = {
        name: hashlib.sha256(b"".join(fingerprints(getattr(data, name).inputs))).hexdigest()
        for name in SPLITS
    }
    return {"name": data.name, "layout": data.layout, "all": data.facts.get("hash"), **splits}


def _digest(network: Network) -> str:
    """Of all weights, with their names and shapes; the file has batch norms folded into others."""
    digest = hashlib.sha256()
    for name, tensor in network.module.state_dict().items():
        values = tensor.detach().cpu().numpy()
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _saturating(context: Context) -> bool:
    return saturates(context.target.isa or cpu_flags())


# What is found ------------------------------------------------------------------------------------


def _found(subject: _Subject, effort: _Effort, cache: Cache) -> dict[str, Any]:
    context = replace(subject.context, journal=cache.journal)
    with _one_thread(subject.network):
        context, truth = _judged(context, subject, effort)
        calibration = calibration_of(
            context.data,
            context.task,
            subject.preprocessing,
            subject.artifact.metadata.inputs,
            images=effort.images,
            rng=context.rng("sensitivity", "calibration"),
        )
        split = context.data.validation
        trials = Trials(subject.artifact, split, context, context.folder)
        study = study_layers(
            read_model(subject.artifact.path),
            calibration,
            plain_settings(
                saturating=_saturating(context),
                preprocessing=subject.preprocessing if context.data.layout == "image" else None,
                threads=context.target.threads,
            ),
            drop=trials.drop if len(split) else None,
            collect=cache.collect,
        )
        cuts, no_cuts = _cuts(subject, calibration, effort, context, cache)
    metric = context.task.metric
    return Sensitivities(
        model=subject.name,
        sha256=subject.artifact.sha256,
        target=context.target.label,
        data=context.data.name,
        synthetic=context.data.synthetic,
        calibrated=calibration.count,
        scored=len(split),
        metric=metric.name,
        unit=metric.unit,
        truth=truth,
        ranges=study.ranges,
        layers=study.layers,
        curve=study.curve,
        skipped=study.skipped,
        cuts=tuple(cuts),
        no_cuts=no_cuts,
    ).model_dump(mode="json", exclude={"model", "sha256"})


def _judged(context: Context, subject: _Subject, effort: _Effort) -> tuple[Context, str]:
    """The context with the validation examples that drops are taken on, and their truth."""
    data, why = context.data, ""
    if subject.network is not None:
        from lilliput.unseen import with_unseen_validation

        data, why = with_unseen_validation(context)
    if why:
        context.progress.say(why)
    split = data.validation
    if not len(split):
        return replace(context, data=data), ""
    split = split.sample(effort.validation_images, context.rng("sensitivity", "validation"))
    truth = "the truth" if split.targets is not None else "the float file's own answers"
    split = with_truth(split, subject.artifact, context)
    return replace(context, data=replace(data, validation=split)), truth


def _cuts(
    subject: _Subject,
    calibration: Calibration,
    effort: _Effort,
    context: Context,
    cache: Cache,
) -> tuple[list[CutSensitivity], str]:
    """The ranking of cuts, or why there is none."""
    if subject.network is None:
        return [], NO_NETWORK
    if not effort.ratios:
        return [], "none was asked for"
    from lilliput.search.cut_sensitivity import cut_sensitivities

    feeds = chain(calibration.fit, calibration.judge)
    try:
        found = cut_sensitivities(
            subject.network, feeds, context, ratios=effort.ratios, collect=cache.collect
        )
    except Refused as refused:
        return [], refused.thing
    return found, "" if found else "no share comes to a whole channel"


@contextmanager
def _one_thread(network: Network | None) -> Iterator[None]:
    """For what runs in torch: many small operations, which more threads slow down."""
    if network is None:
        yield
        return
    from lilliput.distill.speed import torch_threads

    with torch_threads(1):
        yield


def _show_in(run: Path, study: Sensitivities) -> None:
    with RunFolder.open(run) as folder:
        folder.journal.note("sensitivities", sensitivities=study.model_dump(mode="json"))
        write_report(folder)

"""Run convolutions with large kernels in the frequency domain, where the target is faster so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import Schedule, train
from lilliput.distill.sources import examples_for
from lilliput.distill.teaching import check_teachable
from lilliput.errors import Refused
from lilliput.frequency.counts import Counts, as_many_as_cost_no_more
from lilliput.frequency.running import FrequencyConv2d, Ranked, can_run, ranked
from lilliput.meter.layer_times import TOLERANCE
from lilliput.meter.pattern_times import SPATIAL
from lilliput.network import Network
from lilliput.prune.edits import frequency_edit
from lilliput.prune.edits.registry import put
from lilliput.prune.from_context import UNGRIDDED, examples, repairer
from lilliput.prune.protect import matching_modules
from lilliput.search.pattern_counts import Ratios, counts_within, places_of, ratios_of
from lilliput.search.running import timed_within
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.distill import Distill
from lilliput.steps.teaching import BatchSize, LearningRate, WeightDecay

BATCH = 64
GOALS = ("energy", "keep_latency", "keep")
DEFAULT_ENERGY = 0.95


@STAGES.register("run_dct")
class RunDct(Step):
    """A d×d convolution becomes m fixed patterns, each over every channel, and a 1×1 mixture.

    All kernels of a layer keep the same patterns: those that matter most on training examples. How
    many: a share of the layer's response (`energy`) and as many more as cost no time on the target;
    or those that carry the most within a share of the network's time (`keep_latency`); or a number
    (`keep`). A layer changes only if its network is measured to be faster with it. It pays for
    kernels of 5×5 and more; 3×3 kernels rarely can spare enough patterns.
    """

    name: ClassVar[str] = "run_dct"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    renames: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Wang et al., CNNpack, NIPS 2016, section 3.3; with the same bases for all kernels of a "
        "layer, which is ours"
    )

    basis: Literal["dct", "svd"] = Field("dct", description="cosines, or directions of the layer")
    energy: float | None = Field(
        None, gt=0, le=1, description="share of a layer's response that its patterns carry: 0.95"
    )
    keep_latency: float | None = Field(
        None, gt=0, lt=1, description="share of the network's latency left, at most"
    )
    keep: int | None = Field(None, ge=1, description="patterns of each layer, whatever they carry")
    layers: tuple[str, ...] = Field(
        (), description="globs of layers to change; left out, those that are measured faster"
    )
    images: int = Field(256, ge=1, description="examples that the patterns are chosen by")
    epochs: int = Field(5, ge=0, description="of distillation from the original afterwards")
    learning_rate: LearningRate = 0.01
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 5e-4
    free: bool = Field(False, description="train the patterns too, for each channel its own")
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        given = [goal for goal in GOALS if getattr(self, goal) is not None]
        if len(given) > 1:
            raise ValueError(
                f"run_dct takes one of {', '.join(GOALS)}: {' and '.join(given)} are both given"
            )
        return self

    def requires(self, candidate: Candidate, context: Context) -> None:
        """Refuses a file, and a network without a convolution that has such a form."""
        self.check_kind(candidate)
        network = candidate.the_network()
        if not self._candidates(network):
            raise Refused(
                f"run_dct finds no convolution to change in {network.name!r}",
                hint="it needs plain Conv2d layers with kernels larger than 1×1 and one group",
            )
        context.data.split("train")
        if self.keep_latency is not None and context.target.runtime in UNGRIDDED:
            raise Refused(
                f"times on {context.target.runtime!r} say nothing about patterns, and "
                "`keep_latency` is a goal in time",
                hint="give `energy`, or a target that files are deployed on",
            )
        if self.epochs:
            check_teachable(context)

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network()
        made = self._made(network, candidate.id, context)
        changed = with_forms(network, made, free=self.free)
        if not made:
            context.progress.say("run_dct: no layer is faster in the frequency domain")
            labelled = Candidate(id=candidate.id, network=changed)
            return labelled.labelled("no layer is faster in the frequency domain")
        if self.bn_images:
            changed = repairer(context, self.bn_images)(changed)
        return Candidate(id=candidate.id, network=self._repaired(changed, candidate.id, context))

    def _candidates(self, network: Network) -> dict[str, nn.Conv2d]:
        among = matching_modules(network, self.layers) if self.layers else None
        return {
            path: part
            for path, part in network.module.named_modules()
            if isinstance(part, nn.Conv2d) and can_run(part) and (among is None or path in among)
        }

    def _made(self, network: Network, name: str, context: Context) -> dict[str, FrequencyConv2d]:
        """{path: the running form of a layer that changes}."""
        layers = self._candidates(network)
        seen = inputs_of(network, tuple(layers), context, self.images)
        patterns = {path: ranked(layers[path], self.basis, inputs) for path, inputs in seen.items()}
        ratios = {} if self.keep else _ratios(patterns, network, name, context)
        counts = self._counts(patterns, ratios, network, name, context)
        tell(counts, patterns, ratios, context)
        made = {
            path: each.form(counts[path])
            for path, each in patterns.items()
            if self.layers or counts[path] < len(each.basis)
            if counts[path] != SPATIAL
        }
        if self.layers or self.keep_latency is not None:
            return made
        return {path: made[path] for path in self._faster(network, made, name, context)}

    def _counts(
        self,
        patterns: Mapping[str, Ranked],
        ratios: Ratios,
        network: Network,
        name: str,
        context: Context,
    ) -> Counts:
        """{path: patterns kept}, by the goal that was given."""
        if self.keep_latency is not None:
            return _within(self.keep_latency, patterns, ratios, network, name, context)
        if self.keep is not None:
            return {path: min(self.keep, len(each.order)) for path, each in patterns.items()}
        share = DEFAULT_ENERGY if self.energy is None else self.energy
        raised = {
            path: as_many_as_cost_no_more(each.fewest(share), ratios.get(path, {}), TOLERANCE)
            for path, each in patterns.items()
        }
        return {path: min(count, len(patterns[path].order)) for path, count in raised.items()}

    def _faster(
        self, network: Network, made: Mapping[str, nn.Module], name: str, context: Context
    ) -> list[str]:
        def work() -> dict[str, Any]:
            each = {path: with_forms(network, {path: form}) for path, form in made.items()}
            timings = timed_within(each, network, context) if each else {}
            return {
                path: {"verdict": timings[path].verdict, "ratio": timings[path].ratio}
                for path in made
            }

        verdicts = context.journal.once(f"{name}.run_dct.timings", work)
        for path, found in verdicts.items():
            context.progress.say(
                f"run_dct, {path}: {found['verdict']}, network at {found['ratio']:.3f} of its time"
            )
        return [path for path, found in verdicts.items() if found["verdict"] == "faster"]

    def _repaired(self, network: Network, name: str, context: Context) -> Network:
        source = examples_for(network, context, self.batch_size)
        teacher = context.teacher
        lesson = Distill(imitation=0.9 if teacher is not None else 0.0)
        return train(
            network,
            lesson.terms(network, teacher or network, context, labelled=source.labelled),
            source,
            Schedule(self.epochs, self.learning_rate, weight_decay=self.weight_decay),
            context,
            key=f"{name}.run_dct",
            teacher=teacher,
        )


def _ratios(paths: Iterable[str], network: Network, name: str, context: Context) -> Ratios:
    """{path: {patterns: time relative to the layer as it is}}, where times can be told."""
    if context.target.runtime in UNGRIDDED:
        return {}
    places = places_of(network, tuple(paths))
    key = f"{name}.run_dct.patterns"
    found = context.journal.once(key, lambda: dict(ratios_of(places, context)))
    return {path: {int(m): ratio for m, ratio in each.items()} for path, each in found.items()}


def _within(
    goal: float,
    patterns: Mapping[str, Ranked],
    ratios: Ratios,
    network: Network,
    name: str,
    context: Context,
) -> Counts:
    """{path: patterns kept}, so that the network keeps this share of its time."""

    def changed(counts: Counts) -> Network:
        forms = {path: patterns[path].form(count) for path, count in counts.items() if count}
        return with_forms(network, forms)

    def work() -> dict[str, Any]:
        carried = {path: each.carried for path, each in patterns.items()}
        return counts_within(goal, carried, ratios, network, changed, context)._asdict()

    counts: Counts = context.journal.once(f"{name}.run_dct.counts", work)["counts"]
    return counts


def tell(counts: Counts, patterns: Mapping[str, Ranked], ratios: Ratios, context: Context) -> None:
    """Tell the user and the journal what the patterns of each layer carry and take."""
    for path, count in counts.items():
        each = patterns[path]
        kept, of, carried = each.order[:count], len(each.basis), each.carried[count - 1]
        ratio = ratios.get(path, {}).get(count)
        if count == SPATIAL:
            context.progress.say(f"run_dct, {path}: stays spatial")
            carried = ratio = 1.0
        else:
            taking = "" if ratio is None else f", in {ratio:.2f} of the layer's time"
            context.progress.say(
                f"run_dct, {path}: {count} of {of} patterns carry {carried:.1%}{taking}"
            )
        context.journal.note("bases", layer=path, kept=kept, of=of, energy=carried, ratio=ratio)


def with_forms(network: Network, made: Mapping[str, nn.Module], *, free: bool = False) -> Network:
    """A copy of the network in which these forms stand for their layers."""
    changed = network.copy()
    held = {
        name: form for name, form in network.held.items() if name.rpartition(".")[0] not in made
    }
    for path, form in made.items():
        put(changed.module, path, form)
        if not free:
            held[f"{path}.bases.weight"] = "fixed"
    edits = tuple(
        frequency_edit(path, form.count)  # type: ignore[arg-type]
        for path, form in made.items()
    )
    return replace(changed, edits=(*network.edits, *edits), held=held).copy()


def inputs_of(
    network: Network, paths: tuple[str, ...], context: Context, images: int
) -> dict[str, Tensor]:
    """{path: what the layer is given on training examples, (N, I, H, W)}.

    Of one that is called on several sizes, what it is given of the largest.
    """
    seen: dict[str, list[Tensor]] = {path: [] for path in paths}
    module = network.copy().module.eval()

    def keep(path: str) -> Any:
        return lambda _, inputs: seen[path].append(inputs[0].detach())

    hooks = [module.get_submodule(p).register_forward_pre_hook(keep(p)) for p in paths]
    with torch.no_grad():
        for inputs, _ in examples(network, context, images, BATCH):
            module(*(torch.as_tensor(x) for x in inputs))
    for hook in hooks:
        hook.remove()
    return {path: torch.cat(_largest(parts)) for path, parts in seen.items() if parts}


def _largest(parts: list[Tensor]) -> list[Tensor]:
    shape = max((part.shape[1:] for part in parts), key=torch.Size.numel)
    return [part for part in parts if part.shape[1:] == shape]

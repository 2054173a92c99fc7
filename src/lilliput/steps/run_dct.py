"""Run convolutions with large kernels in the frequency domain, where the target is faster so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import Schedule, train
from lilliput.distill.sources import Examples
from lilliput.errors import Refused
from lilliput.frequency.running import (
    basis_for,
    can_run,
    energies,
    running_form,
    strongest,
)
from lilliput.network import Network
from lilliput.prune.edits import frequency_edit
from lilliput.prune.edits.registry import put
from lilliput.prune.from_context import examples, repairer
from lilliput.prune.protect import matching_modules
from lilliput.search.running import timed_within
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.distill import Distill
from lilliput.steps.teaching import BatchSize, LearningRate, WeightDecay

BATCH = 64


@STAGES.register("run_dct")
class RunDct(Step):
    """A d×d convolution becomes m fixed pictures, each over every channel, and a 1×1 mixture.

    All kernels of a layer keep the same pictures: those that matter most on training examples. A
    layer changes only if its network is measured to be faster with it. It pays for kernels of 5×5
    and more; 3×3 kernels rarely can spare enough pictures.
    """

    name: ClassVar[str] = "run_dct"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = (
        "Wang et al., CNNpack, NIPS 2016, section 3.3; with the same bases for all kernels of a "
        "layer, which is ours"
    )

    basis: Literal["dct", "svd"] = Field("dct", description="cosines, or directions of the layer")
    keep: int | None = Field(None, ge=1, description="pictures of each layer, whatever they carry")
    energy: float = Field(
        0.95, gt=0, le=1, description="share of a layer's response that its pictures carry"
    )
    layers: tuple[str, ...] = Field(
        (), description="globs of layers to change; left out, those that are measured faster"
    )
    images: int = Field(256, ge=1, description="examples that the pictures are chosen by")
    epochs: int = Field(5, ge=0, description="of distillation from the original afterwards")
    learning_rate: LearningRate = 0.01
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 5e-4
    free: bool = Field(False, description="train the pictures too, for each channel its own")
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")

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
        if self.epochs and context.teacher is None and context.data.train.targets is None:
            raise Refused(
                "run_dct has nothing to learn from: no labels, and the original is a file",
                hint="give `epochs: 0`, or an original that is a torch network",
            )

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network()
        made = self._made(network, context)
        chosen = list(made) if self.layers else self._faster(network, made, candidate.id, context)
        changed = with_forms(network, {path: made[path] for path in chosen}, free=self.free)
        if not chosen:
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

    def _made(self, network: Network, context: Context) -> dict[str, nn.Module]:
        """{path: the running form of that layer}; those that drop nothing are left out."""
        layers = self._candidates(network)
        made: dict[str, nn.Module] = {}
        for path, inputs in inputs_of(network, tuple(layers), context, self.images).items():
            layer = layers[path]
            basis = basis_for(layer, self.basis)
            energy = energies(layer, basis, inputs)
            sides = (layer.kernel_size[0], layer.kernel_size[1])
            kept = strongest(energy, 1.0 if self.keep else self.energy, sides)[: self.keep]
            carried = float(energy[kept].sum() / energy.sum()) if energy.sum() > 0 else 1.0
            context.journal.note("bases", layer=path, kept=kept, of=len(energy), energy=carried)
            if self.layers or len(kept) < len(energy):
                made[path] = running_form(layer, basis, kept)
        return made

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
        source = Examples(context.data, context.task, network.preprocessing, self.batch_size)
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
    """{path: what the layer is given on training examples, (N, I, H, W)}."""
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
    return {path: torch.cat(parts) for path, parts in seen.items() if parts}

"""The one training loop of the house.

Lightning Fabric runs underneath, so that a GPU or several machines are a setting and not a second
loop. A training with a checkpoint folder survives `kill -9`: it goes on at the last finished epoch
and ends with the same weights as an undisturbed one.
"""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lilliput.atomic import write_atomically
from lilliput.context import Context, Precision
from lilliput.distill.answers import Answer, Answers, answers_like
from lilliput.distill.companions import Companion, keepers
from lilliput.distill.losses import LossTerm, Observed, Taps, Truth
from lilliput.distill.memory_format import in_format, memory_format_of
from lilliput.distill.sources import Source
from lilliput.distill.speed import torch_threads
from lilliput.errors import LilliputError
from lilliput.network import Network, flat_outputs


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Stochastic gradient descent with Nesterov momentum ("sgd") or Adam ("adam"); the learning rate
    rises linearly over the first `warmup` share of the steps and falls to zero along a cosine.
    Biases and normalisation scales are not decayed. With a teacher, the augmented epochs repeat
    after `views` of them, so that it is asked about each batch once; 0: every epoch is new.
    """

    epochs: int
    learning_rate: float
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup: float = 0.03
    clip: float = 5.0
    views: int = 4

    def rate(self, share: float) -> float:
        """Learning rate after `share` (0..1) of all steps."""
        if share < self.warmup:
            return self.learning_rate * (share + 1e-3) / (self.warmup + 1e-3)
        along = (share - self.warmup) / max(1.0 - self.warmup, 1e-9)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(along, 1.0)))


@dataclass(frozen=True)
class EpochFacts:
    """What is told after each epoch: mean loss, learning rate at its end, seconds it took.

    `asking` of these went to a teacher whose answers were not known.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float
    asking: float


def train(
    network: Network,
    terms: Sequence[LossTerm],
    source: Source,
    schedule: Schedule,
    context: Context,
    *,
    key: str,
    teacher: Network | None = None,
    companions: Sequence[Companion] = (),
    on_epoch: Callable[[EpochFacts], None] | None = None,
) -> Network:
    """Train a copy of `network` on the weighted sum of `terms`; returns it in eval mode.

    Weights that the network holds to a form (zeros, shared values) are held to it. Each epoch's
    loss is in the journal, for those who watch.

    Args:
        network: The student; left untouched.
        terms: Loss terms; those that are modules (adapters) are trained along and thrown away.
        source: Batches.
        schedule: Length and learning rate.
        context: Seed, device, checkpoints, progress.
        key: Names this training: seeds its shuffling and its checkpoint.
        teacher: Runs in eval mode without gradients, and is not changed. It is not asked where
            the truth is all that counts: then this is plain training, to the last bit.
        companions: Go along beside those that hold the weights to their forms.
        on_epoch: Called after each epoch.

    Raises:
        LilliputError: If the loss is no longer finite.
    """
    if schedule.epochs == 0:
        return network.copy()
    torch.manual_seed(context.derived_seed("train", key))
    along = (*keepers(network.held), *companions)
    if all(type(term) is Truth for term in terms):
        teacher = None
    job = _Job(network.copy(), terms, source, schedule, context, teacher, along)
    checkpoint = _Checkpoint(context.checkpoints, key)
    with torch_threads(context.train_threads):
        for epoch in range(checkpoint.restore(job), schedule.epochs):
            began = time.perf_counter()
            loss = job.run_epoch(epoch, label=f"train {key}")
            checkpoint.save(job, epoch + 1)
            rate = schedule.rate((epoch + 1) / schedule.epochs)
            seconds = time.perf_counter() - began
            facts = EpochFacts(epoch + 1, schedule.epochs, loss, rate, seconds, job.asking)
            context.journal.note("epoch", training=key, **asdict(facts), **job.facts())
            if on_epoch is not None:
                on_epoch(facts)
    return job.finished()


FABRIC_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
}


class _Job:
    """A training in progress: student, adapters, optimiser, teacher."""

    def __init__(
        self,
        student: Network,
        terms: Sequence[LossTerm],
        source: Source,
        schedule: Schedule,
        context: Context,
        teacher: Network | None,
        companions: Sequence[Companion],
    ) -> None:
        from lightning_fabric import Fabric

        # It announces its settings on stderr, between our lines of progress.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self.student, self.terms, self.source = student, terms, source
        self.schedule, self.context = schedule, context
        self.adapters = nn.ModuleList([t for t in terms if isinstance(t, nn.Module)])
        self.fabric = Fabric(
            accelerator=context.device,
            devices=1,
            precision=FABRIC_PRECISION[context.train_precision],
        )
        self.teacher = None if teacher is None else teacher.copy().module.eval()
        if self.teacher is not None and teacher is not None:
            teaching = memory_format_of(teacher, self.teacher)
            in_format(self.teacher.to(self.fabric.device), teaching)
        memory_format = memory_format_of(student, student.module.train())
        self._frozen = {n: p.requires_grad for n, p in student.module.named_parameters()}
        self.companions, self.share, self.asking = companions, 0.0, 0.0
        student.module.to(self.fabric.device)
        for companion in companions:
            companion.begin(student.module)
        optimizer = make_optimizer(nn.ModuleList([student.module, self.adapters]), schedule)
        for companion in companions:
            companion.optimizing(optimizer)
        self.module, self.optimizer = self.fabric.setup(
            in_format(student.module, memory_format), optimizer
        )
        self.adapters.to(self.fabric.device)
        self.taps = tuple(dict.fromkeys(tap for term in terms for tap in term.taps))
        theirs = (tap for term in terms for tap in getattr(term, "teacher_taps", term.taps))
        self.teacher_taps = tuple(dict.fromkeys(theirs))
        self.views = 0 if self.teacher is None else schedule.views
        self.answers = self._answers()

    def _answers(self) -> Answers | None:
        """A memory for the teacher's answers, where views come again and all of them fit.

        In this training, or in others of the run.
        """
        views, folder = self.views, self.context.answers
        again = views < self.schedule.epochs
        if views == 0 or not (again or folder):
            return None
        for inputs, _ in self.source.epoch(self.context.rng("size of an answer")):
            answer = self._teach(tuple(x.to(self.fabric.device) for x in inputs))
            found = answers_like(inputs, answer, self.source.steps(), views, folder)
            return found if found and (again or found.store) else None
        return None

    def run_epoch(self, epoch: int, *, label: str) -> float:
        source, total, seen, self.asking = self.source, 0.0, 0, 0.0
        steps, view = source.steps(), self.answers.view(epoch) if self.answers else epoch
        rng = self.context.rng("views" if self.views else label, view)
        torch.manual_seed(self.context.derived_seed(label, "torch", epoch))
        if self.answers:
            self.answers.begin(view)
        self.module.train()
        text = f"{label}, epoch {epoch + 1} of {self.schedule.epochs}"
        for inputs, target in self.context.progress.track(
            source.epoch(rng), label=text, total=steps
        ):
            self._advance((epoch + seen / steps) / self.schedule.epochs)
            total += self._step(inputs, target, (view, seen))
            seen += 1
        if seen == 0:
            raise LilliputError(
                "the training split is smaller than one batch",
                hint="lower `batch_size` or give more training examples",
            )
        if self.answers:
            self.answers.end(view)
        for companion in self.companions:
            companion.epoch_over()
        return total / seen

    def _advance(self, share: float) -> None:
        self.share = share
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(share)

    def _step(
        self, inputs: tuple[Tensor, ...], target: Tensor | None, batch: tuple[int, int]
    ) -> float:
        device = self.fabric.device
        inputs = tuple(x.to(device) for x in inputs)
        target = None if target is None else target.to(device)
        loss = self._loss(inputs, target, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        for companion in self.companions:
            companion.graded(self.share)
        if self.schedule.clip > 0:
            for parameters in self._kinds():
                nn.utils.clip_grad_norm_(parameters, self.schedule.clip)
        self.optimizer.step()
        for companion in self.companions:
            companion.stepped(self.share)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise LilliputError(
                f"the loss became {value} at learning rate "
                f"{self.optimizer.param_groups[0]['lr']:.3g}",
                hint="lower `learning_rate`, and check the inputs with `lilliput check`",
            )
        return value

    def _kinds(self) -> list[list[nn.Parameter]]:
        """Weights, and what companions put beside them: each kind has gradients of its own size."""
        added = [p for companion in self.companions for p in companion.parameters()]
        known = set(map(id, added))
        return [[p for p in self.student.module.parameters() if id(p) not in known], added]

    def _loss(
        self, inputs: tuple[Tensor, ...], target: Tensor | None, batch: tuple[int, int]
    ) -> Tensor:
        taught, taught_features = self._taught(inputs, batch)
        with Taps(self.student.module, self.taps) as tapped:
            output = flat_outputs(self.module(*inputs))[0]
        seen = Observed(output, target, taught, tapped.features, taught_features)
        for companion in self.companions:
            companion.observed(seen, self.share)
        return torch.stack([term.weight * term(seen) for term in self.terms]).sum()

    def _taught(self, inputs: tuple[Tensor, ...], batch: tuple[int, int]) -> Answer:
        if self.answers is None:
            return self._teach(inputs)
        output, features = self.answers.of(batch, lambda: self._teach(inputs))
        assert output is not None
        device = self.fabric.device
        return output.to(device), {tap: x.to(device) for tap, x in features.items()}

    def _teach(self, inputs: tuple[Tensor, ...]) -> Answer:
        if self.teacher is None:
            return None, {}
        began, taps = time.perf_counter(), Taps(self.teacher, self.teacher_taps)
        with torch.no_grad(), self.fabric.autocast(), taps as tapped:
            output = flat_outputs(self.teacher(*inputs))[0]
        self.asking += time.perf_counter() - began
        return output.float(), {tap: x.float() for tap, x in tapped.features.items()}

    def facts(self) -> dict[str, float]:
        return {name: value for c in self.companions for name, value in c.facts().items()}

    def finished(self) -> Network:
        for companion in self.companions:
            companion.end()
        module = in_format(self.student.module.to("cpu").eval(), torch.contiguous_format)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self._frozen[name])
            parameter.grad = None
        return self.student

    def state(self) -> dict[str, Any]:
        return {
            "student": self.student.module.state_dict(),
            "adapters": self.adapters.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "companions": [companion.state() for companion in self.companions],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.student.module.load_state_dict(state["student"])
        self.adapters.load_state_dict(state["adapters"])
        self.optimizer.load_state_dict(state["optimizer"])
        for companion, kept in zip(self.companions, state["companions"], strict=True):
            companion.load_state(kept)


def make_optimizer(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD or Adam over the trainable parameters; one-dimensional ones are not decayed."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise LilliputError(
            "the network has no trainable parameters", hint="set requires_grad on its weights"
        )
    if schedule.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=schedule.learning_rate)
    return torch.optim.SGD(
        groups, lr=schedule.learning_rate, momentum=schedule.momentum, nesterov=True
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


class _Checkpoint:
    """The state after the last finished epoch, replaced atomically; nothing without a folder."""

    def __init__(self, folder: Path | None, key: str) -> None:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in key)
        self.path = None if folder is None else folder / f"{safe}.training.pt"

    def restore(self, job: _Job) -> int:
        """Load the state and return the number of finished epochs (0 without a checkpoint).

        Raises:
            LilliputError: It is the checkpoint of another network.
        """
        if self.path is None or not self.path.exists():
            return 0
        stored = torch.load(self.path, weights_only=True)
        try:
            job.load_state(stored["state"])
        except (RuntimeError, ValueError) as error:
            raise LilliputError(
                f"the checkpoint is of a training of another network ({_last_line(error)})",
                at=str(self.path),
                hint="delete it to begin anew, or go on with the settings that it was begun with",
            ) from error
        return int(stored["epoch"])

    def save(self, job: _Job, epoch: int) -> None:
        if self.path is None:
            return
        # Into memory first: torch's own writer crashes on a full disk, where ours explains.
        buffer = io.BytesIO()
        torch.save({"epoch": epoch, "state": job.state()}, buffer)
        write_atomically(self.path, buffer.getbuffer())

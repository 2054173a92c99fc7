"""What a knowledgeable user gets from today's tools: cut by torch-pruning, distilled, int8.

The network is cut to half its multiply-adds in widths that runtimes like, distilled from the
original as long as ours may train, and quantized by each tool; the original without a cut is
quantized too. Which of the files is best is decided by the claim that asks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from benchmarks.harness import Options
from benchmarks.int8 import IMAGES, calibration_batches, peers
from benchmarks.peers.pruned import cut_by_torch_pruning
from benchmarks.resnets import context_for
from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.export.onnx_file import export_network
from lilliput.prune import network_macs
from lilliput.steps.distill import Distill

ROUND_TO = 8
SHARE = 0.5
WHOLE, CUT = "whole", "half its multiply-adds by torch-pruning 1.6.1, distilled"


def files_of_today(options: Options, network: str, *, epochs: int) -> dict[str, Path]:
    """{how it was made: file}; made once a network and kept, whichever runtime asks first."""
    folder = options.home / "work" / f"today-{network}{'-smoke' if options.smoke else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    trained = replace(options, name=folder.name).parts / "cut.onnx"
    with FileLock(folder / ".lock"):
        context = context_for(options, network, folder, seed=0, threads=torch.get_num_threads())
        floats = {
            WHOLE: _kept(folder / "whole.onnx", lambda path: _whole(context, path)),
            CUT: _kept(trained, lambda path: _cut(context, epochs, path)),
        }
        found = {f"{CUT}, fp32": floats[CUT].path}
        for kind, artifact in floats.items():
            found |= _quantized(kind, artifact, folder, context, options)
    return found


def _kept(path: Path, make: Callable[[Path], None]) -> Artifact:
    if not path.is_file():
        partial = path.with_suffix(".partial.onnx")
        make(partial)
        shutil.move(partial, path)
    return Artifact.of(path)


def _whole(context: Context, path: Path) -> None:
    export_network(context.original.the_network(), path)


def _cut(context: Context, epochs: int, path: Path) -> None:
    original = context.original.the_network()
    cut = cut_by_torch_pruning(original, SHARE * network_macs(original), round_to=ROUND_TO)
    trained = Distill(epochs=epochs, learning_rate=0.03).apply(
        Candidate("today", network=cut), context
    )
    export_network(trained.the_network(), path)


def _quantized(
    kind: str, artifact: Artifact, folder: Path, context: Context, options: Options
) -> dict[str, Path]:
    """The file by each quantizer, all calibrated with the same examples."""
    made = {}
    own = replace(context, original=Candidate(kind, artifact=artifact))
    batches = calibration_batches(own, 32 if options.smoke else IMAGES)
    for name, make in peers(options).items():
        slug = "".join(c if c.isalnum() else "-" for c in name.lower())
        path = folder / f"{artifact.path.stem}.{slug}.onnx"
        if not path.is_file():
            options.log(f"  {kind}: {name}")
            make(artifact.path, batches, path)
        made[f"{kind}, {name}"] = path
    return made

"""A folder to start from: a model, its weights, and a recipe that runs."""

from __future__ import annotations

from pathlib import Path

from lilliput.atomic import write_atomically
from lilliput.context import Progress, SilentProgress
from lilliput.errors import LilliputError, Missing
from lilliput.noun import Noun
from lilliput.runtimes.opening import installed_version
from lilliput.verbs.schema import schema

EPOCHS = 8

MODEL = '''\
"""The network to be compressed: put yours here, and let `build` return it."""

from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (x + self.bn2(self.conv2(y))).relu()


class DigitNet(nn.Module):
    """Grey digits of 8 × 8 pixels, (N, 1, 8, 8), to ten classes, (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.block1, self.block2 = Block(16), Block(16)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.block3, self.block4 = Block(32), Block(32)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.stem(x).relu()))
        x = self.block4(self.block3(self.down(x).relu()))
        return self.classify(x.mean((2, 3)))


def build() -> nn.Module:
    """What the recipe calls; it takes no arguments."""
    return DigitNet()
'''

RECIPE = """\
# yaml-language-server: $schema=recipe.schema.json
# A lilliput recipe. Edit it and run it:
#     lilliput check recipe.yaml    # all mistakes at once, nothing is run
#     lilliput run recipe.yaml
# Units are in the names. Relative paths begin at this file's folder.

model:
  factory: model.py:build      # file.py:function that returns an nn.Module
  weights: net.safetensors     # or a state dict in .pt or .pth

data: digits                   # a folder of pictures, an .npz, file.py:function, a named one
task: classification
preprocessing: {channels: 1}   # (picture × scale - mean) / std; scale is 1/255

target: onnxruntime            # where the files will run
budget: {max_drop: 1.0}        # also max_latency_ms, max_bytes, max_macs, max_params

stages:
  - prune_channels: {keep_macs: 0.5}
  - distill: {epochs: 20}
  - export: {}
  - quantize: {}
"""


FILES = ("model.py", "net.safetensors", "recipe.schema.json", "recipe.yaml")


class Started(Noun):
    """What `new` wrote, and the command to go on with."""

    folder: Path
    files: tuple[str, ...]
    next: str

    def __str__(self) -> str:
        return f"wrote {', '.join(self.files)} in {self.folder}\nnext: {self.next}"


def new(folder: Path | str, *, progress: Progress | None = None) -> Started:
    """Write `model.py`, `net.safetensors` (trained on the embedded digits) and `recipe.yaml`.

    `recipe.schema.json` goes beside them: the recipe names it for editors, which then complete
    and underline without a network.

    Raises:
        LilliputError: the folder already holds one of them; nothing is overwritten.
        Missing: training needs the workshop extra.
    """
    folder = Path(folder)
    taken = [name for name in FILES if (folder / name).exists()]
    if taken:
        raise LilliputError(
            f"{str(folder)!r} already holds {' and '.join(taken)}",
            hint="choose another folder; nothing was written",
        )
    for package in ("torch", "scikit-learn"):
        if installed_version(package) is None:
            raise Missing(
                f"a starter trains a network, and {package} is not installed",
                hint='pip install "lilliput[train]"',
            )
    write_atomically(folder / "model.py", MODEL.encode())
    _train(folder, progress or SilentProgress())
    schema(out=folder / "recipe.schema.json")
    write_atomically(folder / "recipe.yaml", RECIPE.encode())
    return Started(
        folder=folder,
        files=FILES,
        next=f"lilliput run {folder / 'recipe.yaml'}",
    )


def _train(folder: Path, progress: Progress) -> None:
    """Teach the starter's network the digits, with the loop that every step uses."""
    from lilliput.candidate import Candidate
    from lilliput.context import Context
    from lilliput.data.sources import load_data
    from lilliput.models.source import load_network
    from lilliput.models.store import save_network
    from lilliput.preprocessing import Preprocessing
    from lilliput.steps.finetune import Finetune
    from lilliput.target import Target
    from lilliput.tasks import task_of

    task = task_of("classification")
    data = task.prepare(load_data("digits", task=task, seed=0))
    network = load_network(
        f"{folder / 'model.py'}:build", preprocessing=Preprocessing(channels=1), data=data
    )
    original = Candidate(id="starter", network=network)
    context = Context(
        data=data, task=task, target=Target(), original=original, folder=folder, progress=progress
    )
    training = Finetune(epochs=EPOCHS, learning_rate=0.1, batch_size=64)
    trained = training.apply(original, context)
    save_network(trained.the_network(), folder / "net.safetensors")

"""What lilliput itself costs: start-up, export in a search loop, bookkeeping of a run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, Options, Row
from lilliput.budget import Budget
from lilliput.runtimes.opening import open_session
from lilliput.target import Target

REPEATS = 11
ROOT = Path(__file__).parents[2]


def run(options: Options) -> Claim:
    repeats = 3 if options.smoke else REPEATS
    rows = (
        Row(
            name="import lilliput, in a fresh process",
            figure=statistics.median(import_seconds() for _ in range(repeats)),
            unit="s",
            goal="< 0.3",
        ),
        Row(
            name="modules of torch that the import loads",
            figure=float(torch_modules()),
            unit="modules",
            goal="== 0",
        ),
        Row(
            name="lilliput --help, whole process",
            figure=statistics.median(help_seconds() for _ in range(repeats)),
            unit="s",
            goal="< 0.5",
        ),
        Row(
            name="export, check and load of ResNet-20",
            figure=statistics.median(export_seconds(options, repeats)),
            unit="s",
            goal="< 0.5",
            note="one thread; verified against torch on random inputs, opened in ONNX Runtime",
        ),
        Row(
            name="bookkeeping, share of a run's wall time",
            figure=100 * bookkeeping_share(options),
            unit="%",
            goal="< 5",
            note="journal, stored networks and reports of a run on digits of about a minute",
        ),
    )
    says = (
        "Importing takes under 0.3 s and loads no torch; help takes under 0.5 s; a network is "
        "exported, checked and loaded in under 0.5 s; bookkeeping is under 5 % of a run"
    )
    return Claim(says=says, rows=rows)


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


def import_seconds() -> float:
    """Seconds of the import statement alone, files in the disk cache."""
    return float(
        _python(
            "import time; t = time.perf_counter(); import lilliput; print(time.perf_counter() - t)"
        )
    )


def torch_modules() -> int:
    """How many modules of torch `import lilliput` brings in."""
    return int(
        _python("import sys, lilliput; print(sum(m.split('.')[0] == 'torch' for m in sys.modules))")
    )


def help_seconds() -> float:
    command = Path(sys.executable).with_name("lilliput")
    began = time.perf_counter()
    subprocess.run([str(command), "--help"], capture_output=True, check=True)
    return time.perf_counter() - began


def export_seconds(options: Options, repeats: int) -> list[float]:
    """As a search does it: one thread, and one before that warms the exporter up."""
    import torch

    from lilliput.artifact import TensorSpec
    from lilliput.export.onnx_file import export_network
    from lilliput.models.source import load_network

    network = load_network(
        f"{ROOT}/benchmarks/networks/resnet_cifar.py:resnet20",
        weights=options.data / "models/cifar10_resnet20/model.safetensors",
        inputs=(TensorSpec(name="input", shape=(None, 3, 32, 32)),),
    )
    torch.set_num_threads(1)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats + 1):
            began = time.perf_counter()
            artifact = export_network(network, Path(folder) / f"{number}.onnx")
            with closing(open_session(artifact.path, Target())):
                seconds.append(time.perf_counter() - began)
    return seconds[1:]


def bookkeeping_share(options: Options) -> float:
    """Time inside journal, storage and report calls over the time of a whole run."""
    from lilliput import pipeline, staging
    from lilliput.runs.folder import RunFolder
    from lilliput.runs.journal import JournalFile
    from lilliput.verbs.compress import compress
    from lilliput.verbs.new import new

    spent = [0.0]
    places: list[tuple[Any, str]] = [
        (JournalFile, "_append"),
        (RunFolder, "write"),
        (RunFolder, "deliver"),
        (staging, "store"),
        (staging, "restore"),
        (pipeline, "store"),
        (pipeline, "restore"),
        (pipeline, "write_report"),
    ]
    with tempfile.TemporaryDirectory() as folder, _timed(places, spent):
        started = new(Path(folder) / "start")
        began = time.perf_counter()
        compress(
            f"{started.folder}/model.py:build",
            weights=started.folder / "net.safetensors",
            data="digits",
            budget=Budget(max_drop=2.0),
            time_budget_minutes=0.3 if options.smoke else 1.0,
            out=Path(folder) / "run",
        )
        whole = time.perf_counter() - began
    return spent[0] / whole


@contextmanager
def _timed(places: list[tuple[Any, str]], spent: list[float]) -> Iterator[None]:
    """Adds the outermost time inside the named functions to `spent[0]`."""
    depth = [0]

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                depth[0] -= 1
                if depth[0] == 0:
                    spent[0] += time.perf_counter() - began

        return call

    originals = [(owner, name, getattr(owner, name)) for owner, name in places]
    for owner, name, function in originals:
        setattr(owner, name, watched(function))
    try:
        yield
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)

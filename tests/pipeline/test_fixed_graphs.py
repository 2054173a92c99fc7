"""`compress` of what can be neither trained nor cut, or not be computed in int8."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.export.onnx_file import export_network
from lilliput.network import Network
from lilliput.steps.export import Export
from lilliput.steps.quantize import Quantize
from lilliput.testing import tiny_context
from lilliput.verbs.compress import compress

INPUTS = (TensorSpec(name="x", shape=(None, 3, 8, 8)),)


class Corners(nn.Module):
    """The mean of each quarter: not a weight in it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)


@pytest.fixture
def weightless(home: Path) -> str:
    network = Network(Corners().eval(), INPUTS, "corners")
    return str(export_network(network, home / "corners.onnx").path)


def test_where_nothing_runs_in_int8_the_float_files_are_the_result(
    home: Path, weightless: str
) -> None:
    # users-ask 3: "a net with only un-quantizable ops reports `int8: no gain` and exits 0"
    result = compress(weightless, data=f"{home}/photos.py:examples", out=home / "run")
    assert result.exit_code == 0
    assert not result.failures
    assert result.best_file is not None
    assert result.best_file.read_bytes() == Path(weightless).read_bytes()
    report = (home / "run" / "report.md").read_text()
    assert "Int8: no gain for original: quantized 0 of 0 weighted layers" in report


def test_what_is_refused_for_another_reason_is_no_missing_gain(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    plain = Export().apply(Candidate("net", network=context.original.network), context)
    step = Quantize(when="possible", exclude=("stam",))
    assert step.has_work(plain, context)
    assert not Quantize(when="possible", exclude=("*",)).has_work(plain, context)
    assert Quantize(exclude=("*",)).has_work(plain, context)

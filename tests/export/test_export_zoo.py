"""Every network of the zoo leaves as a file that computes what torch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from lilliput.export.onnx_file import export_network
from lilliput.network import flat_outputs, output_names
from lilliput.testing.zoo import zoo

ZOO = zoo()
BY_THE_SECOND_EXPORTER = {
    "attention_of_width",
    "channel_shuffle_module",
    "functional_kernel",
    "instance_norm",
}


@pytest.mark.parametrize("name", ZOO)
def test_the_file_equals_the_network(name: str, tmp_path: Path) -> None:
    """users-ask 18, 22, 24: awkward graphs leave whole, whichever exporter could do it."""
    network = ZOO[name]()
    artifact = export_network(network, tmp_path / "net.onnx")
    if name not in BY_THE_SECOND_EXPORTER:
        assert artifact.facts["exporter"] == "torchscript"
    session = ort.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        inputs = network.example(batch, seed=batch)
        with torch.no_grad():
            wanted = network.module(*inputs)
        assert tuple(o.name for o in session.get_outputs()) == output_names(wanted)
        feeds = {s.name: x.numpy() for s, x in zip(network.inputs, inputs, strict=True)}
        for ours, theirs in zip(session.run(None, feeds), flat_outputs(wanted), strict=True):
            scale = max(1.0, float(theirs.abs().max()))
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4 * scale, rtol=0)


@pytest.mark.parametrize("name", ["residual", "zero_padded_shortcut", "shared_weights", "u_net"])
def test_nodes_with_weights_bear_the_names_of_modules(name: str, tmp_path: Path) -> None:
    """users-ask 25: what a user protects by its torch path is found in the file."""
    network = ZOO[name]()
    model = onnx.load(export_network(network, tmp_path / "net.onnx").path)
    modules = dict(network.module.named_modules())
    named = [n.name for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    known = [n for n in named if n.partition("_")[0] in modules or n in modules]
    made_by_us = [n for n in named if n.endswith("/Conv")]
    assert len(known) + len(made_by_us) == len(named)
    assert len(known) >= 3

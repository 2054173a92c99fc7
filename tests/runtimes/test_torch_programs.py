"""Exported torch programs run in a child, and nothing in them is ever unpickled."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.errors import LilliputError
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.target import Target


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    path = tmp_path_factory.mktemp("programs") / "net.pt2"
    torch.export.save(exported, str(path))
    return path, net


def test_a_program_computes_what_the_module_does(program: tuple[Path, nn.Module]) -> None:
    path, net = program
    session = open_session(path, Target(runtime="torch"))
    assert session.inputs[0].shape == (None, 3, 8, 8)
    assert session.outputs == ("output",)
    feeds = random_feeds(session.inputs, batch=3)
    with torch.no_grad():
        expected = net(torch.from_numpy(feeds[0])).numpy()
    np.testing.assert_allclose(session.run(feeds)[0], expected, atol=1e-6)
    session.bind(feeds)
    assert (session.burst(2) > 0).all()
    assert session.conditions["runtime"] == "torch"
    session.close()


def test_a_pickle_inside_is_refused(program: tuple[Path, nn.Module], tmp_path: Path) -> None:
    forged = tmp_path / "forged.pt2"
    with zipfile.ZipFile(program[0]) as archive, zipfile.ZipFile(forged, "w") as out:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("weights_config.json"):
                config = json.loads(content)
                next(iter(config["config"].values()))["use_pickle"] = True
                content = json.dumps(config).encode()
            out.writestr(name, content)
    with pytest.raises(LilliputError, match=r"forged\.pt2.*pickle"):
        open_session(forged, Target(runtime="torch"))


def test_other_archives_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.pt2"
    other.write_bytes(b"nothing")
    with pytest.raises(LilliputError, match=r"other\.pt2"):
        open_session(other, Target(runtime="torch"))
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(LilliputError, match=r"torch\.export archive"):
        open_session(other, Target(runtime="torch"))

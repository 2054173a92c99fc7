"""Event files, written by our tracker and read back by TensorBoard itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

Session = Callable[..., Any]


def read(folder: Path) -> EventMultiplexer:
    found = EventMultiplexer().AddRunsFromDirectory(str(folder))
    return found.Reload()


def points(found: EventMultiplexer, run: str, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(run, tag)]


def text(found: EventMultiplexer, tag: str) -> str:
    return found.Tensors(".", f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_curves_go_on_over_sessions(session: Session, tmp_path: Path):
    session("first", track=["tensorboard"])
    session("second", track=["tensorboard"])
    found = read(tmp_path / "run" / "tensorboard")
    assert set(found.Runs()) == {".", "small", "large"}
    assert points(found, ".", "loss/a") == [(1, 2.0), (2, 1.0)]
    assert points(found, ".", "stage_seconds/1_quantize") == [(1, 7.5)]
    assert text(found, "report") == "# How it went\n"
    assert text(found, "recommended") == "small"
    assert "quantize: {bits: 8" in text(found, "recipe")


def test_candidates_stand_in_the_table_of_settings(session: Session, tmp_path: Path):
    session("first", "second", track=["tensorboard"])
    found = read(tmp_path / "run" / "tensorboard")
    assert {tag: points(found, "small", tag) for tag in found.Runs()["small"]["scalars"]} == {
        "bytes": [(0, 10.0)],
        "latency_ms": [(0, 2.0)],
        "latency_ms_low": [(0, 1.5)],
        "latency_ms_high": [(0, 2.5)],
        "metric": [(0, 90.0)],
    }
    metadata = found.SummaryMetadata("small", "_hparams_/session_start_info")
    stored = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert stored["quantize.bits"].number_value == 8
    assert stored["file"].string_value == "files/small.bin"


def test_a_folder_that_was_thrown_away_is_written_anew(session: Session, tmp_path: Path):
    session("first", track=["tensorboard"])
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    session("second", track=["tensorboard"])
    found = read(tmp_path / "run" / "tensorboard")
    assert points(found, ".", "loss/a") == [(1, 2.0), (2, 1.0)]

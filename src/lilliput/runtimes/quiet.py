"""Switches off what the runtimes' libraries would report home, before they are imported."""

from __future__ import annotations

import os
import sys


def quiet_telemetry() -> None:
    """Keep onnxruntime and OpenVINO from writing ids and event files into the user's home.

    Call it before either is imported: onnxruntime 1.32 reads its variable when it is loaded, and
    OpenVINO reports its own import. OpenVINO falls back to a stub of its own where the telemetry
    package cannot be imported, so that name is blocked, unless somebody has already imported it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # blocks the import

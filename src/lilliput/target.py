"""Where a file will run: a runtime, a device, a number of threads, an instruction set."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from lilliput.errors import LilliputError
from lilliput.noun import Noun


class Target(Noun):
    """A runtime on a device.

    `isa` holds the *target's* CPU flags when they differ from this machine's ("avx2",
    "avx512_vnni", "neon", ...); empty means this machine. They decide whether 8-bit products may
    saturate (`saturates`), never a flag of the machine that happens to compress.
    """

    runtime: str = "onnxruntime"
    device: str = "cpu"
    threads: int = Field(1, ge=1, le=1024)
    precision: str = "f32"
    isa: tuple[str, ...] = ()

    @field_validator("isa", mode="before", json_schema_input_type=tuple[str, ...] | str)
    @classmethod
    def _one_flag_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @classmethod
    def parse(cls, text: str, **settings: Any) -> Target:
        """`"openvino"`, `"openvino:bf16"` (precision after the colon) → a Target."""
        runtime, _, precision = text.partition(":")
        if not runtime:
            raise LilliputError(f"target {text!r} names no runtime", hint="e.g. onnxruntime")
        if precision:
            settings["precision"] = precision
        return cls(runtime=runtime, **settings)

    @property
    def label(self) -> str:
        suffix = "" if self.precision == "f32" else f":{self.precision}"
        plural = "thread" if self.threads == 1 else "threads"
        return f"{self.runtime}{suffix}, {self.threads} {plural}"

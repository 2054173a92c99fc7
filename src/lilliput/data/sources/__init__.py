"""Data from where the user has it: folders, arrays, code, public sets by name."""

from __future__ import annotations

from lilliput.data.sources.loading import load_data

__all__ = ["load_data"]

"""A run told to people and to programs: rebuilt from its journal, any time."""

from lilliput.reports.files import Report, write_report

__all__ = ["Report", "write_report"]

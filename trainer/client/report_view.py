"""A result in a notebook: its report with its pictures."""

from collections.abc import Mapping

from trainer.contracts.reports import Report
from trainer.reports.report_html import report_body
from trainer.reports.report_text import Reader, plain_lines

_READER = Reader("bits")


class ReportView:
    """A report that a notebook shows with its tables and pictures, and a terminal as lines."""

    def __init__(self, report: Report, images: Mapping[str, bytes]) -> None:
        self.report = report
        self._images = images  # PNG by the names of the figures

    def __repr__(self) -> str:
        return "\n".join(plain_lines(self.report, _READER))

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        return report_body(self.report, self._images, _READER)

"""The report as a PDF: a cover, then a page for each sick run."""

from __future__ import annotations

import io

from analyzer.model import Report
from analyzer.report.figure import cover, figure, quietly, sick

NAME = "pdf"
SUFFIX = ".pdf"
DEFAULT_FILE = "report.pdf"
PAGES = 200


def render(report: Report, **_: object) -> bytes:
    runs = sick(report)[:PAGES]
    pages = [cover(report)] if len(report.runs) != 1 else []
    pages += [figure(run) for run in runs]
    from matplotlib.backends.backend_pdf import PdfPages

    buffer = io.BytesIO()
    with PdfPages(buffer, metadata={"Creator": "analyzer", "CreationDate": None}) as pdf:
        for page in pages:
            quietly(pdf.savefig, page)
    return buffer.getvalue()

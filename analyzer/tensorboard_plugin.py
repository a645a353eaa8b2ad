"""A tab in TensorBoard: the diagnosis of the runs that it shows, beside their scalars.

Found by TensorBoard through the entry point group ``tensorboard_plugins``; nothing here is loaded
by anything else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tensorboard.plugins import base_plugin
from werkzeug import Request, Response

import analyzer
from analyzer.report.html import render

FRESH = 30.0  # seconds that a report is shown again for; a run still training has hardly changed
TAB = """\
export async function render() {
  document.body.style.margin = "0";
  const frame = document.createElement("iframe");
  frame.title = "Diagnosis of these runs";
  frame.src = new URL("report", import.meta.url).href;
  frame.style.cssText = "border: 0; width: 100%; height: 100vh; display: block";
  document.body.append(frame);
}
"""
# The page needs its own inline style and scripts and nothing else; it says which by hash itself.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


class DiagnosisPlugin(base_plugin.TBPlugin):
    """Serves the HTML report of TensorBoard's log folders."""

    plugin_name = "analyzer"

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._folders = log_folders(context)
        self._lock = threading.Lock()
        self._page, self._made = "", float("-inf")

    def get_plugin_apps(self) -> Mapping[str, Callable[..., object]]:
        return {"/index.js": self._serve_tab, "/report": self._serve_report}

    def is_active(self) -> bool:
        return bool(self._folders)

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Diagnosis")

    def _serve_tab(self, environ: dict[str, object], start_response: Callable[..., object]) -> object:
        return _answered(Response(TAB, mimetype="text/javascript"), environ, start_response)

    def _serve_report(self, environ: dict[str, object], start_response: Callable[..., object]) -> object:
        if Request(environ).method != "GET":
            return _answered(Response("only GET", status=405), environ, start_response)
        response = Response(self._report(), mimetype="text/html")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return _answered(response, environ, start_response)

    def _report(self) -> str:
        with self._lock:  # one analysis at a time, however many tabs are open
            if time.monotonic() - self._made > FRESH:
                self._page = render(analyzer.analyze(self._folders))
                self._made = time.monotonic()
            return self._page


def log_folders(context: base_plugin.TBContext) -> list[str]:
    """The folders of ``--logdir`` and of ``--logdir_spec`` (``name:path,name:path``)."""
    flags = context.flags
    spec = getattr(flags, "logdir_spec", "") or ""
    named = [part.rpartition(":")[2] if not Path(part).exists() else part for part in spec.split(",") if part]
    return [folder for folder in [context.logdir or "", *named] if folder]


def _answered(
    response: Response, environ: dict[str, object], start_response: Callable[..., object]
) -> object:
    return response(environ, start_response)  # type: ignore[arg-type]

"""Chromium with the HTML report in it. Without a Chromium the tests are skipped, in CI they fail."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the reports built by hand

from analyzer.model import Report
from analyzer.report import render

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ALLOWED = ("file://", "data:", "blob:")


def _executable() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    message = "no Chromium: install it (Debian: apt-get install chromium) or name it in $CHROMIUM"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    executable = _executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page with a report, and what it complained of or asked the network for."""

    def __init__(self, page: object, path: Path) -> None:
        self.page = page
        self.meant: Callable[[str], bool] = lambda text: False
        self.path = path
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        page.on("dialog", self._dismiss)
        page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def go(self, hash_: str = "") -> None:
        self.page.goto("about:blank")
        self.page.goto(f"file://{self.path}{hash_}")

    def _dismiss(self, dialog: object) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def check_quiet(self) -> None:
        assert self.dialogs == []
        assert [text for text in self.complaints if not self.meant(text)] == []
        assert [url for url in self.requests if not url.startswith((*ALLOWED, "about:"))] == []


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Report], Path]:
    """Writes a report once per name."""
    folder = tmp_path_factory.mktemp("reports")

    def write(name: str, report: Report) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            path.write_text(render(report, "html"), encoding="utf-8")
        return path

    return write


@pytest.fixture
def opened(chromium: object, written: Callable[[str, Report], Path]) -> Iterator[Callable[..., Opened]]:
    """``opened(name, report, hash, **context options)``; in the end nothing may have gone wrong."""
    contexts: list[object] = []
    pages: list[Opened] = []

    def open_(name: str, report: Report, hash_: str = "", **options: object) -> Opened:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(20_000)  # ms
        contexts.append(context)
        found = Opened(context.new_page(), written(name, report))
        pages.append(found)
        found.go(hash_)
        return found

    yield open_
    for context in contexts:
        context.close()
    for page in pages:
        page.check_quiet()

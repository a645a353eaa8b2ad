"""The page as a whole: inert, accessible, on paper, on a phone, with a thousand runs, as a picture."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import report_fixtures as fixtures
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from analyzer.model import Histograms, Report, RunReport
from analyzer.report import render

MIXED = fixtures.mixed()
ONE = fixtures.report(fixtures.overfitting_report())


def histograms() -> Histograms:
    return Histograms(
        tag="layer/weights", steps=np.arange(3.0), wall_times=np.zeros(3), minimum=np.zeros(3), maximum=np.full(3, 4.0),
        count=np.full(3, 4.0), total=np.zeros(3), total_squares=np.zeros(3), offsets=np.array([0, 2, 4, 6]),
        edges_left=np.tile([0.0, 2.0], 3), edges_right=np.tile([2.0, 4.0], 3), counts=np.tile([1.0, 3.0], 3),
    )  # fmt: skip


def full_report() -> RunReport:
    """A run in which every part of the page has something to show."""
    run = fixtures.overfitting_report()
    tensors = fixtures.checkpoint_report().layers
    return replace(run, run=replace(run.run, histograms=(histograms(),)), layers=tensors)


FOREIGN = "script, iframe, object, embed, img, form, link, base"
FULL = fixtures.report(full_report())


def unfold(page: Any) -> None:
    for _ in range(2):  # a fold may hold folds
        page.evaluate("document.querySelectorAll('details').forEach((fold) => fold.unfold())")


def test_hostile_names_are_shown_and_do_nothing(opened: Callable[..., Any]) -> None:
    runs = tuple(fixtures.hostile_report(text) for text in fixtures.HOSTILE)
    problems = tuple(problem for run in runs for problem in run.problems)
    page = opened("hostile", Report(runs, problems)).page
    addresses = page.locator("#runs tbody th a").evaluate_all("links => links.map((a) => a.hash)")
    keys = [parse_qs(address.removeprefix("#"))["run"][0] for address in addresses]
    assert len(set(keys)) == len(runs)
    for i, address in enumerate(addresses):
        page.evaluate(f"location.hash = {address!r}")
        expect(page.locator("section.run")).to_have_attribute("data-run", keys[i])
        unfold(page)
        assert (
            page.evaluate("(f) => document.querySelector('main').querySelectorAll(f).length", FOREIGN) == 0
        ), i
        links = page.evaluate("[...document.links].map((a) => a.href)")
        assert all(link.startswith(("https://", "file://")) for link in links), i
    together = "#" + "&".join(a.removeprefix("#").replace("run=", "compare=") for a in addresses[:5])
    page.evaluate("(hash) => { location.hash = hash; }", together)
    expect(page.locator("h2").first).to_have_text("5 runs compared")


def test_markup_cannot_be_made_from_text_even_by_our_own_script(opened: Callable[..., Any]) -> None:
    found = opened("one", ONE)
    found.meant = lambda text: "TrustedHTML" in text or "requires 'Trusted" in text  # the refusal itself
    outcome = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'made'; } catch (e) { return e.name; } })()"
    assert found.page.evaluate(outcome) == "TypeError"


VIEWS = {"overview": (MIXED, ""), "run": (FULL, ""), "comparison": (MIXED, "#compare=exp3&compare=baseline")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(view: str, scheme: str, opened: Callable[..., Any]) -> None:
    report, hash_ = VIEWS[view]
    page = opened(f"axe-{view}", report, hash_, color_scheme=scheme, bypass_csp=True).page
    unfold(page)
    if view == "overview":
        page.locator("#runs .choose input").first.check()
    options = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}  # nothing else differs
    violations = Axe().run(page, options=options).response["violations"]
    assert [(v["id"], [n["html"][:120] for n in v["nodes"]][:3]) for v in violations] == []


def test_the_reader_chooses_the_colours(opened: Callable[..., Any]) -> None:
    page = opened("one", ONE, color_scheme="light").page

    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    button = page.locator("#tools button")
    light = background()
    button.click()
    assert background() == light
    button.click()
    assert background() != light and "dark" in button.get_attribute("aria-label")


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_sticks_out_at_any_width(view: str, opened: Callable[..., Any]) -> None:
    report, hash_ = VIEWS[view]
    page = opened(f"axe-{view}", report, hash_).page
    for width in (360, 390, 768, 1280, 1800):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_phone_reads_the_evidence_below_the_chart(opened: Callable[..., Any]) -> None:
    page = opened("one", ONE, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).page
    expect(page.locator("ol.notes li").first).to_be_visible()
    expect(page.locator(".note .label")).to_have_count(0)


def test_on_paper_a_run_is_unfolded_and_afterwards_as_before(opened: Callable[..., Any]) -> None:
    page = opened("full", FULL, color_scheme="dark").page
    before = page.locator("details[open]").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    expect(page.locator("details:not([open], .numbers)")).to_have_count(0)
    expect(page.locator(".tools").first).not_to_be_visible()
    expect(page.locator(".copy").first).not_to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    expect(page.locator("details[open]")).to_have_count(before)


def test_on_paper_the_runs_with_findings_follow_the_table(opened: Callable[..., Any]) -> None:
    page = opened("mixed", MIXED).page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("section.run h2").all_inner_texts() == ["fp16-lr3e-3", "epoch3.pt", "exp3"]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.locator("section.run")).to_have_count(0)


def test_a_page_without_scripts_still_tells_the_findings(opened: Callable[..., Any]) -> None:
    page = opened("mixed", MIXED, java_script_enabled=False).page
    expect(page.locator("noscript tbody tr")).to_have_count(7)
    expect(
        page.locator("noscript p", has_text="Validation loss is 42 % above its minimum").first
    ).to_be_visible()


def test_in_the_frame_of_a_notebook_everything_works(opened: Callable[..., Any], tmp_path: Path) -> None:
    srcdoc = escape(render(MIXED, "html"))
    frame = f'<!doctype html><title>x</title><iframe sandbox="allow-scripts" srcdoc="{srcdoc}"></iframe>'
    (tmp_path / "notebook.html").write_text(frame, encoding="utf-8")
    found = opened("mixed", MIXED)
    found.page.goto(f"file://{tmp_path}/notebook.html")
    inside = found.page.frame_locator("iframe")
    inside.locator("#search").fill("exp3")
    inside.locator("text=exp3").first.click()
    expect(inside.locator("section.run h2")).to_have_text("exp3")
    inside.get_by_role("button", name="Log scale").click()
    inside.locator("text=← All runs").click()
    expect(inside.locator("#runs tbody tr")).to_have_count(1)
    inside.locator("#tools button").click()


def test_a_thousand_runs_open_and_are_searched(
    opened: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ((fixtures.overfitting_report(), f"sweep-{i:04d}") for i in range(1000))
    report = Report(tuple(replace(run, run=replace(run.run, name=name)) for run, name in names))
    found = opened("thousand", report)
    start = time.perf_counter()
    found.go()
    loaded = time.perf_counter() - start
    assert found.page.locator("h1").inner_text() == "▲ 1000 of 1000 runs would gain from a change"
    start = time.perf_counter()
    found.page.fill("#search", "sweep-0777")
    expect(found.page.locator("#runs tbody tr")).to_have_count(1)
    searched = time.perf_counter() - start
    start = time.perf_counter()
    found.page.click("text=sweep-0777")
    found.page.locator("figure.panel").first.wait_for()
    shown = time.perf_counter() - start
    with capsys.disabled():
        size = found.path.stat().st_size / 1e6
        print(
            f"\n1000 runs: {size:.1f} MB, opened in {loaded:.2f} s, searched in {searched:.2f} s, run shown in {shown:.2f} s"
        )


# Pictures. Fonts differ between machines, so what is compared is where ink of which colour lies.


def inked(image: Image.Image, box: dict[str, float], hue: str) -> np.ndarray:
    """Which columns of the box hold pixels of the hue."""
    pixels = np.asarray(
        image.convert("RGB").crop((box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])),
        int,
    )
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    masks = {
        "blue": (blue > red + 60) & (blue > green + 40),
        "orange": (red > blue + 90) & (red > green + 50),
    }
    return masks[hue].any(axis=0)


def picture(page: Any) -> tuple[Image.Image, dict[str, float]]:
    box = page.locator(".plot").first.bounding_box()
    return Image.open(io.BytesIO(page.screenshot(full_page=True))), box


def test_the_picture_has_both_curves_across_the_plot(opened: Callable[..., Any]) -> None:
    image, box = picture(opened("one", ONE).page)
    for hue in ("blue", "orange"):
        columns = inked(image, box, hue)[70:-30]
        assert columns.mean() > 0.95, hue


def test_the_picture_stays_as_it_was_committed(opened: Callable[..., Any]) -> None:
    """A coarse picture of the chart area: 48 × 16 blocks, blurred beyond any font."""
    image, box = picture(opened("one", ONE).page)
    area = image.convert("L").crop((box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]))
    small = np.asarray(area.resize((48, 16), Image.Resampling.BOX), int)
    reference = Path(__file__).parent / "chart.png"
    if not reference.exists():  # deleted to be renewed
        Image.fromarray(small.astype(np.uint8)).save(reference)
        pytest.fail(f"{reference} was missing and has been drawn: look at it, then run this again")
    difference = np.abs(small - np.asarray(Image.open(reference), int))
    assert np.mean(difference) < 3 and np.mean(difference > 24) < 0.03

"""The page in a real browser: Chromium, driven by playwright. AXE_JS names axe.min.js of axe-core, if it is there."""

import asyncio
import csv
import json
import os
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from made_runs import without_page

from genre_lightning.__main__ import main
from genre_lightning.learning.store import FeedbackStore
from genre_lightning.serving.app import create_app
from genre_lightning.serving.examples import add_inputs
from genre_lightning.serving.options import ServeOptions
from genre_lightning.serving.served import ServedRun
from genre_lightning.serving.service import Service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
expect = playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]
ATTACK = '<img src=x onerror="window.attacked=1"><script>window.attacked=1</script>'


class Site:
    """The service in a thread; the run behind it can be replaced, as a reload does."""

    def __init__(self, served, options):
        self.options, self.ready = options, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(served)), daemon=True)
        self._thread.start()
        assert self.ready.wait(30)

    async def _serve(self, served):
        self._loop = asyncio.get_running_loop()
        self._start(served)

        async def app(scope, receive, send):
            await self._app(scope, receive, send)

        config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, http="h11", ws="none", loop="asyncio")
        self.server = uvicorn.Server(config)
        task = asyncio.create_task(self.server.serve())
        while not self.server.started:
            await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        self.ready.set()
        await task
        self.service.close()

    def _start(self, served):
        self.service = Service(self.options, served)
        self.service.start()
        self._app = create_app(self.service)

    def reload(self, served):
        self._loop.call_soon_threadsafe(self._start, served)

    def stop(self):
        self.server.should_exit = True
        self._thread.join(20)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def with_inputs(tmp_path_factory, sample_csv):
    """A run with an input of each kind that people can type."""
    features = [
        {"column": "production_companies", "kind": "tags", "min_films": 1},
        {"column": "original_language", "kind": "category"},
        {"column": "runtime", "kind": "number"},
        {"column": "release_date", "kind": "date"},
        {"column": "tagline", "kind": "text"},
    ]
    run = tmp_path_factory.mktemp("inputs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        words = [f"--data.csv={sample_csv}", f"--data.features={json.dumps(features)}", f"--run_dir={run}"]
        assert main(["baseline", "tfidf_logreg", *words]) == 0
    served = ServedRun(run)
    add_inputs(served)  # as the service does after its start
    return served


@pytest.fixture
def site(request, tmp_path):
    served = request.getfixturevalue(getattr(request, "param", "counting"))
    queue = tmp_path / "queue.csv"
    with queue.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "text", "suggested", "genres", "reason"])
        rows.writerow(["1", ATTACK, f"A soldier goes to war. {ATTACK}", "War|Drama", "", "undecided"])
        rows.writerow(["2", "فيلم", "قصة حب في المدينة", "none", "", ""])
        rows.writerow(["3", "第三", "戦争の物語", "War", "", ""])
    options = ServeOptions(served.run.path, database=tmp_path / "feedback.db", queue=queue, similar=20)
    site = Site(served, options)
    yield site
    site.stop()


@pytest.fixture
def open_page(browser, site):
    """Opens the page; at the end nothing may have failed in it, or have been asked of another host."""
    contexts, problems = [], []

    def open_(width=1200, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: request.url.startswith(site.url) or problems.append(request.url))
        page.goto(site.url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


def rows_of(site):
    with FeedbackStore(site.options.database) as store:
        return list(store.rows())


def shot(page, name):
    """Keep a screenshot if SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_typing_shows_genres_and_a_correction_is_stored(open_page, site):
    page = open_page()
    page.get_by_label("Plot").fill(f"A detective hunts a killer in the city. {ATTACK}")
    page.wait_for_selector("#genres li.decided")
    assert page.locator("#genres li:visible").count() >= 8
    page.wait_for_selector("#explanation:not([hidden])")
    assert ATTACK in page.locator("#explained-text").inner_text()
    page.wait_for_selector("#similar-films li")
    shot(page, "tag")
    page.click("#all-genres")
    page.get_by_role("checkbox", name="War").check()
    assert "+ War" in page.locator("#changed").inner_text()
    page.get_by_label("Your name").locator("visible=true").fill("eva")
    page.get_by_role("button", name="Send correction").click()
    expect(page.locator("#status")).to_have_text(re.compile("^Stored"))
    shot(page, "corrected")
    [row] = rows_of(site)
    assert (row.user, row.source) == ("eva", "http")
    assert "War" in row.genres
    assert "War" not in row.predicted
    assert page.evaluate("window.attacked") is None


def test_a_correction_is_of_the_text_that_was_tagged(open_page, site):
    page = open_page()
    page.get_by_label("Plot").fill("A detective hunts a killer in the city.")
    page.wait_for_selector("#genres li.decided")
    page.get_by_label("Your name").locator("visible=true").fill("eva")
    send = page.get_by_role("button", name="Send correction")
    expect(send).to_be_enabled()
    page.route("**/v1/tag", lambda route: None)  # no answer
    page.get_by_label("Plot").fill("A documentary about penguins.")
    expect(send).to_be_disabled()
    assert not site.options.database.exists()


def fill_inputs(page):
    page.get_by_label("Production companies").fill("Oberlicht Filmproduktion, Kite & Anchor")
    page.get_by_label("Original language").fill("en")
    page.get_by_label("Runtime").fill("90.5")
    page.get_by_label("Release date").fill("1995-10-30")
    page.get_by_label("Tagline").fill("No way out.")


@pytest.mark.parametrize("site", ["with_inputs"], indirect=True)
def test_inputs_are_typed_and_their_log_odds_drawn(open_page, with_inputs):
    page = open_page()
    fill_inputs(page)
    page.get_by_label("Plot").fill("A detective hunts a killer in the city.")
    page.wait_for_selector("#parts li")
    fields = {"production_companies": ["Oberlicht Filmproduktion", "Kite & Anchor"], "original_language": "en",
              "runtime": 90.5, "release_date": "1995-10-30", "tagline": "No way out."}  # fmt: skip
    film = {"overview": "A detective hunts a killer in the city.", **fields}
    genre = with_inputs.explain(film, {})["explanations"][0]
    names = ["Text", *(one["input"].capitalize().replace("_", " ") for one in genre["inputs"])]
    values = [sum(word["log_odds"] for word in genre["words"]), *(one["log_odds"] for one in genre["inputs"])]
    shown = [re.sub(r"[+-](0\.00)", r"\1", f"{value:+.2f}").replace("-", "−") for value in values]
    rows = [f"{name} {value}" for name, value in zip(names, shown, strict=True)]
    assert [" ".join(row.split()) for row in page.locator("#parts li").all_inner_texts()] == rows
    assert "No way out." in page.locator("#explained-text").inner_text()
    assert page.locator("datalist option").count() > 1
    shot(page, "inputs")
    labels = ("Production companies", "Original language", "Runtime", "Release date")
    place, example = next((i, one) for i, one in enumerate(with_inputs.examples) if len(one["fields"]) == 5)
    page.select_option("#examples", value=str(place))
    expect(page.get_by_label("Plot")).to_have_value(example["text"])
    assert [page.get_by_label(label).input_value() for label in labels] == [
        ", ".join(example["fields"]["production_companies"]),
        example["fields"]["original_language"],
        f"{example['fields']['runtime']:g}",
        example["fields"]["release_date"],
    ]
    for label in labels:
        page.get_by_label(label).fill("")
    page.wait_for_selector("#explanation", state="hidden")
    page.wait_for_selector("#explanation:not([hidden])")
    assert not page.locator("#explained-parts").is_visible()


def test_thresholds_and_examples_change_the_genres(open_page):
    page = open_page()
    page.select_option("#examples", index=1)
    page.wait_for_selector("#genres li.decided")
    assert page.locator("#example-genres").inner_text().startswith("In the data: ")
    fitted = page.locator("#genres li.decided").count()
    page.locator("#shift").fill("-2")
    assert page.locator("#genres li.decided").count() > fitted
    page.locator("#shift").fill("2")
    assert page.locator("#genres li.decided").count() < fitted


def test_queue_is_walked_by_the_keyboard_alone(open_page, site):
    page = open_page()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#queue-film:not([hidden])")
    assert ATTACK in page.locator("#queue-text").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#queue-user")).to_be_focused()
    page.keyboard.type("eva")
    shot(page, "queue")
    page.keyboard.press("Enter")
    expect(page.locator("#queue-name")).to_have_text("فيلم")
    names = page.locator("#queue-genres input").evaluate_all("boxes => boxes.map((box) => box.value)")
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#queue-name")).to_have_text("第三")
    page.keyboard.press("Enter")
    expect(page.locator("#queue-name")).to_have_text("فيلم")
    assert page.locator("#queue-genres input:checked").count() == 1
    page.keyboard.press("Enter")
    expect(page.locator("#queue-place")).to_have_text(re.compile("^Nothing left"))
    found = {row.film: set(row.genres) for row in rows_of(site)}
    assert found == {"1": {"War", "Drama"}, "3": {"War"}, "2": {names[0]}}
    assert page.evaluate("window.attacked") is None


def test_a_reload_while_typing_is_shown_and_loses_nothing(open_page, site, encoder):
    page = open_page()
    plot = page.get_by_label("Plot")
    plot.press_sequentially("A detective hunts", delay=5)
    page.wait_for_selector("#genres li.decided")
    site.reload(encoder)
    plot.press_sequentially(" a killer in the city", delay=5)
    expect(page.locator("#run-name")).to_have_text(re.compile("^encoder"))
    assert page.get_by_label("Title").is_visible()
    assert page.get_by_label("Plot").input_value() == "A detective hunts a killer in the city"
    page.wait_for_selector("#genres li")


def test_model_tab_has_the_metrics_and_the_report(open_page, counting):
    page = open_page()
    page.get_by_role("tab", name="Model").click()
    assert counting.checkpoint in page.locator("#model-about").inner_text()
    assert page.locator("#model-genres tbody tr").count() == len(counting.genres)
    page.get_by_role("button", name="Show the report").click()
    assert page.frame_locator("#report").get_by_text("Decision policies").first.inner_text()
    shot(page, "model")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("site", ["with_inputs"], indirect=True)
def test_page_fits_and_has_no_accessibility_violation(open_page, width, scheme):
    page = open_page(width, 844, scheme)
    fill_inputs(page)
    page.get_by_label("Plot").fill("جندي يذهب إلى الحرب. A soldier goes to war. 戦争の物語" + "x" * 300)
    page.wait_for_selector("#similar-films li")
    page.wait_for_selector("#parts li")
    for tab in ("Tag", "Queue", "Model"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)  # the bars' and the tabs' transitions
        shot(page, f"{tab.lower()}-{width}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if axe := os.environ.get("AXE_JS"):
            page.evaluate(Path(axe).read_text())
            tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
            found = page.evaluate("tags => axe.run({runOnly: tags})", tags)
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_right_to_left_text_is_aligned_by_its_own_direction(open_page):
    page = open_page()
    page.get_by_label("Plot").fill("قصة حب في المدينة")
    page.wait_for_selector("#explanation:not([hidden])")
    for place in ("#explained-text", "textarea"):
        assert page.locator(place).evaluate("one => one.matches(':dir(rtl)')")


def test_a_token_is_asked_for_once(browser, counting, tmp_path, make_token):
    options = replace(ServeOptions(counting.run.path, database=tmp_path / "f.db"), tokens=(make_token("t" * 20),))
    site = Site(counting, options)
    try:
        page = browser.new_page()
        page.goto(site.url)
        page.get_by_role("textbox", name="Token").fill("t" * 20)
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        page.close()
    finally:
        site.stop()

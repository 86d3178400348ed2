"""The viewers in a real browser: JupyterLab in Debian's Chromium, moved with the keyboard.

Chromium or Playwright missing: the tests are skipped and say why. MEDKIT_REQUIRE_BROWSER=1, as CI sets it, makes that a failure.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "nbs" / "how_to" / "view_slices.ipynb"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
]
PICTURE_BYTES = """async picture => {
    const data = await (await fetch(picture.src)).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    return [data.byteLength, ...digest].join();
}"""

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def no_browser(why: str):
    if os.environ.get("MEDKIT_REQUIRE_BROWSER") == "1":
        pytest.fail(f"MEDKIT_REQUIRE_BROWSER=1, but {why}")
    pytest.skip(why)


@pytest.fixture(scope="module")
def playwright():
    if CHROMIUM is None:
        no_browser("Chromium is not installed: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        no_browser("Playwright is not installed: pip install playwright")
    with sync_playwright() as started:
        yield started


def own_folders(folder: Path) -> dict[str, str]:
    "An environment in which Jupyter neither reads nor writes anything of the user's."
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
             "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    return {**os.environ, **{name: str(folder / name.lower()) for name in names}, "MEDKIT_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    "Where the server listens, with its token, once it says so."
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        for file in runtime.glob("jpserver-*.json"):
            try:
                facts = json.loads(file.read_text())
            except ValueError:
                continue  # still being written
            assert facts["hostname"] == "127.0.0.1" and len(facts["token"]) >= 40
            return f"{facts['url']}lab/tree/{NOTEBOOK.name}?reset&token={facts['token']}"
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, playwright):
    "The address of a JupyterLab that serves a copy of the notebook, started as `make lab` starts it."
    folder = tmp_path_factory.mktemp("lab")
    (folder / "work").mkdir()
    shutil.copy(NOTEBOOK, folder / "work")
    environment, log = own_folders(folder), folder / "log"
    command = [sys.executable, "-m", "jupyterlab", f"--config={ROOT / 'docs' / 'lab' / 'jupyter_server_config.py'}",
               "--no-browser", f"--ServerApp.root_dir={folder / 'work'}", "--ServerApp.port=8990", "--ServerApp.port_retries=200"]
    with open(log, "wb") as output:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield address(server, Path(environment["JUPYTER_RUNTIME_DIR"]), log), log
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def page(lab, playwright):
    "The notebook, open in Chromium, with all its cells run."
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(40_000)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    try:
        page.goto(lab[0])
        page.get_by_text(re.compile(r"^(?!No Kernel).* \| Idle$")).first.wait_for()  # earlier, Lab would ask for a kernel
        page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        yield page
    finally:
        browser.close()


def keep_screenshot(page, name: str):
    "A picture for people who want to look: MEDKIT_SCREENSHOTS names the folder."
    if folder := os.environ.get("MEDKIT_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def handle(page, label: str):
    "The slider's handle that goes with a visible label."
    return page.locator(".widget-inline-hbox", has=page.locator("label", has_text=label)).locator(".noUi-handle")


def press_and_compare(page, picture, slider, key: str) -> tuple[str, str]:
    "The picture's bytes before and after pressing `key` on `slider`."
    before = picture.evaluate(PICTURE_BYTES)
    slider.focus()
    page.keyboard.press(key)
    after = before
    deadline = time.monotonic() + 20
    while after == before and time.monotonic() < deadline:
        page.wait_for_timeout(50)
        after = picture.evaluate(PICTURE_BYTES)
    return before, after


def nothing_in_the_way(page) -> bool:
    "True if no dialog, menu or notice lies over the page."
    return page.locator(".jp-Dialog:visible, .lm-Menu:visible, .Toastify__toast:visible").count() == 0


def test_slice_viewer_follows_the_keyboard(page):
    picture = page.locator("img.widget-image, img.jupyter-widget-image").first
    picture.wait_for()
    picture.scroll_into_view_if_needed()
    words = page.get_by_role("status").filter(has_text="Axial slice").first
    said = words.inner_text()
    for label, key in (("Window centre (HU)", "ArrowRight"), ("Window width (HU)", "ArrowLeft"), ("Slice", "ArrowRight")):
        before, after = press_and_compare(page, picture, handle(page, label).first, key)
        assert before != after, f"{label}: the picture did not change"
    keep_screenshot(page, "slice_viewer")
    assert words.inner_text() != said, "the words below the picture did not change"
    assert nothing_in_the_way(page)


def test_controls_are_reached_as_the_page_says(page):
    "Click the cell's number, press Tab: the slider has the focus. On a list, Space, an arrow and Enter choose."
    cell = page.locator(".jp-CodeCell", has=page.locator("img.widget-image, img.jupyter-widget-image")).first
    page.locator("img.widget-image, img.jupyter-widget-image").nth(4).wait_for()  # the last viewer: the run is over
    cell.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    cell.locator(".jp-InputPrompt").first.click()
    for _ in range(3):  # a click on an active cell leaves the focus on its slider's number, two Tabs from the next slider
        page.keyboard.press("Tab")
        page.wait_for_timeout(200)
        if "noUi-handle" in page.evaluate("() => document.activeElement.className"):
            break
    else:
        raise AssertionError("Tab did not reach a slider")
    presets = cell.locator("select").first
    chosen = "list => list.selectedOptions[0].text"
    before = presets.evaluate(chosen)
    presets.focus()
    for key in ("Space", "ArrowDown", "Enter"):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
    assert presets.evaluate(chosen) != before
    assert page.evaluate("() => document.activeElement.tagName") == "SELECT", "the key left the list"


def test_signal_viewer_follows_the_keyboard(page):
    picture = page.locator("img.widget-image, img.jupyter-widget-image").nth(1)
    picture.wait_for()
    picture.scroll_into_view_if_needed()
    before, after = press_and_compare(page, picture, handle(page, "Start (s)").first, "ArrowRight")
    keep_screenshot(page, "signal_viewer")
    assert before != after, "the trace did not move"
    assert nothing_in_the_way(page)


def press_button(page, cell, name: str, key: str) -> None:
    "Press a key on the button of that name."
    cell.get_by_role("button", name=name, exact=True).focus()
    page.keyboard.press(key)


def wait_for_words(page, cell, words: str) -> None:
    "Until a line that screen readers speak holds `words`."
    deadline, spoken = time.monotonic() + 20, []
    while not any(words in said for said in spoken):
        assert time.monotonic() < deadline, f"{words!r} was not among {spoken}"
        page.wait_for_timeout(100)
        spoken = cell.get_by_role("status").all_inner_texts()


def test_a_beat_is_corrected_without_a_mouse(page):
    "Next beat, arrow keys on the cursor, Move beat here, Undo: with keys only, and in the order of Tab."
    cell = page.locator(".jp-CodeCell", has_text="Previous beat")
    picture = cell.locator("img.widget-image, img.jupyter-widget-image").first
    picture.scroll_into_view_if_needed()
    before = picture.evaluate(PICTURE_BYTES)
    press_button(page, cell, "Next beat", "Space")
    wait_for_words(page, cell, "on a beat")
    cursor = handle(page, "Cursor (s)").first
    cursor.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    wait_for_words(page, cell, "a beat 0.05 s before it")
    names, chosen = [], "() => document.activeElement.textContent"
    for _ in range(4):  # the slider's number, then the three buttons beside it
        page.keyboard.press("Tab")
        names.append(page.evaluate(chosen).strip())
    assert names[1:] == ["Previous beat", "Next beat", "To the peak"], names
    press_button(page, cell, "Move beat here", "Enter")
    wait_for_words(page, cell, "Moved the beat")
    keep_screenshot(page, "beat_moved")
    assert picture.evaluate(PICTURE_BYTES) != before
    press_button(page, cell, "Add beat", "Enter")
    wait_for_words(page, cell, "Another beat is too close")
    press_button(page, cell, "Undo", "Space")
    wait_for_words(page, cell, "Took back: move")
    assert nothing_in_the_way(page)


def test_the_strip_chart_plays_and_pauses(page):
    cell = page.locator(".jp-CodeCell", has_text="Step 10 s")
    picture = cell.locator("img.widget-image, img.jupyter-widget-image").first
    picture.scroll_into_view_if_needed()
    press_button(page, cell, "Step 10 s", "Enter")
    cell.get_by_text("Second 70.0 of 120.0.").wait_for(timeout=20_000)
    before = picture.evaluate(PICTURE_BYTES)
    press_button(page, cell, "Play", "Space")
    cell.get_by_text(re.compile(r"Second (7[5-9]|8\d)\.\d of 120\.0\.")).wait_for(timeout=20_000)
    press_button(page, cell, "Pause", "Enter")
    keep_screenshot(page, "strip_chart")
    assert picture.evaluate(PICTURE_BYTES) != before
    page.wait_for_timeout(1500)
    at_rest = cell.get_by_text(re.compile("Second .* of 120")).inner_text()
    page.wait_for_timeout(1500)
    assert cell.get_by_text(re.compile("Second .* of 120")).inner_text() == at_rest, "the chart went on after the pause"
    assert nothing_in_the_way(page)


def test_lab_stays_on_this_machine_and_starts_quietly(page, lab):
    elsewhere = {urlsplit(url).hostname for url in page.asked if url.startswith("http")} - {"127.0.0.1"}
    assert not elsewhere, f"the page asked {sorted(elsewhere)}"
    log = lab[1].read_text()
    assert "without encryption" not in log and "Traceback" not in log, log[-4000:]

"""What the tests that drive Chromium share: a browser, or the reason why there is none, and a JupyterLab on this machine.

Chromium or Playwright missing: the tests are skipped and say why. MEDKIT_REQUIRE_BROWSER=1, as CI sets it, makes that a failure.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

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
    usual = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # pictures are drawn, as for anybody
    return {**usual, **{name: str(folder / name.lower()) for name in names}, "MEDKIT_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def address(server: subprocess.Popen, runtime: Path, log: Path, notebook: str) -> str:
    "Where the server listens, with its token, once it says so."
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        for file in runtime.glob("jpserver-*.json"):
            try:
                facts = json.loads(file.read_text())
            except ValueError:
                continue  # still being written
            assert facts["hostname"] == "127.0.0.1" and len(facts["token"]) >= 40
            return f"{facts['url']}lab/tree/{notebook}?reset&token={facts['token']}"
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-4000:]}")


@contextmanager
def served(folder: Path, root: Path, page: str) -> Iterator[tuple[str, Path]]:
    "A page's address in a JupyterLab, started as `make lab` starts it to serve `root`, and its log; `folder` is Jupyter's own."
    from medkit.course import lab_command  # only where a browser is at work

    environment, log = own_folders(folder), folder / "log"
    command = lab_command(root, page, "--no-browser", "--ServerApp.port=8990", "--ServerApp.port_retries=200")
    with open(log, "wb") as output:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield address(server, Path(environment["JUPYTER_RUNTIME_DIR"]), log, page), log
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def blank_page(playwright) -> Iterator:
    "An empty page of Chromium; `page.asked` lists what it asks for."
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(40_000)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        yield page
    finally:
        browser.close()


@contextmanager
def opened(playwright, url: str) -> Iterator:
    "The notebook, open in Chromium with an idle kernel."
    with blank_page(playwright) as page:
        page.goto(url)
        page.get_by_text(re.compile(r"^(?!No Kernel).* \| Idle$")).first.wait_for()  # earlier, Lab would ask for a kernel
        yield page


def run_all(page) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()


def notebook_of(folder: Path, *sources: str) -> Path:
    "A notebook of these code cells."
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "cells.ipynb")
    return folder / "cells.ipynb"


@contextmanager
def page_of(folder: Path, playwright, notebook: Path) -> Iterator:
    "A copy of the notebook, open in a JupyterLab of its own and told to run all its cells; `page.log` is the server's log."
    (folder / "work").mkdir()
    shutil.copy(notebook, folder / "work")
    with served(folder, folder / "work", notebook.name) as (url, log), opened(playwright, url) as page:
        page.log = log
        run_all(page)
        yield page


def cell_of(page, words: str):
    "The code cell that holds these words; read text_content(): inner_text() is empty out of sight and just after a scroll."
    return page.locator(".jp-CodeCell", has_text=words)


def labelled(place, label: str):
    "The row of a slider, found by its visible label in a page or a cell."
    return place.locator(f'.widget-inline-hbox:has(label:has-text("{label}"))')


def keep_screenshot(page, name: str):
    "A picture for people who want to look: MEDKIT_SCREENSHOTS names the folder."
    if folder := os.environ.get("MEDKIT_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def nothing_in_the_way(page) -> bool:
    "True if no dialog, menu or notice lies over the page."
    return page.locator(".jp-Dialog:visible, .lm-Menu:visible, .Toastify__toast:visible").count() == 0


def press_button(page, cell, name: str, key: str) -> None:
    "Press a key on the button of that name."
    cell.get_by_role("button", name=name, exact=True).focus()
    page.keyboard.press(key)


def wait_for_picture(page, picture, seen, what: str) -> str:
    "The picture's bytes, once they are none of those `seen`."
    deadline = time.monotonic() + 20
    while (now := picture.evaluate(PICTURE_BYTES)) in seen:
        assert time.monotonic() < deadline, f"{what}: the picture did not change"
        page.wait_for_timeout(50)
    return now


def cut_labels(page) -> list[str]:
    "The names of controls that are cut off."
    return page.evaluate("""() => [...document.querySelectorAll('.jp-OutputArea .widget-label, .jp-OutputArea button')]
        .filter(one => one.offsetParent && one.scrollWidth > one.clientWidth + 1).map(one => one.textContent)""")


def wait_for_words(page, cell, words: str) -> None:
    "Until a line that screen readers speak holds `words`; JupyterLab lays out no cell out of sight, so it is scrolled to."
    deadline, spoken = time.monotonic() + 120, []
    while not any(words in said for said in spoken):
        assert time.monotonic() < deadline, f"{words!r} was not among {spoken}"
        page.wait_for_timeout(100)
        cell.scroll_into_view_if_needed()
        spoken = cell.get_by_role("status").all_inner_texts()

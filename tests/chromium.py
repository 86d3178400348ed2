"""What the tests that drive Chromium share: a browser, or the reason why there is none, and a JupyterLab on this machine.

Chromium or Playwright missing: the tests are skipped and say why. MEDKIT_REQUIRE_BROWSER=1, as CI sets it, makes that a failure.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def jupyterlab(folder: Path, notebook: Path) -> Iterator[tuple[str, Path]]:
    "The address of a JupyterLab that serves a copy of the notebook, started as `make lab` starts it; and its log."
    (folder / "work").mkdir()
    shutil.copy(notebook, folder / "work")
    with served(folder, folder / "work", notebook.name) as server:
        yield server


@contextmanager
def served(folder: Path, root: Path, page: str) -> Iterator[tuple[str, Path]]:
    "The address of a page in a JupyterLab that serves the folder `root`, and its log; `folder` holds what Jupyter writes."
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
def opened(playwright, url: str) -> Iterator:
    "The notebook, open in Chromium with an idle kernel; `page.asked` lists what the page asked for."
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(40_000)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    try:
        page.goto(url)
        page.get_by_text(re.compile(r"^(?!No Kernel).* \| Idle$")).first.wait_for()  # earlier, Lab would ask for a kernel
        yield page
    finally:
        browser.close()


@contextmanager
def opened_and_run(playwright, url: str) -> Iterator:
    "The notebook, open in Chromium, with all its cells run."
    with opened(playwright, url) as page:
        page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        yield page


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


def wait_for_words(page, cell, words: str) -> None:
    "Until a line that screen readers speak holds `words`; JupyterLab lays out no cell that is out of sight, so it is scrolled to."
    deadline, spoken = time.monotonic() + 120, []
    while not any(words in said for said in spoken):
        assert time.monotonic() < deadline, f"{words!r} was not among {spoken}"
        page.wait_for_timeout(100)
        cell.scroll_into_view_if_needed()
        spoken = cell.get_by_role("status").all_inner_texts()

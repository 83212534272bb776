"""The page as served: by gradio's client, and in headless Chromium."""

import shutil
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning

gradio = pytest.importorskip("gradio", reason="the page needs gradio")

from diffmic.app import launch  # noqa: E402

NAMES = ["across", "along", "plain"]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        how = small(class_names=NAMES, backbone="test_resnet", pretrained=False)
        DiffMICClassifier(**how).fit(*stripes(60)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def page(saved):
    blocks = launch(saved, max_file_size="1mb", wait=False)
    yield blocks
    blocks.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    X, y = stripes(6)
    for name, pixels in zip(NAMES, X[[list(y).index(c) for c in range(3)]], strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "letter.txt").write_text("no image")
    noise = np.random.RandomState(0).randint(0, 256, (800, 800, 3), np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    return folder


def test_two_clients_at_once_get_their_own_answers(page, images):
    from gradio_client import Client, handle_file

    def ask(name):
        client = Client(page.local_url, verbose=False)
        file = handle_file(images / f"{name}.png")
        return client.predict(file, "along", 50, api_name="/examine")

    one = [ask(name)[0] for name in NAMES]
    with ThreadPoolExecutor(3) as pool:
        assert [found[0] for found in pool.map(ask, NAMES)] == one
    assert len(set(one)) == 3


@pytest.mark.parametrize("share", [None, "much", 100])
def test_a_share_that_is_none_is_refused_in_words(page, images, share):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(page.local_url, verbose=False)
    file = handle_file(images / "along.png")
    with pytest.raises(AppError, match="give a number of percent"):
        client.predict(file, "along", share, api_name="/examine")


def test_a_page_is_for_this_computer_and_its_uploads_lie_in_a_folder_of_its_own(page):
    assert page.local_url.startswith("http://127.0.0.1:")
    assert page.share_url is None
    assert Path(page.app.uploaded_file_dir).name.startswith("diffmic-page-")
    assert page.delete_cache == (10, 60)
    assert not page.analytics_enabled


def test_the_command_ends_with_its_uploads_deleted(saved, environment, tmp_path):
    home = tmp_path / "temporary"
    home.mkdir()
    command = [sys.executable, "-m", "diffmic", "app", str(saved), "--port", "7951"]
    env = {name: v for name, v in environment.items() if name != "GRADIO_TEMP_DIR"}
    env["TMPDIR"] = str(home)
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert "http://127.0.0.1:7951" in process.stdout.readline()
        assert [f.name[:13] for f in home.glob("diffmic-*")] == ["diffmic-page-"]
    finally:
        process.terminate()
    assert process.wait(60) in (0, 130)
    assert list(home.glob("diffmic-*")) == []


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    driver = shutil.which("chromedriver")
    if CHROMIUM is None or driver is None:
        pytest.skip("there is no Chromium")
    opened = []

    def visit(url, width=1280):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        metrics = {"width": width, "height": 900, "pixelRatio": 1}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        opened.append(webdriver.Chrome(options, webdriver.ChromeService(driver)))
        opened[-1].get(url)
        return opened[-1]

    yield visit
    for one in opened:
        one.quit()


def wait(driver, script, seconds=60):
    end = time.monotonic() + seconds
    while not (found := driver.execute_script(f"return {script}")):
        assert time.monotonic() < end, script
        time.sleep(0.1)
    return found


def upload(driver, file):
    wait(driver, "document.querySelector('input[type=file]')")
    driver.find_element("css selector", "input[type=file]").send_keys(str(file))


TOLD = "document.querySelector('.dm-told')?.textContent"


@pytest.mark.slow
def test_in_a_browser_at_the_width_of_a_phone(page, images, browser):
    driver = browser(page.local_url, width=390)
    upload(driver, images / "along.png")
    assert wait(driver, TOLD) in NAMES
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    shown = "[...document.querySelectorAll('[data-part=step]')].map(e => e.style.display)"
    assert driver.execute_script(f"return {shown}") == ["none", "none", ""]
    driver.execute_script(
        "const s = document.querySelector('[data-shows=step]'); s.value = 0;"
        "s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert driver.execute_script(f"return {shown}") == ["", "none", "none"]
    resources = "performance.getEntriesByType('resource').map(e => e.name)"
    urls = driver.execute_script(f"return {resources}")
    assert [u for u in urls if not u.startswith((page.local_url, "data:"))] == []


@pytest.mark.slow
def test_in_a_browser_a_wrong_file_a_large_one_and_a_dicom_file(page, images, browser):
    driver = browser(page.local_url)
    upload(driver, images / "letter.txt")
    assert "letter.txt" in wait(driver, "document.querySelector('.dm-error')?.textContent")
    driver.get(page.local_url)
    upload(driver, images / "large.png")
    wait(driver, "document.body.textContent.toLowerCase().includes('maximum')")
    assert not driver.execute_script(f"return {TOLD}")
    driver.get(page.local_url)
    pydicom = pytest.importorskip("pydicom.data")
    upload(driver, pydicom.get_testdata_file("SC_rgb_dcmtk_+eb+cr.dcm"))
    assert wait(driver, TOLD) in NAMES


@pytest.mark.slow
def test_in_two_browsers_at_once_with_another_prevalence(page, images, browser):
    one, two = browser(page.local_url), browser(page.local_url)
    upload(one, images / "along.png")
    upload(two, images / "plain.png")
    table = "document.querySelector('.dm-table').textContent"
    assert wait(one, TOLD)
    assert wait(two, TOLD)
    before = one.execute_script(f"return {table}"), two.execute_script(f"return {table}")
    assert before[0] != before[1]
    one.execute_script(
        "const s = document.querySelector('input[type=number]'); s.value = 99;"
        "s.dispatchEvent(new Event('input', {bubbles: true}));"
        "s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    wait(
        one,
        "document.querySelector('.dm').parentElement.parentElement.textContent.includes('99 %')",
    )
    wait(one, f"{table} !== {before[0]!r}")
    assert two.execute_script(f"return {table}") == before[1]

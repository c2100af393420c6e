"""The page at `/` in a real Chromium: an image is chosen or dropped, and the answer and its pictures appear."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import PROGRAM
from PIL import Image
from serve_process import Server

import edgepure

webdriver = pytest.importorskip("selenium.webdriver")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(PROGRAM is None or DRIVER is None, reason="needs Chromium and its driver")

#: What a hand does: take the file that was chosen into the hidden field, and let it fall on the dashed box.
DROP = """
const data = new DataTransfer();
data.items.add(new File([Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0))], 'x.png', {type: 'image/png'}));
document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}));
"""


@pytest.fixture
def browser(server: Server) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAM
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.get(f"{server.url}/")
        wait(driver, lambda: driver.find_elements("css selector", "#model option"))
        yield driver
    finally:
        driver.quit()


def wait(driver: Any, holds: Any) -> Any:
    """What `holds` gives as soon as it is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 60).until(lambda _: holds())


def answer(driver: Any) -> str:
    text: str = driver.find_element("id", "answer").text
    return "" if text.startswith("purifying") else text


def attacked_digit(tmp_path: Path) -> Path:
    image = edgepure.demo_images().adversarial[0]
    Image.fromarray(np.uint8(255 * image.transpose(1, 2, 0).squeeze() + 0.5)).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_a_chosen_image_is_answered_with_pictures(browser: Any, tmp_path: Path) -> None:
    browser.find_element("id", "file").send_keys(str(attacked_digit(tmp_path)))
    assert "%" in wait(browser, lambda: answer(browser))
    captions = [one.text for one in browser.find_elements("css selector", "#pictures figcaption")]
    assert captions[0] == "as it came" and captions[-1] == "purified"
    widths = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(widths) == len(captions) and all(widths)


def test_a_dropped_image_is_answered(browser: Any, tmp_path: Path) -> None:
    import base64

    browser.execute_script(DROP, base64.b64encode(attacked_digit(tmp_path).read_bytes()).decode())
    assert "%" in wait(browser, lambda: answer(browser))


def test_what_is_no_image_is_refused_in_words(browser: Any) -> None:
    import base64

    browser.execute_script(DROP, base64.b64encode(b"no image").decode())
    said = wait(browser, lambda: answer(browser))
    assert "%" not in said and said
    assert not browser.find_elements("css selector", "#pictures img")

"""The labelling sheet: labelled with the keyboard in a browser, and saved as a table that training reads."""

from __future__ import annotations

import base64
import csv
import io
import json
import re

import numpy as np
import pytest

import browser
from ltr.apply.labelling_sheet import KEYS, write_labelling_sheet
from ltr.apply.mine import mine
from ltr.apply.pool import image_pool

needs_browser = pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium is installed")
STATE = "JSON.parse(localStorage.getItem(store) || '{}')"
ABOUT = "document.getElementById('about').textContent"


def written(redness, pool, folder, classes=(3, 5), top=4):
    model = redness()
    files = image_pool(pool)
    mined = mine(model, files, np.array(classes), folder / "out", top=top)
    number = write_labelling_sheet(folder / "label.html", mined, model, files, title="</script>Mined & <b>shown</b>")
    text = (folder / "label.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))
    return number, text, data


def test_every_mined_image_appears_once_with_its_thumbnail(redness, pool, tmp_path):
    number, text, data = written(redness, pool, tmp_path)
    paths = [image["path"] for image in data["images"]]
    assert number == len(paths) == len(set(paths)) >= 4
    assert all(image["data"] for image in data["images"])
    assert set(data["images"][0]) == {"path", "class", "score", "predicted", "data"}
    assert "<b>shown" not in text
    assert "http" not in text, "it asks for nothing from the network"


def test_keyboard_shortcuts_of_classes_do_not_clash_with_other_shortcuts(redness, pool, tmp_path):
    assert len(set(KEYS)) == len(KEYS)
    assert not set(KEYS) & set("suz")
    _, text, _ = written(redness, pool, tmp_path, classes=(3,))
    assert re.findall(r'data-key="(.)"', text) == list("123456")


def test_a_sheet_of_many_images_is_one_file_of_moderate_size(redness, pool, tmp_path):
    number, text, _ = written(redness, pool, tmp_path, top=50)
    assert number == 11
    assert len(text) / number < 6000


@pytest.fixture
def window(redness, pool, tmp_path):
    written(redness, pool, tmp_path)
    with browser.open_page(tmp_path / "label.html", tmp_path / "profile") as window:
        yield window


@pytest.mark.slow
@needs_browser
def test_a_person_labels_with_the_keyboard_and_saves_a_table(window, tmp_path):
    paths = window.evaluate("images.map(image => image.path)")
    window.press("2")
    assert window.evaluate(f"{STATE}.labels") == {paths[0]: "class 1"}
    window.press("s")
    window.press("3")
    assert window.evaluate("document.getElementById('done').textContent").startswith("3 of ")
    window.press("u")
    assert window.evaluate(f"{STATE}.labels") == {paths[0]: "class 1", paths[1]: ""}
    window.press("4")
    window.press("ArrowLeft")
    assert paths[2] in window.evaluate(ABOUT)
    assert "labelled class 3" in window.evaluate(ABOUT)
    assert window.evaluate("document.querySelector('[aria-pressed=true][data-key]').textContent") == "4class 3 ✓"
    rows = list(csv.DictReader(io.StringIO(window.evaluate("table()"))))
    assert rows == [{"path": paths[0], "label": "class 1"}, {"path": paths[2], "label": "class 3"}]
    window.open(window.evaluate("location.href"), 1200, 900)  # the state stays in the browser
    assert len(window.evaluate("state.labels")) == 3
    assert [address for address in window.requests if not address.startswith(("file:", "data:"))] == []


@pytest.mark.slow
@needs_browser
def test_filters_buttons_and_zoom_work_by_pointer(window):
    window.click("document.querySelector('[data-key=\"2\"]')")
    assert window.evaluate("Object.keys(state.labels).length") == 1
    window.click("document.getElementById('zoom')")
    assert window.evaluate("document.getElementById('image').getBoundingClientRect().width") > 320
    assert window.evaluate("document.getElementById('zoom').getAttribute('aria-pressed')") == "true"
    window.evaluate("(find('class').value = 'class 5', find('class').dispatchEvent(new Event('input')))")
    assert window.evaluate("shown.every(number => images[number].class === 'class 5')")
    window.evaluate("(find('score').value = 1, find('score').dispatchEvent(new Event('input')))")
    assert window.evaluate("find('viewer').hidden && !find('nothing').hidden")
    window.press("2")  # with nothing shown, a key labels nothing
    assert window.evaluate("Object.keys(state.labels).length") == 1


@pytest.mark.slow
@needs_browser
def test_every_control_has_a_name_and_focus_is_visible(window):
    unnamed = (
        "[...document.querySelectorAll('button, select, input, progress, img')].filter(e => !(e.textContent.trim() ||"
        " e.getAttribute('aria-label') || e.closest('label') || e.alt)).length"
    )
    assert window.evaluate(unnamed) == 0
    window.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    window.evaluate("document.getElementById('save').focus({focusVisible: true})")
    assert window.evaluate(outline) == "solid"


@pytest.mark.slow
@needs_browser
def test_cells_are_escaped_as_the_commands_escape_them(window):
    from ltr.escaping import csv_cell, csv_text

    for text in ("=1+1", "-5", "+a", "@x", "plain", 'a"b', "a,b", "\tx"):
        (row,) = csv.reader(io.StringIO(window.evaluate(f"cell({json.dumps(text)})")))
        if text.isprintable():
            assert row[0] == csv_cell(text)
            assert csv_text(row[0]) == text
        else:
            assert row[0].startswith("'")


@pytest.mark.slow
@needs_browser
def test_a_sheet_of_five_thousand_images_responds_quickly(tmp_path):
    from ltr.apply.labelling_sheet import sheet_document

    data = base64.b64encode(bytes(3000)).decode()
    images = [
        {"path": f"{n}.jpg", "class": f"class {n % 3}", "score": 0.5, "predicted": "class 0", "data": data}
        for n in range(5000)
    ]
    names = ["class 0", "class 1", "class 2"]
    text = sheet_document("many", names, images)
    (tmp_path / "label.html").write_text(text)
    with browser.open_page(tmp_path / "label.html", tmp_path / "profile") as window:
        for _ in range(10):
            window.press("2")
        assert window.evaluate("Object.keys(state.labels).length") == 10
        assert window.evaluate("document.querySelectorAll('*').length") < 100, "one image is shown at a time"

"""Reading JSON arrays element by element: what json would read, in windows of any size, and damage by name."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.data.sources import json_arrays
from ltr.data.sources.json_arrays import _read, _Window, read_arrays
from ltr.errors import DataError


def read(file, *keys):
    elements = {key: [] for key in keys}
    read_arrays("tiny", file, {key: elements[key].append for key in keys})
    return elements


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(VALUES, max_size=5), other=VALUES, chunk=st.integers(1, 40), indent=st.sampled_from([None, 0, 2]))
def test_elements_equal_those_of_the_json_module_for_any_window_size(rows, other, chunk, indent):
    text = json.dumps({"before": other, "rows": rows, "after": other}, indent=indent)
    elements = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "CHUNK", chunk)
        _read(_Window(io.StringIO(text)), {"rows": elements.append})
    assert elements == rows


def test_keys_that_no_caller_reads_are_skipped(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"info": {"a": [1]}, "licenses": [{"id": 1}], "rows": [{"id": 2}], "n": 12}')
    assert read(file, "rows") == {"rows": [{"id": 2}]}


def test_nan_is_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"rows": [{"latitude": NaN}]}')
    assert read(file, "rows")["rows"][0]["latitude"] != 0


WHOLE = json.dumps({"rows": [{"id": n, "name": "some text"} for n in range(50)], "n": 12})


@pytest.mark.parametrize("kept", [0, 1, 9, 10, 50, 500, len(WHOLE) - 5, len(WHOLE) - 2, len(WHOLE) - 1])
def test_truncated_json_is_named_with_its_size(tmp_path, kept):
    file = tmp_path / "x.json"
    file.write_text(WHOLE[:kept])
    with pytest.raises(DataError, match=rf"x\.json \({kept:,} bytes\) is (cut off|damaged)"):
        read(file, "rows")


@pytest.mark.parametrize(
    "text", ['{"rows": [{"id": 1} {"id": 2}]}', '{"rows": [{"id": }]}', "[1, 2]", '{"rows" 1}', "text"]
)
def test_json_that_is_damaged_is_named(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"x\.json .*(is not the JSON|is damaged|is cut off)"):
        read(file, "rows")


def test_damage_is_reported_without_reading_the_rest_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_arrays, "CHUNK", 100)
    monkeypatch.setattr(json_arrays, "LONGEST", 1000)
    file = tmp_path / "x.json"
    file.write_text('{"rows": [{"id": }, ' + '{"id": 1}, ' * 10_000 + "]}")
    with pytest.raises(DataError, match="is damaged at character 1"):
        read(file, "rows")


def test_a_missing_array_is_named(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"images": [], "info": {}}')
    with pytest.raises(DataError, match="has no annotations; it has images, info"):
        read(file, "images", "annotations")


@pytest.mark.parametrize(
    ("row", "words"), [({}, r"has no 'id' in rows\[0\]"), ([1], "unexpected"), ({"id": "x"}, "unexpected")]
)
def test_an_element_that_does_not_fit_is_named(tmp_path, row, words):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"rows": [row]}))
    with pytest.raises(DataError, match=words):
        read_arrays("tiny", file, {"rows": lambda element: int(element["id"])})


def test_a_file_that_is_not_text_is_reported(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(b"\x1f\x8b\x08\xff\xff")
    with pytest.raises(DataError, match="is not JSON in UTF-8"):
        read(file, "rows")


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
@pytest.mark.parametrize("more", [WHOLE, "garbage", "\0\0", "}", "\n\n{}", "]", ",", "\ufeff"])
def test_text_after_the_object_is_refused(tmp_path, monkeypatch, chunk, more):
    monkeypatch.setattr(json_arrays, "CHUNK", chunk)
    file = tmp_path / "x.json"
    file.write_text(WHOLE + more)
    with pytest.raises(DataError, match=r"x\.json .*has more after the end of its JSON object, .*Fetch it again"):
        read(file, "rows")


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
@pytest.mark.parametrize("space", ["", "\n", " \r\n\t" * 9])
def test_white_space_around_the_object_is_accepted(tmp_path, monkeypatch, chunk, space):
    monkeypatch.setattr(json_arrays, "CHUNK", chunk)
    file = tmp_path / "x.json"
    file.write_text(space + WHOLE + space)
    assert len(read(file, "rows")["rows"]) == 50


@pytest.mark.parametrize("second", ['[{"id": 2}]', "[]", "{}", "null"])
@pytest.mark.parametrize("between", ["", '"other": [1], '])
def test_an_array_that_is_read_may_appear_once(tmp_path, second, between):
    file = tmp_path / "x.json"
    for first in ('[{"id": 1}]', second):
        file.write_text(f'{{"rows": {first}, {between}"rows": {second if first != second else "[]"}}}')
        with pytest.raises(DataError, match=r"x\.json .*has the key rows twice"):
            read(file, "rows")


def test_a_value_that_is_read_may_appear_once_and_unread_keys_repeat(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"a": 1, "rows": [], "a": 2}')
    assert read(file, "rows") == {"rows": []}
    with pytest.raises(DataError, match="has the key a twice"):
        read_arrays("tiny", file, {"rows": print}, values={})

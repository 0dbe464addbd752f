"""A damaged packed store is refused in words: no damage ends the process, or passes with other labels or paths."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ltr.data.packed_images.checks import FIRST_KIND, metadata_digest
from ltr.data.packed_images.reading import open_packed, read_metadata, with_metadata
from ltr.data.packed_images.writing import pack
from ltr.data.source import ImageFiles, Source
from ltr.errors import DataError

CONFIG = {"_target_": "ltr.data.sources.folder.image_folder"}


def packed(folder, *, boxes=True, **how):
    random = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        Image.fromarray(random.integers(0, 256, (8, 10, 3), dtype=np.uint8)).save(folder / name)
    corners = np.arange(24, dtype=np.float32).reshape(6, 4) if boxes else None
    files = ImageFiles.from_paths(folder, names)
    source = Source("six", files, np.arange(6) % 2, ("a", "b"), {"train": range(4), "test": range(4, 6)}, boxes=corners)
    pack(source, CONFIG, folder / "p.arrow", size=8, **how)
    return folder / "p.arrow"


def contents(path):
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        return read_metadata(reader.schema), reader.schema, reader.get_batch(0)


def with_bytes(path, before, after):
    raw = path.read_bytes()
    assert raw.count(before) >= 1
    assert len(before) == len(after)
    path.write_bytes(raw.replace(before, after))


def rewritten(path, metadata):
    """The store with another description, and the file around it whole."""
    _, schema, batch = contents(path)
    schema = with_metadata(schema.remove_metadata(), metadata)
    other = path.with_name("q.arrow")
    with pa.ipc.new_file(str(other), schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return other


def test_offsets_that_lead_outside_are_refused(tmp_path):
    path = packed(tmp_path)
    column = contents(path)[2].column("image")
    offsets = np.frombuffer(column.buffers()[1], np.int64)[:7].copy()
    damaged = offsets.copy()
    damaged[-1] = 2**33
    with_bytes(path, offsets.tobytes(), damaged.tobytes())
    with pytest.raises(DataError, match=r"damaged.*Make it again by ltr-data pack"):
        open_packed(path)


@pytest.mark.parametrize(
    ("column", "before", "after"),
    [
        ("path", b"0.png1.png", b"1.png0.png"),
        ("label", np.arange(6, dtype="<i8").__mod__(2).tobytes(), np.zeros(6, "<i8").tobytes()),
        ("box", np.arange(24, dtype="<f4").tobytes(), np.zeros(24, "<f4").tobytes()),
        ("width", np.full(6, 10, "<i4").tobytes(), np.full(6, 11, "<i4").tobytes()),
    ],
)
def test_a_changed_path_label_box_or_size_is_detected(tmp_path, column, before, after):
    path = packed(tmp_path)
    with_bytes(path, before, after)
    with pytest.raises(DataError, match=r"labels, paths or boxes of chunk 0 are not those that were written"):
        open_packed(path)


def test_a_changed_description_is_detected(tmp_path):
    path = packed(tmp_path)
    metadata = contents(path)[0]
    with pytest.raises(DataError, match="description is not the one that was written"):
        open_packed(rewritten(path, {**metadata, "class_names": ["b", "a"]}))
    with pytest.raises(DataError, match="description is not the one that was written"):
        open_packed(rewritten(path, {**metadata, "kind": FIRST_KIND}))
    wrong = {**metadata, "digests": "none"}
    with pytest.raises(DataError, match="no proper digests"):
        open_packed(rewritten(path, {**wrong, "about": metadata_digest(wrong)}))


def test_the_number_of_stored_pixels_must_match_the_size(tmp_path):
    path = packed(tmp_path, format="raw", boxes=False)
    metadata = contents(path)[0]
    old = {key: value for key, value in metadata.items() if key not in ("about", "tables")} | {"kind": FIRST_KIND}
    other = rewritten(path, old)
    with_bytes(other, np.full(6, 10, "<i4").tobytes(), np.full(6, 4000, "<i4").tobytes())
    with pytest.raises(DataError, match="other sizes than their pixels"):
        open_packed(other)


def test_a_store_of_the_first_kind_is_read_with_a_warning_and_is_the_same_source(tmp_path):
    path = packed(tmp_path)
    metadata = contents(path)[0]
    old = {key: value for key, value in metadata.items() if key not in ("about", "tables")} | {"kind": FIRST_KIND}
    with pytest.warns(UserWarning, match="ltr-data pack makes it again"):
        source = open_packed(rewritten(path, old))
    assert source.fingerprint == open_packed(path).fingerprint


FUZZ = """
import json, random, sys
from pathlib import Path
import numpy as np
from ltr.data.images.decode import decode_image
from ltr.data.packed_images.reading import open_packed
from ltr.errors import DataError

draw = random.Random(0)
counts = {"refused": 0, "read": 0}
for path in [Path(name) for name in sys.argv[2:] for _ in range(int(sys.argv[1]))]:
    whole, other, good = path.read_bytes(), path.with_name("fuzzed.arrow"), open_packed(path)
    raw = bytearray(whole)
    if draw.random() < 0.2:
        raw = raw[: draw.randrange(len(raw))]
    for _ in range(draw.choice((1, 1, 2, 8))):
        if raw:
            raw[draw.randrange(len(raw))] = draw.randrange(256)
    other.write_bytes(raw)
    try:
        found = open_packed(other)
    except DataError as error:
        assert "\\n" not in str(error), error
        counts["refused"] += 1
        continue
    counts["read"] += 1
    assert found.images.blob == good.images.blob and (found.labels == good.labels).all()
    assert found.class_names == good.class_names and (found.boxes == good.boxes).all()
    for index in range(len(found)):
        try:
            opened = found.images.open(index)
            decode_image(opened) if good.images.store.metadata["format"] == "jpeg" else np.asarray(opened)
        except Exception as error:
            assert not isinstance(error, AssertionError)
print(json.dumps(counts))
"""


def test_no_damage_crashes_the_process_or_is_read_as_another_table(tmp_path):
    paths = []
    for format in ("jpeg", "raw"):
        (tmp_path / format).mkdir()
        paths.append(packed(tmp_path / format, format=format))
    # in a process of its own: a crash would end the tests
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ, "100", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["refused"] + counts["read"] == 200
    assert counts["refused"] > 50

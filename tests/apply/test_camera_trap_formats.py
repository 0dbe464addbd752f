"""Predictions in the formats of camera-trap tools are read back unchanged."""

import csv
import json

import numpy as np
import pytest

import camera_trap_files as made
from ltr.apply.camera_trap_formats import write_camtrap_dp, write_megadetector
from ltr.apply.detections import detection_pool
from ltr.apply.pool import image_pool
from ltr.apply.predict import predict_batches, predict_files, predictions_of
from ltr.data.annotations.camtrap_dp import read_camtrap_dp
from ltr.data.annotations.megadetector import read_megadetector
from ltr.errors import ConfigError, DataError

SHOTS = made.shots(locations=2, frames=1)


@pytest.fixture
def traps(tmp_path):
    """Images with the results of MegaDetector, one of which failed."""
    root = made.write(tmp_path / "traps", SHOTS)
    content = made.megadetector(SHOTS)
    content["images"][2] = {"file": SHOTS[2].path, "failure": "Failure image access", "detections": None}
    content["classification_categories"] = {"0": "of another classifier"}
    content["images"][0]["detections"][0]["classifications"] = [["0", 0.7]]
    content["images"][0]["datetime"] = "2024:01:01 00:00:00"
    (root / "md.json").write_text(json.dumps(content))
    return root


def test_each_detection_is_an_image_of_the_pool(traps, redness):
    pool = detection_pool(traps, traps / "md.json", min_confidence=0.2)
    assert len(pool.files) == sum(shot.label != "empty" for shot in SHOTS) - (SHOTS[2].label != "empty")
    assert pool.for_model(redness()).crops.margin == 0.1
    assert len(detection_pool(traps, traps / "md.json").files) > len(pool.files)
    assert len(detection_pool(traps, traps / "md.json", categories=["person"]).files) == len(SHOTS) - 1


def test_the_detectors_file_gets_classifications_and_keeps_its_other_entries(traps, tmp_path, redness):
    model = redness(background=0)
    pool = detection_pool(traps, traps / "md.json", min_confidence=0.2)
    files = pool.for_model(model)
    predictions, broken, _ = predictions_of(model, files, classifier="ltr-run", top=3)
    assert not broken
    write_megadetector(tmp_path / "out.json", predictions, files, pool)
    before = json.loads((traps / "md.json").read_text())
    after = json.loads((tmp_path / "out.json").read_text())
    assert after["classification_categories"] == {str(n): name for n, name in enumerate(model.class_names)}
    assert after["info"]["classifier"] == "ltr-run"
    assert after["info"]["detector"] == before["info"]["detector"]
    assert read_megadetector("again", tmp_path / "out.json", str(traps)).category_names == (
        "animal",
        "person",
        "vehicle",
    )
    row = 0
    for old, new in zip(before["images"], after["images"], strict=True):
        assert {key: value for key, value in new.items() if key != "detections"} == {
            key: value for key, value in old.items() if key != "detections"
        }
        for one, other in zip(old.get("detections") or (), new.get("detections") or (), strict=True):
            assert (one["bbox"], one["conf"], one["category"]) == (other["bbox"], other["conf"], other["category"])
            if one["conf"] < 0.2:
                assert "classifications" not in other
                continue
            pairs = other["classifications"]
            assert [probability for _, probability in pairs] == sorted((p for _, p in pairs), reverse=True)
            assert int(pairs[0][0]) == predictions.classes[row, 0]
            row += 1
    assert row == len(files)


def test_prediction_and_training_use_the_same_crop(traps, redness):
    """A red deer and an orange fox on green ground: crops by box contain no ground."""
    model = redness()
    pool = detection_pool(traps, traps / "md.json", min_confidence=0.2)
    files = pool.for_model(model)
    (logits,) = (np.concatenate([a.probabilities for a in predict_batches(model, files, top=6, broken=[])]),)
    whole = image_pool(traps)
    assert logits.shape == (len(files), 6)
    from ltr.data.source import PLAIN

    cut = model.crop.read(files.open(0), None, PLAIN)
    box = files.open(0).pixels(*made.SIZE)
    from ltr.data.images.decode import decode_image

    np.testing.assert_array_equal(cut, model.crop.read(decode_image(files.path(0)).crop(box), None, PLAIN))
    assert np.abs(cut.mean(axis=(0, 1)) - model.crop.read(whole.open(0), None, PLAIN).mean(axis=(0, 1))).max() > 10


def test_whole_images_become_a_megadetector_file(traps, tmp_path, redness):
    model = redness(background=0)
    (traps / "L0" / "broken.jpg").write_bytes(b"no image")
    files = image_pool(traps)
    predictions, broken, _ = predictions_of(model, files, classifier="ltr-run")
    assert [row.path for row in broken] == ["L0/broken.jpg"]
    write_megadetector(tmp_path / "out.json", predictions, files, None)
    detections = read_megadetector("again", tmp_path / "out.json", str(traps))
    assert [detections.files.relative(row) for row in detections.failed] == ["L0/broken.jpg"]
    assert len(detections.images) == len(SHOTS)
    np.testing.assert_allclose(detections.boxes, [[0, 0, 1, 1]] * len(SHOTS))
    readable = np.setdiff1d(np.arange(len(files)), [row.position for row in broken])
    np.testing.assert_allclose(detections.confidences, 1 - predictions.background[readable], atol=1e-4)


def test_observations_are_read_as_a_package_again(traps, tmp_path, redness):
    model = redness(background=0)
    made.camtrap_dp(traps, SHOTS)
    files = image_pool(traps)
    predictions, _, _ = predictions_of(model, files, classifier="ltr-run")
    assert write_camtrap_dp(traps / "observations.csv", predictions, files, None, traps) == 0
    records = read_camtrap_dp("again", traps, str(traps))
    names = [*model.class_names]
    names[0] = "blank"
    labels = {records.files.relative(i): records.class_names[c] for i, c in zip(records.images, records.classes)}
    assert labels == {files.relative(row): names[predictions.classes[row, 0]] for row in range(len(files))}
    with open(traps / "observations.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert first["classificationMethod"] == "machine"
    assert first["eventStart"] == made.iso(SHOTS[0].time)
    assert float(first["classificationProbability"]) == pytest.approx(float(predictions.probabilities[0, 0]), abs=1e-5)


def test_observations_of_detections_have_their_boxes(traps, tmp_path, redness):
    model = redness()
    pool = detection_pool(traps, traps / "md.json", min_confidence=0.2)
    files = pool.for_model(model)
    predictions, _, _ = predictions_of(model, files, classifier="ltr-run")
    untimed = write_camtrap_dp(tmp_path / "o.csv", predictions, files, pool, traps)
    with open(tmp_path / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(files) == untimed  # no package and no EXIF says when
    assert [float(rows[0][f"bbox{side}"]) for side in ("X", "Y", "Width", "Height")] == [0.25, 0.25, 0.375, 0.5]
    assert (rows[0]["mediaID"], rows[0]["deploymentID"]) == (SHOTS[0].path, "L0")
    assert len({row["observationID"] for row in rows}) == len(rows)


def test_the_table_of_detections_names_box_and_detector(traps, tmp_path, redness):
    pool = detection_pool(traps, traps / "md.json", min_confidence=0.2)
    model = redness()
    predict_files(model, pool.for_model(model), tmp_path / "p.csv", pool=pool, top=2)
    with open(tmp_path / "p.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert list(first)[:8] == [
        "path",
        "detection",
        "detector_category",
        "detector_confidence",
        "x",
        "y",
        "width",
        "height",
    ]
    assert (first["detection"], first["detector_category"], first["x"]) == ("0", "animal", "0.25")


def test_detections_of_nothing_or_from_outside_are_refused(traps, tmp_path):
    with pytest.raises(DataError, match=r"none of its 12 images, such as L0/0_deer_0.jpg.*, is in"):
        detection_pool(tmp_path, traps / "md.json")
    with pytest.raises(DataError, match=r"none of its .* detections in .* images has a confidence of 0.99 or more"):
        detection_pool(traps, traps / "md.json", min_confidence=0.99)
    with pytest.raises(ConfigError, match="give the folder that the detector was run on"):
        detection_pool(traps / "md.json", traps / "md.json")
    content = made.megadetector(SHOTS)
    content["images"][0]["file"] = "../secret.jpg"
    (tmp_path / "out.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"paths lead outside .*: ../secret.jpg"):
        detection_pool(traps, tmp_path / "out.json")

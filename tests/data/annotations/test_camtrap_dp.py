"""Camtrap DP packages."""

import json
from datetime import datetime

import numpy as np
import pytest

import camera_trap_files as made
from ltr.data.annotations.camtrap_dp import read_camtrap_dp
from ltr.errors import DataError

SHOTS = made.shots(locations=2)


def labels(records):
    return {records.files.relative(i): records.class_names[c] for i, c in zip(records.images, records.classes)}


def expected():
    return {shot.path: "blank" if shot.label == "empty" else shot.label for shot in SHOTS}


@pytest.mark.parametrize("version", ["1.0", "1.0.1"])
@pytest.mark.parametrize("events", [False, True])
def test_media_have_the_labels_of_their_observations_or_events(tmp_path, version, events):
    made.camtrap_dp(tmp_path, SHOTS, version=version, events=events)
    records = read_camtrap_dp("traps", tmp_path, str(tmp_path))
    assert labels(records) == expected()
    for key, value in (
        ("location", "L1"),
        ("deployment", "L1-1"),
        ("seq_id", SHOTS[-1].sequence),
        ("date", "2024-02-02"),
    ):
        grouping = records.groupings[key]
        assert grouping.values[grouping.codes[-1]] == value
    assert not records.left_out


@pytest.mark.parametrize("missing", ["NA", "nan", "", "N/A"])
def test_a_location_that_is_missing_gives_way_to_the_name_or_the_deployment(tmp_path, missing):
    made.camtrap_dp(tmp_path, SHOTS)
    file = tmp_path / "deployments.csv"
    head, *rows = file.read_text().splitlines()
    at = head.split(",").index("locationID")
    rows = [",".join([*row.split(",")[:at], missing, *row.split(",")[at + 1 :]]) for row in rows]
    file.write_text("\n".join([head, *rows]) + "\n")
    records = read_camtrap_dp("traps", tmp_path, str(tmp_path))
    assert records.groupings["location"].values == records.groupings["deployment"].values


def test_boxes_are_fractions_of_the_image(tmp_path):
    made.camtrap_dp(tmp_path, SHOTS, boxes=True)
    records = read_camtrap_dp("traps", tmp_path / "datapackage.json", str(tmp_path))
    np.testing.assert_allclose(records.boxes[0], [0.25, 0.25, 0.375, 0.5])
    assert records.sizes is None


def test_unclassified_observations_give_no_label_and_are_reported(tmp_path):
    made.camtrap_dp(tmp_path, SHOTS)
    file = tmp_path / "observations.csv"
    file.write_text(file.read_text().replace("media,animal,deer", "media,unclassified,", 1))
    records = read_camtrap_dp("traps", tmp_path, str(tmp_path))
    assert records.left_out["no label"].tolist() == [0]
    assert records.remarks == ["1 observations are unknown or unclassified, which are not labels"]


def test_humans_are_a_class_without_a_scientific_name(tmp_path):
    made.camtrap_dp(tmp_path, SHOTS)
    file = tmp_path / "observations.csv"
    file.write_text(file.read_text().replace("media,animal,deer", "media,human,", 1))
    assert "human" in read_camtrap_dp("traps", tmp_path, str(tmp_path)).class_names


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        ("media", "L0-0_fox_1,", "L0-0_fox_0,", "line 5: mediaID L0-0_fox_0 appears twice"),
        ("media", "L0-0_fox_1,L0-1", "L0-0_fox_1,L9-1", "line 5: deploymentID L9-1 is not in deployments"),
        ("media", "L0/0_fox_1.jpg", "https://x/1.jpg", "line 5: filePath https://x/1.jpg is an address"),
        ("deployments", "L1-1", "L0-1", "line 3: deploymentID L0-1 appears twice"),
        ("observations", "o4,", "o3,", "line 6: observationID o3 appears twice"),
        ("observations", "media,animal,fox", "media,plant,fox", "observationType is 'plant'; allowed are animal"),
        ("observations", "media,animal,fox", "day,animal,fox", "observationLevel is 'day'"),
        ("observations", ",L0-0_fox_1,", ",nothing,", "mediaID nothing is not in media"),
        ("observations", "o0,L0-1", "o0,L1-1", "line 2: deploymentID is L1-1, and mediaID L0-0_deer_0 is of another"),
        ("observations", "bboxX", "BboxX", "the column BboxX is not read. Rename it to bboxX"),
        ("observations", "scientificName", "scientificname", "the column scientificname is not read. Rename it to"),
        ("deployments", "locationID", "locationId", "the column locationId is not read. Rename it to locationID"),
        ("observations", "observationType", "kind", "no column observationType"),
    ],
)
def test_a_message_names_table_and_line(tmp_path, table, old, new, words):
    made.camtrap_dp(tmp_path, SHOTS)
    file = tmp_path / f"{table}.csv"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError) as refused:
        read_camtrap_dp("traps", tmp_path, str(tmp_path))
    assert words in str(refused.value)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c.update(profile="https://example.org/camtrap-dp/0.6/x.json"),
            "is Camtrap DP 0.6; version 1 is read",
        ),
        (lambda c: c.update(profile="tabular-data-package"), "of the profile 'tabular-data-package'"),
        (lambda c: c.pop("resources"), "has no list of resources"),
        (lambda c: c["resources"].pop(), "has no CSV file for observations"),
    ],
)
def test_a_wrong_description_is_named(tmp_path, change, words):
    file = made.camtrap_dp(tmp_path, SHOTS)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as refused:
        read_camtrap_dp("traps", tmp_path, str(tmp_path))
    assert words in str(refused.value)
    assert str(file) in str(refused.value)


def changed(folder, table, *replacements, **options):
    """Records of a package after some texts of a table were replaced once each."""
    made.camtrap_dp(folder, SHOTS, **options)
    file = folder / f"{table}.csv"
    for old, new in replacements:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))
    return read_camtrap_dp("traps", folder, str(folder))


def test_a_blank_scientific_name_counts_as_missing(tmp_path):
    records = changed(tmp_path, "observations", ("media,animal,deer", "media,animal, "))
    assert labels(records) == expected() | {SHOTS[0].path: "animal"}


@pytest.mark.parametrize("kind", ["unknown", "unclassified"])
def test_media_with_an_observation_ignore_the_label_of_their_event(tmp_path, kind):
    own = f"own,L0-1,{SHOTS[0].key},,,,media,{kind},,,,,\n"
    records = changed(tmp_path, "observations", ("bboxHeight\n", f"bboxHeight\n{own}"), events=True)
    assert labels(records) == {path: label for path, label in expected().items() if path != SHOTS[0].path}
    assert records.left_out["no label"].tolist() == [0]


@pytest.mark.parametrize("offset", ["+02:00", "-05:00"])
def test_events_and_media_in_different_time_zones_are_matched_by_instant(tmp_path, offset):
    made.camtrap_dp(tmp_path, SHOTS, events=True)
    file = tmp_path / "media.csv"
    zone = datetime.fromisoformat(f"2024-01-01T00:00:00{offset}").tzinfo
    text = file.read_text()
    for shot in SHOTS:
        there = datetime.fromisoformat(made.iso(shot.time)).astimezone(zone).isoformat()
        text = text.replace(made.iso(shot.time), there)
    file.write_text(text)
    records = read_camtrap_dp("traps", tmp_path, str(tmp_path))
    assert labels(records) == expected()
    days = records.groupings["date"]
    assert days.values[days.codes[0]] == ("2023-12-31" if offset.startswith("-") else "2024-01-01")


def test_local_times_are_compared_if_the_media_have_no_time_zone(tmp_path):
    made.camtrap_dp(tmp_path, SHOTS, events=True)
    (tmp_path / "media.csv").write_text((tmp_path / "media.csv").read_text().replace("Z,", ","))
    events = tmp_path / "observations.csv"
    events.write_text(events.read_text().replace("Z,", "+02:00,"))
    assert labels(read_camtrap_dp("traps", tmp_path, str(tmp_path))) == expected()


def test_a_partly_filled_box_names_its_line(tmp_path):
    with pytest.raises(DataError, match="line 2: the box has no bboxHeight; a box needs numbers in bboxX"):
        changed(tmp_path, "observations", ("0.375,0.5", "0.375,"), boxes=True)


START, END = made.iso(SHOTS[0].time), made.iso(SHOTS[1].time)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("o0,L0-1", "o0,L9-1", "line 2: deploymentID L9-1 is not in deployments"),
        ("o0,L0-1", "o0,", "line 2: deploymentID  is not in deployments"),
        (START, "31.05.2024 10:00", "line 2: eventStart is '31.05.2024 10:00'; write it as 2024-05-31T23:59:01Z"),
        (END, "later", "line 2: eventEnd is 'later'; write it as"),
        (END, "2020-01-01T00:00:00Z", "line 2: eventEnd 2020-01-01T00:00:00Z is before eventStart"),
        (END, START.replace("Z", "+05:00"), r"line 2: eventEnd .*\+05:00 is before eventStart"),
    ],
)
def test_an_event_that_cannot_be_used_names_its_line(tmp_path, old, new, words):
    with pytest.raises(DataError, match=words):
        changed(tmp_path, "observations", (old, new), events=True)


def test_an_event_may_end_when_it_starts_or_have_no_end(tmp_path):
    for number, end in enumerate(("", START)):
        records = changed(tmp_path / str(number), "observations", (END, end), events=True)
        assert labels(records)[SHOTS[0].path] == SHOTS[0].label
        assert not records.remarks


def test_events_without_a_start_or_a_medium_are_counted(tmp_path):
    records = changed(tmp_path / "1", "observations", (START, ""), events=True)
    assert records.remarks == ["1 event has no eventStart, so no medium has the labels of it"]
    assert SHOTS[0].path not in labels(records)
    late = "L0-1,,e,2029-01-01T00:00:00Z,,event,animal,fox,,,,\n"
    texts = ("bboxHeight\n", f"bboxHeight\nlate,{late}later,{late}")
    records = changed(tmp_path / "2", "observations", texts, events=True)
    assert records.remarks == ["2 events cover the time of no medium"]


def test_an_observation_of_a_medium_needs_no_deployment(tmp_path):
    assert labels(changed(tmp_path, "observations", ("o0,L0-1", "o0,"))) == expected()

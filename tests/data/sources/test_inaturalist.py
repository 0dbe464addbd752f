"""iNaturalist: images and labels joined by id, ids of categories, and damaged files."""

import json

import numpy as np
import pytest

import trees
from ltr.data.sources.inaturalist import VERSIONS, inaturalist
from ltr.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*not the whole published")

IDS = (7, 4000, 12, 9)


def read(root, version="2018", **options):
    return inaturalist(root=str(root), version=version, folder=f"inat{version[:4]}", **options)


def edited(file, change):
    """The annotation file after ``change`` was done to its content."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_read_from_its_official_files(tmp_path, version):
    trees.inaturalist(tmp_path, version, IDS)
    source = read(tmp_path, version)
    assert source.name == VERSIONS[version].name
    assert source.parts == {"train": range(12), "test": range(12, 16)}
    assert source.class_ids.tolist() == sorted(IDS)
    assert source.taxonomy["supercategory"] == ("Plantae", "Plantae", "Animalia", "Animalia")


@pytest.mark.parametrize("version", ["2017", "2021"])
def test_labels_are_matched_by_image_id_and_not_by_position(tmp_path, version):
    trees.inaturalist(tmp_path, version, IDS)
    source = read(tmp_path, version)
    for index, label in enumerate(source.labels):  # the miniature's folders are the category ids
        assert source.images.path(index).split("/")[-2] == str(source.class_ids[label])


def test_class_names_belong_to_their_ids(tmp_path):
    trees.inaturalist(tmp_path, "2017", IDS)
    assert read(tmp_path, "2017").class_names == ("Species 7", "Species 9", "Species 12", "Species 4000")


def test_categories_of_one_name_get_their_ids(tmp_path):
    base = trees.inaturalist(tmp_path, "2017", IDS)

    def rename(content):
        for category in content["categories"]:
            category["name"] = "Iris" if category["id"] in (7, 12) else category["name"]

    for part in ("train", "val"):
        edited(base / f"{part}2017.json", rename)
    assert read(tmp_path, "2017").class_names == ("Iris (id 7)", "Species 9", "Iris (id 12)", "Species 4000")


def test_the_order_of_categories_in_the_file_does_not_matter(tmp_path):
    base = trees.inaturalist(tmp_path, "2017", IDS)
    before = read(tmp_path, "2017").labels
    edited(base / "train2017.json", lambda content: content["categories"].reverse())
    np.testing.assert_array_equal(read(tmp_path, "2017").labels, before)


def test_the_annotations_of_2017_are_found_in_the_folder_of_their_archive(tmp_path):
    base = trees.inaturalist(tmp_path, "2017", IDS)
    (base / "train_val2017").mkdir()
    for file in ("train2017.json", "val2017.json"):
        (base / file).rename(base / "train_val2017" / file)
    assert len(read(tmp_path, "2017")) == 16


def test_categories_json_unhides_names(tmp_path):
    base = trees.inaturalist(tmp_path, "2018", IDS)
    names = [{"id": n, "name": f"Real {n}", "supercategory": "S", "family": f"F{n}"} for n in IDS]
    (base / "categories.json").write_text(json.dumps(names))
    source = read(tmp_path)
    assert source.class_names == ("Real 7", "Real 9", "Real 12", "Real 4000")
    assert source.taxonomy == {"supercategory": ("S",) * 4, "family": ("F7", "F9", "F12", "F4000")}


def test_categories_json_of_another_year_is_refused(tmp_path):
    base = trees.inaturalist(tmp_path, "2018", IDS)
    (base / "categories.json").write_text(json.dumps([{"id": 1, "name": "x"}]))
    with pytest.raises(DataError, match="other category ids"):
        read(tmp_path)


def test_missing_files_are_named_with_their_archives(tmp_path):
    with pytest.raises(DataError) as refused:
        read(tmp_path)
    message = str(refused.value)
    for words in ("train2018.json, val2018.json", str(tmp_path / "inat2018"), "download=true", "train_val2018.tar.gz"):
        assert words in message


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_json_is_named(tmp_path, kept):
    base = trees.inaturalist(tmp_path, "2018", IDS)
    text = (base / "train2018.json").read_text()
    (base / "train2018.json").write_text(text[: int(kept * len(text))])
    with pytest.raises(DataError, match=r"train2018\.json .*cut off"):
        read(tmp_path)


def duplicate_image(content):
    content["images"].append({**content["images"][0], "file_name": "other.jpg"})


def no_annotation(content):
    content["annotations"].pop()


def two_annotations(content):
    content["annotations"].append({**content["annotations"][0], "id": 999})


def unknown_image(content):
    content["annotations"].append({"id": 999, "image_id": 123456789, "category_id": 7})


def unknown_category(content):
    content["annotations"][0]["category_id"] = 5


def duplicate_category(content):
    content["categories"].append(content["categories"][0])


def nameless_category(content):
    content["categories"][0]["name"] = None


def empty_class(content):
    content["categories"].append({"id": 77, "name": "nobody"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (duplicate_image, "images of the same id: 3"),
        (no_annotation, "images with no annotation, by id: 3"),
        (two_annotations, "more than one annotation"),
        (unknown_image, "does not list, by image_id: 123456789"),
        (unknown_category, "categories that it does not list, by id: 5"),
        (duplicate_category, "category id 7 appears twice"),
        (nameless_category, r"the name of category \d+ is None, not a text"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, change, words):
    base = trees.inaturalist(tmp_path, "2018", IDS)
    edited(base / "train2018.json", change)
    with pytest.raises(DataError, match=words):
        read(tmp_path)


def test_a_class_without_a_training_image_is_named(tmp_path):
    base = trees.inaturalist(tmp_path, "2018", IDS)
    for file in ("train2018.json", "val2018.json"):
        edited(base / file, empty_class)
    with pytest.raises(DataError, match=r"without a training image in .*train2018\.json, by category id: 77\."):
        read(tmp_path)


def test_training_and_validation_of_different_years_are_refused(tmp_path):
    base = trees.inaturalist(tmp_path, "2018", IDS)
    edited(base / "val2018.json", empty_class)
    with pytest.raises(DataError, match="different categories"):
        read(tmp_path)


def names_rotated(content):
    """The same ids under each other's names."""
    names = [category["name"] for category in content["categories"]]
    for category, name in zip(content["categories"], names[1:] + names[:1]):
        category["name"] = name


@pytest.mark.parametrize("version", VERSIONS)
def test_ids_whose_names_contradict_each_other_are_named(tmp_path, version):
    base = trees.inaturalist(tmp_path, version, IDS)
    edited(base / VERSIONS[version].val, names_rotated)
    with pytest.raises(
        DataError, match=r"contradict each other, by class id: 7 is 'Species 7' in .*'Species 4000' in val"
    ):
        read(tmp_path, version)


def test_names_may_be_in_another_unicode_form(tmp_path):
    base = trees.inaturalist(tmp_path, "2021", IDS)
    for file, name in (("train.json", "gr\u00e9be"), ("val.json", "gre\u0301be")):
        edited(base / file, lambda content, name=name: content["categories"][0].update(name=name))
    assert read(tmp_path, "2021").class_names[0] == "gr\u00e9be"


def test_categories_json_that_contradicts_names_that_are_not_hidden_is_refused(tmp_path):
    base = trees.inaturalist(tmp_path, "2021", IDS)
    names = [{"id": n, "name": f"Species {other}"} for n, other in zip(IDS, IDS[1:] + IDS[:1])]
    (base / "categories.json").write_text(json.dumps(names))
    with pytest.raises(DataError, match=r"contradict each other, by class id: 7 is 'Species 4000' in categories\.json"):
        read(tmp_path, "2021")


def test_missing_images_are_counted(tmp_path):
    base = trees.inaturalist(tmp_path, "2018", IDS)
    for path in sorted(base.rglob("*.jpg"))[:2]:
        path.unlink()
    with pytest.raises(DataError, match="2 of 16 image files"):
        read(tmp_path)


def test_an_incomplete_data_set_is_reported(tmp_path):
    trees.inaturalist(tmp_path, "2018", IDS)
    with pytest.warns(UserWarning, match=r"12 of 437,513 \(train\); 4 of 24,426 \(test\); 4 of 8,142 \(classes\)"):
        read(tmp_path)


def test_the_annotations_of_2017_are_not_downloaded_without_a_checksum(tmp_path):
    with pytest.raises(DataError, match=r"no checksum of .*train_val2017\.zip"):
        read(tmp_path, "2017", download=True)

"""Stanford Online Products: classes of training and test have nothing in common."""

import pytest

import trees
from ltr.data.sources.online_products import online_products
from ltr.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*not the whole published")


def test_training_classes_come_first(tmp_path):
    trees.online_products(tmp_path, classes=3, per_class=2)
    source = online_products(root=str(tmp_path))
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert source.parts == {"train": range(6), "test": range(6, 12)}
    assert source.class_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert source.taxonomy["supercategory"] == ("sofa", "bicycle", "sofa", "bicycle", "sofa", "bicycle")


def test_a_class_in_both_lists_is_refused(tmp_path):
    base = trees.online_products(tmp_path)
    text = (base / "Ebay_test.txt").read_text()
    (base / "Ebay_test.txt").write_text(text.replace(" 5 2 ", " 4 2 "))
    with pytest.raises(DataError, match="classes in both parts, by class_id: 4"):
        online_products(root=str(tmp_path))


@pytest.mark.parametrize(("line", "words"), [("13 x 1 a.jpg", "whole number"), ("13 1", "has 2 columns")])
def test_a_wrong_line_is_named(tmp_path, line, words):
    base = trees.online_products(tmp_path)
    with (base / "Ebay_train.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=words):
        online_products(root=str(tmp_path))


def test_a_list_with_only_a_header_is_refused(tmp_path):
    base = trees.online_products(tmp_path)
    trees.lines(base / "Ebay_test.txt", ["image_id class_id super_class_id path"])
    with pytest.raises(DataError, match=r"Ebay_test\.txt lists no image"):
        online_products(root=str(tmp_path))


def test_missing_files_are_refused_with_their_download(tmp_path):
    with pytest.raises(DataError, match=r"Ebay_train\.txt, Ebay_test\.txt.*\n.*Stanford_Online_Products\.zip"):
        online_products(root=str(tmp_path))


@pytest.mark.parametrize(("old", "new"), [("sofa_final/110001_0", "bicycle_final/110001_0"), ("1 1 2 ", "1 1 1 ")])
def test_ids_that_contradict_the_folders_are_refused(tmp_path, old, new):
    base = trees.online_products(tmp_path)
    text = (base / "Ebay_train.txt").read_text()
    (base / "Ebay_train.txt").write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=r"contradict each other: .* of class \d .*super class"):
        online_products(root=str(tmp_path))

"""User folders of images: layouts, names, links and mistakes."""

import os
import warnings

import numpy as np
import pytest

import trees
from ltr.data.images.decode import decode_image
from ltr.data.source import PLAIN
from ltr.data.sources.folder import image_folder
from ltr.errors import DataError


def read(root, **options):
    return image_folder(name="own", root=str(root), **options)


def paths_of(source, root, part):
    return [os.path.relpath(source.images.path(n), root) for n in source.parts[part]]


def test_a_folder_per_class_is_divided_and_named_accordingly(tmp_path):
    root = trees.folder(tmp_path, each=10)
    source = read(root, test_fraction=0.3, split_seed=4)
    assert source.name == "own-test0.3-seed4"
    assert source.class_names == ("cat", "dog", "eel")
    assert {part: len(indices) for part, indices in source.parts.items()} == {"train": 21, "test": 9}
    for n, label in enumerate(source.labels):
        assert source.images.path(n).split("/")[-2] == source.class_names[label]


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test")])
def test_folders_of_parts_are_used_unchanged(tmp_path, parts):
    root = trees.folder(tmp_path, parts)
    source = read(root)
    assert source.name == "own"
    assert list(source.parts) == list(parts)
    for part in parts:
        expected = sorted(str(path.relative_to(root)) for path in (root / part).rglob("*.jpg"))
        assert paths_of(source, root, part) == expected


def test_with_train_and_val_only_val_is_the_test_set_and_named_accordingly(tmp_path):
    source = read(trees.folder(tmp_path, ("train", "val")))
    assert list(source.parts) == ["train", "test"]
    assert source.name == "own-val_as_test"


def test_train_without_other_parts_is_divided(tmp_path):
    source = read(trees.folder(tmp_path, ("train",)))
    assert source.name == "own-test0.2-seed0"


def test_folders_below_a_class_belong_to_it(tmp_path):
    root = trees.folder(tmp_path)
    trees.put(root / "cat" / "2024" / "june" / "1.PNG", 0)
    source = read(root)
    assert np.bincount(source.labels).tolist() == [5, 4, 4]


def test_hidden_files_and_other_files_are_skipped(tmp_path):
    root = trees.folder(tmp_path)
    for name in ("cat/.DS_Store", "cat/notes.txt", ".cache/1.jpg", "cat/.thumbs/1.jpg", "readme.md"):
        trees.put(root / name, 0)
    assert len(read(root)) == 12


def test_classes_are_sorted_by_name(tmp_path):
    root = trees.folder(tmp_path, classes=("b", "B", "a", "10", "9"))
    assert read(root).class_names == ("10", "9", "B", "a", "b")


def test_an_empty_class_is_named_with_what_counts_as_an_image(tmp_path):
    root = trees.folder(tmp_path)
    (root / "fox").mkdir()
    trees.lines(root / "fox" / "1.txt", ["text"])
    with pytest.raises(DataError, match=r"classes without an image in .*: fox\. .*\.jpeg"):
        read(root)


def test_a_class_whose_name_is_not_text_is_named(tmp_path):
    root = trees.folder(tmp_path)
    trees.put(root / os.fsdecode(b"f\xff") / "1.jpg", 0)
    with pytest.raises(DataError, match=r"not printable text .*udcff"):
        read(root)


def test_an_image_whose_name_is_not_text_is_accepted(tmp_path):
    root = trees.folder(tmp_path)
    trees.put(root / "cat" / os.fsdecode(b"f\xff.jpg"), 0)
    assert len(read(root)) == 13


def test_a_class_that_is_tested_and_not_trained_on_is_named(tmp_path):
    root = trees.folder(tmp_path, ("train", "test"))
    (root / "test" / "dog").rename(root / "test" / "dogs")
    with pytest.raises(DataError, match=r"has classes that are missing from .*train: dogs\. Did you mean 'dog'\?"):
        read(root)


def test_training_images_in_a_folder_of_another_case_are_renamed(tmp_path):
    root = trees.folder(tmp_path, ("train", "test"))
    (root / "train").rename(root / "Train")
    with pytest.raises(DataError, match=r"but no folder train\. Rename Train to train"):
        read(root)


@pytest.mark.parametrize("parts", [(), ("train", "test")])
def test_images_beside_the_class_folders_are_skipped_with_one_warning(tmp_path, parts):
    root = trees.folder(tmp_path, *([parts] if parts else []))
    length = len(read(root))
    trees.put(root / "stray.jpg", 0)
    trees.put(root / (parts[0] if parts else "") / "other.jpg", 0)
    with pytest.warns(UserWarning, match=r"skipped 2 images beside the class folders.*stray\.jpg") as warned:
        assert len(read(root)) == length
    assert len(warned) == 1


def test_a_class_may_lack_test_images(tmp_path):
    root = trees.folder(tmp_path, ("train", "test"))
    for path in (root / "test" / "dog").iterdir():
        path.unlink()
    (root / "test" / "dog").rmdir()
    with pytest.warns(UserWarning, match="1 of 3 classes have no test image.*: dog"):
        source = read(root)
    assert np.bincount(source.labels).tolist() == [8, 4, 8]


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_an_image_is_refused(tmp_path, part):
    root = trees.folder(tmp_path, ("train",))
    (root / part / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=f"no image in .*{part}.*remove the folder {part}"):
        read(root)


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "val"),
        ("train_set", "test set"),
        ("Train", "Test", "extra"),
        ("train-1", "train-2", "test-1"),
        ("training", "PublicTest", "other"),
        ("bounding_box_train", "gallery", "query", "car"),
    ],
)
def test_parts_under_another_name_are_not_read_as_classes(tmp_path, names):
    root = trees.folder(tmp_path, names)
    with pytest.raises(DataError, match=r"must be called train, val, test|no folder train"):
        read(root)


@pytest.mark.parametrize(
    ("first", "second", "is_refused"),
    [
        ("train", "test", True),
        ("Train", "val", True),
        ("images/train", "images/test", True),
        ("a/b/train2017", "a/c/val2017", True),
        ("train", "bus", False),
        ("test", "val", False),
        ("x/bullet_train", "x/test_tube", False),
    ],
)
def test_parts_inside_the_folders_of_classes_are_refused(tmp_path, first, second, is_refused):
    for class_name in ("cat", "dog"):
        for number, part in enumerate((first, second, first, second)):
            trees.put(tmp_path / class_name / part / f"{number}.png", number)
    if is_refused:
        with pytest.raises(DataError, match="Parts come before classes: move the images into train/CLASS and test/CL"):
            read(tmp_path)
    else:
        assert len(read(tmp_path)) == 8


@pytest.mark.parametrize("form", ["{0}_{1}", "{1}-{0}", "{0} {1}"])
def test_classes_of_parts_in_one_folder_are_refused(tmp_path, form):
    names = [form.format(part, class_name) for part in ("train", "test") for class_name in ("cat", "dog")]
    with pytest.raises(DataError, match="Move train_CLASS to train/CLASS"):
        read(trees.folder(tmp_path, classes=names))


def test_a_class_may_be_named_like_a_part(tmp_path):
    assert read(trees.folder(tmp_path, classes=("Train", "Testing", "car"))).num_classes == 3


def test_a_class_of_vehicles_may_be_called_train(tmp_path):
    root = trees.folder(tmp_path, classes=("train", "tram", "bus"))
    assert read(root).class_names == ("bus", "train", "tram")
    assert read(root, group="_*([0-9]+)").group == "pattern"


def test_a_class_called_train_with_folders_in_it_is_advised_on(tmp_path):
    for path in ("train/2023/1.png", "train/2024/1.png", "bus/1.png"):
        trees.put(tmp_path / path, 1)
    with pytest.raises(DataError, match="If train is a class, such as of vehicles, put the folders of all"):
        read(tmp_path)


@pytest.mark.parametrize("beside", ["extra", "test_images", "unlabeled"])
def test_images_without_classes_are_not_read_as_classes(tmp_path, beside):
    with pytest.raises(DataError, match="has the folder train and"):
        read(trees.folder(tmp_path, classes=("train", beside)))


UNREAD = ("heic", "AVIF", "mpo", "dib", "jpg_large", "rw2", "ORF", "apng", "jpg~", "xyz")
BESIDE = ("notes.txt", "a.jpg.json", "b.XML", "Thumbs.db", "desktop.ini", "c.csv", "d.xmp", "e.mp4", ".hidden.rw2")


def test_files_that_may_be_images_are_counted_by_ending(tmp_path):
    root = trees.folder(tmp_path)
    for ending in UNREAD:
        (root / "cat" / f"a.{ending}").touch()
    (root / "cat" / "b.rw2").touch()
    for name in BESIDE:
        (root / "cat" / name).touch()
    with pytest.warns(UserWarning, match=rf"skipped {len(UNREAD) + 1} files that may be images") as caught:
        assert len(read(root)) == 12
    message = next(str(one.message) for one in caught if "may be images" in str(one.message))
    for ending in ("heic", "avif", "dib", "apng"):
        assert f".{ending} (cat/a." in message
    assert not any(name in message for name in BESIDE)


def test_files_that_lie_beside_images_cause_no_warning(tmp_path):
    root = trees.folder(tmp_path)
    for name in BESIDE:
        (root / "cat" / name).touch()
    (root / "cat" / "folder.rw2").mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(read(root)) == 12
    assert not any("skipped" in str(one.message) for one in caught)


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "jfif", "jpe", "JPE"])
def test_every_ending_of_jpeg_is_read(tmp_path, ending):
    root = trees.folder(tmp_path)
    trees.put(root / "cat" / f"z.{ending}", 1)
    source = read(root)
    assert len(source) == 13
    row = next(row for row in range(13) if source.images.relative(row).endswith(f"z.{ending}"))
    assert decode_image(source.images.open(row)).size == (20, 16)


def test_an_unknown_folder_next_to_train_is_named_with_the_intended_one(tmp_path):
    root = trees.folder(tmp_path, ("train", "tests"))
    with pytest.raises(DataError, match=r"train and tests\. Did you mean 'test'\?"):
        read(root)


def test_test_without_train_is_refused(tmp_path):
    with pytest.raises(DataError, match="no folder train"):
        read(trees.folder(tmp_path, ("test",)))


def test_a_root_that_is_missing_a_file_or_empty_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, words in (("gone", "is not there"), ("file", "is a file"), ("empty", "there is no folder in")):
        with pytest.raises(DataError, match=words) as refused:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize("what", ["class", "file"])
def test_a_link_to_the_outside_is_refused_unless_its_target_is_allowed(tmp_path, what):
    root = trees.folder(tmp_path)
    trees.put(tmp_path / "elsewhere" / "1.jpg", 0)
    link, target = (root / "fox", "elsewhere") if what == "class" else (root / "cat" / "link.jpg", "elsewhere/1.jpg")
    link.symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=r"links lead outside .*dataset\.roots"):
        read(root)
    with pytest.warns(UserWarning, match="fox") if what == "class" else _nothing():
        assert len(read(root, roots=[str(tmp_path / "elsewhere")])) == 13


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *args):
        return False


def test_a_circular_link_does_not_hang(tmp_path):
    root = trees.folder(tmp_path)
    (root / "cat" / "again").symlink_to(root / "cat")
    assert len(read(root)) == 12


def test_a_link_to_another_class_reports_images_with_two_labels(tmp_path):
    root = trees.folder(tmp_path)
    (root / "fox").symlink_to(root / "cat")
    with pytest.raises(DataError, match=r"appears twice, and so do 3 others:\n  cat/0\.jpg and fox/0\.jpg"):
        read(root)


@pytest.mark.parametrize("link", ["test/cat/link.jpg", "train/dog/link.jpg", "train/cat/link.jpg"])
def test_a_link_to_a_training_image_counts_as_that_image(tmp_path, link):
    root = trees.folder(tmp_path, ("train", "test"))
    (root / link).symlink_to(root / "train" / "cat" / "train0.jpg")
    with pytest.raises(DataError, match=rf"appears twice:\n.*({link}|train/cat/train0\.jpg) and "):
        read(root)


def test_two_links_to_one_outside_image_are_reported(tmp_path):
    root = trees.folder(tmp_path)
    trees.put(tmp_path / "store" / "1.jpg", 1)
    (root / "cat" / "a.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    assert len(read(root, roots=[str(tmp_path / "store")])) == 13
    (root / "dog" / "b.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    with pytest.raises(DataError, match=r"appears twice:\n  (cat/a|dog/b)\.jpg and (cat/a|dog/b)\.jpg"):
        read(root, roots=[str(tmp_path / "store")])


def test_a_link_instead_of_an_image_is_accepted(tmp_path):
    root = trees.folder(tmp_path)
    (root / "cat" / "0.jpg").rename(tmp_path / "moved.jpg")
    (root / "cat" / "0.jpg").symlink_to(tmp_path / "moved.jpg")
    assert len(read(root, roots=[str(tmp_path)])) == 12


def test_hard_links_are_reported(tmp_path):
    root = trees.folder(tmp_path, ("train", "test"))
    os.link(root / "train" / "cat" / "train0.jpg", root / "test" / "cat" / "again.jpg")
    with pytest.warns(UserWarning, match=r"1 image files are hard links of other image files"):
        read(root)


def test_folder_names_in_different_unicode_forms_are_one_class(tmp_path):
    composed, decomposed = "gr\u00e9be", "gre\u0301be"
    root = trees.folder(tmp_path, ("train",), (composed, "owl"))
    trees.folder(tmp_path, ("test",), (decomposed, "owl"))
    trees.put(root / "train" / decomposed / "more.jpg", 0)
    source = read(root)
    assert source.class_names == (composed, "owl")
    assert {part: len(indices) for part, indices in source.parts.items()} == {"train": 9, "test": 8}


def test_images_are_rotated_by_exif_by_default(tmp_path):
    root = trees.folder(tmp_path)
    assert read(root).images.decoding.exif
    assert not read(root, exif=False).images.decoding.exif
    assert read(root).fingerprint != read(root, exif=False).fingerprint


def test_a_replaced_image_changes_the_fingerprint_if_sizes_are_included(tmp_path):
    root = trees.folder(tmp_path)
    with_sizes, without = read(root).fingerprint, read(root, file_sizes=False).fingerprint
    trees.put(root / "cat" / "0.jpg", 0, (40, 30))
    assert read(root).fingerprint != with_sizes
    assert read(root, file_sizes=False).fingerprint == without


def test_moving_the_folder_does_not_change_the_fingerprint(tmp_path):
    root = trees.folder(tmp_path)
    before = read(root)
    moved = root.rename(tmp_path / "moved")
    assert read(moved).fingerprint == before.fingerprint


def test_loops_of_links_and_pipes_are_skipped_and_named(tmp_path):
    root = trees.folder(tmp_path, each=3)
    (root / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (root / "loop").symlink_to("loop")
    (root / "dog" / "folder").symlink_to("folder")
    os.mkfifo(root / "dog" / "pipe.png")
    (root / "eel" / "gone.jpg").symlink_to("nowhere.jpg")
    with pytest.warns(UserWarning, match=r"3 entries are named like images and are not regular files") as caught:
        source = read(root)
    assert all(name in str(caught[0].message) for name in ("loop.jpg", "pipe.png", "gone.jpg"))
    assert len(source) == 9


def test_transparent_pixels_become_white_unless_another_matte_is_set(tmp_path):
    root = trees.folder(tmp_path)
    assert read(root).decoding.matte == (255, 255, 255)
    assert read(root, matte=None, exif=False).decoding == PLAIN
    ways = [{}, {"matte": None}, {"matte": "black"}, {"white_level": 4095}]
    assert len({read(root, **way).fingerprint for way in ways}) == 4


def test_files_without_an_extension_are_skipped_with_a_warning(tmp_path):
    root = trees.folder(tmp_path)
    trees.put(root / "cat" / "n01440764_2", 0)
    with pytest.warns(UserWarning, match="skipped 1 file without an extension: cat/n01440764_2.* Add the extension"):
        assert len(read(root)) == 12

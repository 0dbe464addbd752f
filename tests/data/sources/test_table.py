"""User tables of paths and labels, as CSV or Parquet."""

import os

import pyarrow
import pyarrow.parquet
import pytest

import trees
from ltr.data.sources.table import image_table
from ltr.errors import DataError


def read(file, **options):
    return image_table(name="own", file=str(file), **options)


def write(root, rows, name="images.csv"):
    """Write a table of these rows and the image of each path."""
    for row in rows[1:]:
        trees.put(root / row[0], len(row[0]))
    if name.endswith("csv"):
        trees.lines(root / name, [",".join(map(str, row)) for row in rows])
    else:
        columns = list(zip(*rows[1:]))
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(rows[0], map(list, columns)))), root / name)
    return root / name


DIVIDED = [
    ("path", "label", "split"),
    ("a/1.jpg", "dog", "test"),
    ("a/2.jpg", "cat", "train"),
    ("b/3.jpg", "dog", "train"),
    ("4.jpg", "cat", "val"),
]


@pytest.mark.parametrize("name", ["images.csv", "images.parquet"])
def test_rows_are_read_by_part_in_their_order(tmp_path, name):
    source = read(write(tmp_path, DIVIDED, name))
    assert source.name == "own"
    assert source.parts == {"train": range(2), "val": range(2, 3), "test": range(3, 4)}
    assert [os.path.relpath(source.images.path(n), tmp_path) for n in range(4)] == [
        "a/2.jpg",
        "b/3.jpg",
        "4.jpg",
        "a/1.jpg",
    ]
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 1, 0, 1]


def test_a_table_without_a_split_column_is_divided_and_named_accordingly(tmp_path):
    source = read(trees.table(tmp_path, each=10), test_fraction=0.1)
    assert {part: len(indices) for part, indices in source.parts.items()} == {"train": 27, "test": 3}
    assert source.name == "own-test0.1-seed0"


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("train", "test"), "test, train"),
        (("Training_set", "dev", "dev"), "Training_set, dev"),
        (("train/dog", "val/dog"), "train, val"),
        (("x/train", "x/val"), "train, val"),
        (("train", "extra", "seen_test"), "extra, seen_test, train"),
    ],
)
def test_folders_of_parts_that_the_table_does_not_name_are_warned_of(tmp_path, folders, named):
    rows = [(f"{folders[n % len(folders)]}/{n}.jpg", "dog") for n in range(12)]
    with pytest.warns(UserWarning, match=f"lie in the folders {named}, which .* add the column"):
        read(write(tmp_path, [("path", "label"), *rows]))


@pytest.mark.parametrize(
    "folders", [("train", "bus"), ("train",), ("val", "test"), ("a/train", "train/a"), ("", "train", "test")]
)
def test_folders_with_other_names_are_no_parts(tmp_path, folders, recwarn):
    rows = [(f"{folders[n % len(folders)]}/{n}.jpg".lstrip("/"), "dog") for n in range(12)]
    read(write(tmp_path, [("path", "label"), *rows]))
    assert not [warned for warned in recwarn if "not read as a division" in str(warned.message)]


def test_with_train_and_val_only_val_is_the_test_set(tmp_path):
    rows = [row for row in DIVIDED if row[-1] != "test"]
    source = read(write(tmp_path, rows))
    assert (source.name, list(source.parts)) == ("own-val_as_test", ["train", "test"])


@pytest.mark.parametrize("name", ["images.csv", "images.parquet"])
@pytest.mark.parametrize(
    ("column", "train", "test"),
    [
        ("part", "train", "test"),
        ("Split", "TRAIN", "VAL"),
        ("subset", "training", "dev"),
        ("x", "train_set", "test set"),
        ("x", "train-1", "seen_test"),
        ("Usage", "Training", "PublicTest"),
        ("set", "bounding_box_train", "query"),
        ("Split", "train", "extra"),
        ("data_split", "0", "1"),
        ("partition", "1", "2"),
        ("train_test", "0", "1"),
        ("Usage", "TR", "TE"),
        ("is_train", "1", "0"),
        ("is_training_image", "0", "1"),
        ("train", "True", "False"),
        ("test", "0", "1"),
        ("holdOut", "no", "yes"),
    ],
)
def test_a_division_under_another_name_is_refused(tmp_path, name, column, train, test):
    rows = [(*row[:2], column if number == 0 else test if number % 3 else train) for number, row in enumerate(DIVIDED)]
    with pytest.raises(DataError, match=f"column {column}.* is not read. Rename it to split"):
        read(write(tmp_path, rows, name))


@pytest.mark.parametrize("name", ["images.csv", "images.parquet"])
@pytest.mark.parametrize(
    ("column", "values", "is_warned"),
    [
        ("part", ["train"], False),
        ("set", ["base", "jungle", "fossil"], False),
        ("set", list(map(str, range(1, 51))), False),
        ("dog", ["0", "1"], False),
        ("train", ["0.25", "0.5", "0.75"], False),
        ("vehicle", ["train", "bus", "tram"], False),
        ("fold", ["0", "1", "2"], True),
        ("language", ["tr", "te"], False),
        ("x", ["train", "test", "bus"], True),
        ("set_id", ["1", "2", "3"], True),
        ("partition", ["labelled", "unlabelled"], True),
        ("subset", ["train", "A"], True),
    ],
)
@pytest.mark.filterwarnings("ignore:.*one image")
def test_further_columns_that_are_no_division_are_ignored(tmp_path, recwarn, name, column, values, is_warned):
    rows = [("path", "label", column), *((f"{n}.jpg", "cat", values[n % len(values)]) for n in range(60))]
    assert read(write(tmp_path, rows, name)).name == "own-test0.2-seed0"
    warned = [str(one.message) for one in recwarn if "is not read, so test images are drawn" in str(one.message)]
    assert len(warned) == is_warned


def test_truth_values_of_a_class_called_train_are_no_division(tmp_path):
    rows = [("path", "label", "train"), *((f"{n}.jpg", ("train", "bus")[n % 2], (n + 1) % 2) for n in range(8))]
    assert read(write(tmp_path, rows)).class_names == ("bus", "train")


def test_a_column_of_groups_may_be_called_like_a_division(tmp_path):
    rows = [("path", "label", "Split"), *((f"{n}.jpg", "cat", f"train{n % 4}") for n in range(8))]
    assert read(write(tmp_path, rows), group="Split").group == "Split"


def test_a_division_with_blank_cells_is_refused(tmp_path):
    rows = [(*row[:2], ("part", "train", "", "test", "test")[number]) for number, row in enumerate(DIVIDED)]
    with pytest.raises(DataError, match="which holds test, train, is not read"):
        read(write(tmp_path, rows))


def test_a_column_split_leaves_other_divisions_unread(tmp_path):
    rows = [(*row, ("part", "train", "test")[min(number, 1 + number % 2)]) for number, row in enumerate(DIVIDED)]
    assert read(write(tmp_path, rows)).name == "own"


@pytest.mark.parametrize("name", ["images.csv", "images.parquet"])
@pytest.mark.filterwarnings("ignore:.*one image")
def test_whole_numbers_are_sorted_as_numbers(tmp_path, name):
    rows = [("path", "label"), ("1.jpg", 10), ("2.jpg", 9), ("3.jpg", 10), ("4.jpg", 100)]
    assert read(write(tmp_path, rows, name)).class_names == ("9", "10", "100")


@pytest.mark.filterwarnings("ignore:.*one image")
def test_labels_of_a_csv_stay_text(tmp_path):
    rows = [
        ("path", "label"),
        ("1.jpg", "007"),
        ("2.jpg", "NA"),
        ("3.jpg", "1e3"),
        ("4.jpg", "true"),
        ("5.jpg", "true"),
    ]
    assert set(read(write(tmp_path, rows)).class_names) == {"007", "NA", "1e3", "true"}


def test_quotes_byte_order_marks_and_further_columns_are_accepted(tmp_path):
    trees.put(tmp_path / "a, b.jpg", 0)
    trees.put(tmp_path / "c.jpg", 0)
    text = '\ufeff"id","path","label"\r\n1,"a, b.jpg","x ""y"""\r\n2,c.jpg,"x ""y"""\r\n'
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    source = read(tmp_path / "t.csv")
    assert source.class_names == ('x "y"',)
    assert len(source) == 2


def test_paths_refer_to_the_root(tmp_path):
    file = write(tmp_path / "images", DIVIDED)
    moved = file.rename(tmp_path / "table.csv")
    assert len(read(moved, root=str(tmp_path / "images"))) == 4
    with pytest.raises(DataError, match="4 of 4 image files"):
        read(moved)


@pytest.mark.parametrize("inside", [True, False])
def test_absolute_paths_must_lie_in_a_named_root(tmp_path, inside):
    folder = tmp_path / "images"
    trees.put(folder / "1.jpg", 0)
    trees.put(folder / "2.jpg", 0)
    trees.lines(tmp_path / "t" / "t.csv", ["path,label", f"{folder}/1.jpg,x", f"{folder}/2.jpg,x"])
    if inside:
        assert len(read(tmp_path / "t" / "t.csv", roots=[str(folder)])) == 2
    else:
        with pytest.raises(DataError, match=r"2 of 2 image files .* lie outside") as refused:
            read(tmp_path / "t" / "t.csv")
        assert f"name the folder: dataset.roots=[{folder}]" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\n1.jpg,x\n", "has no column path; it has file, label"),
        ("path,lable\n1.jpg,x\n", r"has no column label; it has path, lable\. .* Did you mean 'lable'\?"),
        ("path,label,label\n1.jpg,x,y\n", "more than one column label"),
        ("path|label\n1.jpg|x\n", "has no column path and no column label; .*separated by commas, semicolons, tabs"),
        ("path,label\n", "has no rows"),
        ("", "cannot be read as a table"),
        ("path,label\n1.jpg\n", "cannot be read as a table"),
        ("path,label\n1.jpg,\n,x\n", "the column path of .* is empty in line 3"),
        (
            "path,label\n1.jpg,x\n1.jpg,y\n",
            r"appears twice:\n  1\.jpg \(line 2 of t\.csv\) and 1\.jpg \(line 3 of t\.csv\)",
        ),
        ('path,label\n1.jpg,x\n"1.jpg,y\n', "cannot be read as a table"),
        ("path,label\n1.jpg,x,y\n", "line 2 has 3 cells, the header has 2"),
        ("path,label\n1.jpg\n", "line 2 has 1 cell, the header has 2"),
        ("Path,LABEL\n1.jpg,x\n", r"Rename the column Path to path and the column LABEL to label$"),
        ("\npath,label\n1.jpg,x\n", "its first line must name"),
        ("path,label,split\n1.jpg,x,training\n", r"has 'training'\. Allowed are .*\. Did you mean 'train'\?"),
        ("path,label,split\n1.jpg,x,test\n", r"no row of .* is for training"),
        ("path,label,split\n1.jpg,x,train\n2.jpg,y,test\n", "labels without a training image: y"),
        ("path,label,split\n1.jpg,x,train\n2.jpg,x,test\n", "1 of 2 image files"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_wrong(tmp_path, text, words):
    trees.put(tmp_path / "1.jpg", 0)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "t.csv")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=f"there is no file {tmp_path / 'gone.csv'}"):
        read(tmp_path / "gone.csv")


def test_a_truncated_parquet_file_is_refused(tmp_path):
    file = write(tmp_path, DIVIDED, "images.parquet")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read as a table"):
        read(file)


def test_labels_that_are_not_texts_or_whole_numbers_are_refused(tmp_path):
    rows = [("path", "label"), ("1.jpg", 0.5), ("2.jpg", 1.5)]
    with pytest.raises(DataError, match="must hold texts or whole numbers, not float"):
        read(write(tmp_path, rows, "images.parquet"))


def test_a_table_is_read_with_exif_and_sizes(tmp_path):
    file = trees.table(tmp_path)
    assert read(file).images.decoding.exif
    images = read(file).images
    assert images.sizes.tolist() == [os.path.getsize(images.path(row)) for row in range(len(images))]
    assert read(file, file_sizes=False).images.sizes is None


def spellings(folder):
    """Other names of ``folder``'s image ``pics/1.jpg``."""
    (folder / "linked").symlink_to(folder / "pics")
    (folder / "pics" / "link.jpg").symlink_to("1.jpg")
    (folder / "further.jpg").symlink_to("pics/link.jpg")
    return [
        "pics/1.jpg",
        "./pics/1.jpg",
        "pics//1.jpg",
        "pics/./1.jpg",
        "pics/../pics/1.jpg",
        str(folder / "pics" / "1.jpg"),
        "linked/1.jpg",
        "pics/link.jpg",
        "linked/../further.jpg",
    ]


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_another_spelling_of_a_file_is_the_same_file(tmp_path, number, suffix):
    trees.put(tmp_path / "pics" / "1.jpg", 0)
    trees.put(tmp_path / "pics" / "2.jpg", 1)
    other = spellings(tmp_path)[number]
    rows = [("pics/1.jpg", "x", "train"), ("pics/2.jpg", "y", "train"), (other, "x", "test")]
    if suffix == "csv":
        trees.lines(tmp_path / "t.csv", ["path,label,split", *(",".join(row) for row in rows)])
    else:
        columns = dict(zip(("path", "label", "split"), map(list, zip(*rows))))
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="appears twice") as refused:
        read(tmp_path / f"t.{suffix}")
    places = ("line 2 of t.csv", "line 4 of t.csv") if suffix == "csv" else ("row 1 of t.parquet", "row 3 of")
    assert all(index in str(refused.value) for index in places)
    assert f"{other} (" in str(refused.value)


def test_a_file_with_two_labels_is_reported_without_a_split_column(tmp_path):
    trees.put(tmp_path / "1.jpg", 0)
    trees.put(tmp_path / "2.jpg", 0)
    trees.lines(tmp_path / "t.csv", ["path,label", "1.jpg,x", "2.jpg,y", "./1.jpg,y"])
    with pytest.raises(DataError, match="appears twice"):
        read(tmp_path / "t.csv")


def test_hard_links_are_reported(tmp_path):
    for number in range(3):
        trees.put(tmp_path / f"{number}.jpg", number)
    os.link(tmp_path / "0.jpg", tmp_path / "same.jpg")
    rows = ["0.jpg,x,train", "1.jpg,y,train", "2.jpg,y,test", "same.jpg,x,test"]
    trees.lines(tmp_path / "t.csv", ["path,label,split", *rows])
    with pytest.warns(UserWarning, match=r"1 image files are hard links .*0\.jpg \(line 2 .*same\.jpg \(line 5"):
        assert len(read(tmp_path / "t.csv")) == 4


def test_labels_are_compared_in_one_unicode_form(tmp_path):
    rows = [("path", "label", "split"), ("1.jpg", "gr\u00e9be", "train"), ("2.jpg", "gre\u0301be", "train")]
    rows += [("3.jpg", "gre\u0301be", "test")]
    source = read(write(tmp_path, rows))
    assert source.class_names == ("gr\u00e9be",)
    assert source.labels.tolist() == [0, 0, 0]


def test_labels_that_are_not_text_are_named(tmp_path):
    trees.put(tmp_path / "1.jpg", 0)
    (tmp_path / "t.csv").write_bytes(b"path,label\n1.jpg,gr\xe9be\n")
    with pytest.raises(DataError, match=r"labels that cannot be read in line 2\. Save the table as UTF-8"):
        read(tmp_path / "t.csv")


@pytest.mark.filterwarnings("ignore:.*one image")
@pytest.mark.parametrize("label", ["--1", "9" * 5000, "-", "\u00b2"])
def test_labels_that_only_resemble_whole_numbers_stay_text(tmp_path, label):
    source = read(write(tmp_path, [("path", "label"), ("1.jpg", 7), ("2.jpg", 7), ("3.jpg", label)]))
    assert set(source.class_names) == {"7", label}


def test_classes_without_a_test_image_are_named(tmp_path):
    rows = [("path", "label", "split"), ("1.jpg", "a", "train"), ("2.jpg", "b", "train"), ("3.jpg", "a", "test")]
    with pytest.warns(UserWarning, match="own: 1 of 2 classes have no test image.*: b"):
        read(write(tmp_path, rows))

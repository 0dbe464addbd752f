"""ltr-data: list, describe, check and pack."""

from __future__ import annotations

import csv
import functools
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import trees
from ltr.cli import run_guarded
from ltr.configuration.configs import config_names
from ltr.data.sources.download_hints import dataset_paths


@pytest.fixture
def ltr_data(run_command, tmp_path, monkeypatch):
    """Run ``ltr-data`` in an empty folder, see `run_command`."""
    from ltr.commands.data import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LTR_OUTPUTS", raising=False)
    return functools.partial(run_command, main)


@pytest.fixture
def pets(tmp_path):
    """User images in the default folder of ``dataset=folder``: 3 classes of 20."""
    return trees.folder(tmp_path / "data", each=20)


# -- list -------------------------------------------------------------------------------------------------------


def files_column(out: str) -> dict[str, str]:
    lines = out.splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("data set "))
    rows = [line.split(maxsplit=2) for line in lines[heading + 1 :] if not line.startswith(" ")]
    return {name: "built in" if (state, rest[:3]) == ("built", "in ") else state for name, state, rest in rows}


def test_the_list_has_every_config_with_its_first_line(ltr_data):
    code, out, _ = ltr_data("list")
    assert code == 0
    assert list(files_column(out)) == config_names("dataset")
    assert "A long tail of scikit-learn's handwritten digits" in " ".join(out.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_list_fits_the_terminal_and_breaks_no_word(ltr_data, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LTR_DATA", "data")
    out = ltr_data("list")[1]
    assert max(map(len, out.splitlines())) <= width
    monkeypatch.setenv("COLUMNS", "120")
    assert set(out.split()) == set(ltr_data("list")[1].split())


def test_the_list_shows_whether_files_exist(ltr_data, official_trees, monkeypatch):
    nothing = files_column(ltr_data("list")[1])
    assert nothing["digits_lt"] == "built in"
    assert set(nothing.values()) == {"built in", "-"}
    monkeypatch.setenv("LTR_DATA", str(official_trees))
    column = files_column(ltr_data("list")[1])
    assert {column[name] for name in ("cub", "inat18", "imagenet_lt", "cars", "tiny_imagenet", "folder")} == {"found"}
    assert column["cifar10"] == "-"


@pytest.mark.parametrize("name", config_names("dataset"))
def test_the_location_of_every_config_is_known(name, tmp_path):
    assert dataset_paths(name, tmp_path) is not None


def test_the_list_shows_configs_of_the_user(ltr_data, tmp_path):
    trees.lines(tmp_path / "mine" / "dataset" / "moths.yaml", ["# Moths of the garden.", "name: moths"])
    assert "Moths of the garden." in ltr_data("list", "--config-dir", tmp_path / "mine")[1]


# -- describe ---------------------------------------------------------------------------------------------------


def test_describe_prints_the_counts_of_a_long_tailed_data_set(ltr_data, tmp_path):
    code, out, err = ltr_data("describe", "digits_lt", "--out", tmp_path / "pictures")
    assert (code, err) == (0, "")
    for text in ("imbalance factor 15.33", "138 to 9", "500 images of 10 classes", "2 many", "5 medium", "3 few"):
        assert text in out
    for name in ("class_frequency.png", "contact_sheet.png"):
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.width > 500


def test_overrides_change_what_is_described(ltr_data):
    _, out, _ = ltr_data("describe", "digits_lt", "dataset.imbalance_factor=2", "evaluation.many_above=120")
    assert "imbalance factor 2.0" in out
    assert "more than 120" in out
    assert "outputs/data/digits_lt/contact_sheet.png" in out


def test_the_data_set_may_be_named_as_in_the_other_commands(ltr_data):
    assert ltr_data("describe", "dataset=digits_lt")[:2] == ltr_data("describe", "digits_lt")[:2]


def test_a_background_class_is_listed_separately(ltr_data):
    out = ltr_data("describe", "digits_bg")[1]
    assert "background share 0.7996" in out
    assert "142 to 138" in out


def test_an_open_set_split_shows_its_openness_and_the_formula(ltr_data):
    _, out, _ = ltr_data("describe", "digits_open")
    assert "openness 1 - sqrt(2K / (2K + Q)) = 0.134 for K = 6 known, Q = 4 unknown" in out


def test_a_damaged_image_does_not_stop_describe(ltr_data, pets):
    for path in (pets / "cat").iterdir():
        path.write_bytes(b"no image")
    assert ltr_data("describe", "folder")[0] == 0


# -- check ------------------------------------------------------------------------------------------------------


def test_check_passes_for_a_data_set_without_faults(ltr_data, pets):
    code, out, _ = ltr_data("check", "folder", "--workers", 1)
    assert code == 0
    assert "60 of 60 images can be decoded" in out


def test_bad_images_are_counted_shown_and_written_to_the_exclusion_list(ltr_data, pets, tmp_path):
    bad = [pets / "cat" / f"{number}.jpg" for number in range(12)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:300])
    code, out, _ = ltr_data("check", "folder", "--workers", 1, "--exclude-to", tmp_path / "bad.txt")
    assert code == 1
    assert "12 of them cannot be read, the first ten" in out
    assert out.partition("warning: ")[0].count("  cat/") == 10
    listed = (tmp_path / "bad.txt").read_text().splitlines()
    assert sorted(listed) == sorted(str(path.relative_to(pets)) for path in bad)


def test_peculiarities_are_reported_and_are_not_errors(ltr_data, pets):
    Image.new("RGB", (20, 16), (7, 7, 7)).save(pets / "cat" / "0.jpg")
    Image.new("RGBA", (20, 16), (0, 0, 0, 0)).save(pets / "cat" / "1.jpg", "PNG")
    Image.fromarray(np.arange(0, 256, dtype=np.uint16).reshape(16, 16)).save(pets / "cat" / "2.jpg", "PNG")
    code, out, _ = ltr_data("check", "folder", "--workers", 1)
    assert code == 0
    message = [line for line in out.splitlines() if line.startswith("warning: ")][:3]  # then identical images
    assert [next(word for word in ("16 bits", "transparency", "same value") if word in line) for line in message] == [
        "16 bits",
        "transparency",
        "same value",
    ]
    assert "cat/2.jpg" in message[0]
    assert "3 images" in message[2]
    code, out, _ = ltr_data("check", "folder", "dataset.white_level=255", "--workers", 1)
    assert "16 bits" not in out
    code, out, _ = ltr_data("check", "folder", "dataset.white_level=100", "--workers", 1)
    assert code == 1
    assert "its highest value is 255, above the white level of 100" in out


def test_identical_images_in_training_and_test_are_named(ltr_data, tmp_path):
    root = trees.folder(tmp_path / "data", ("train", "test"), each=1)
    code, out, _ = ltr_data("check", "folder", "--workers", 1)
    assert code == 0
    assert "warning: 6 images are byte for byte the same in different parts" in out
    assert "  train/cat/train0.jpg (train, cat) = test/cat/test0.jpg (test, cat)" in out
    assert root.is_dir()


def test_missing_files_are_one_message(ltr_data):
    code, _, err = ltr_data("check", "cub")
    assert code == 1
    assert "cub was not found" in err


def test_fewer_images_than_published_are_reported(ltr_data, tmp_path):
    trees.cub(tmp_path / "data")
    code, out, _ = ltr_data("check", "cub", "--workers", 1)
    assert code == 1
    assert "18 of 5,994" in out


def test_larger_images_than_allowed_are_refused(ltr_data, pets):
    Image.fromarray(np.zeros((100, 100), dtype=np.uint8)).save(pets / "eel" / "bomb.png")
    code, out, _ = ltr_data("check", "folder", "--workers", 1, "--max-pixels", 9_999)
    assert code == 1
    assert "100 x 100 pixels are more than the allowed 9,999" in out
    assert ltr_data("check", "folder", "--workers", 1, "--max-pixels", 10_000)[0] == 0


@pytest.mark.parametrize("kept", ["packed", "in memory"])
def test_a_bound_of_pixels_without_image_files_is_refused(ltr_data, pets, tmp_path, kept):
    words = ["digits"]
    if kept == "packed":
        words = ["folder", f"dataset.packed={tmp_path / 'pets.pack'}"]
        assert ltr_data("pack", "folder", "--to", tmp_path / "pets.pack", "--workers", 1)[0] == 0
    code, out, err = ltr_data("check", *words, "--workers", 1, "--max-pixels", 1000)
    assert code == 2
    assert not out
    assert re.search(rf"--max-pixels: .* are {kept}\. Leave it out", err)


def test_arrays_are_checked_by_their_reader(ltr_data):
    code, out, _ = ltr_data("check", "digits_lt")
    assert code == 0
    assert "1,797 images" in out


def test_control_characters_in_file_names_are_escaped(ltr_data, pets):
    (pets / "cat" / "\x1b[2J.jpg").write_bytes(b"no image")
    out = ltr_data("check", "folder", "--workers", 1)[1]
    assert "\\x1b[2J.jpg" in out
    assert "\x1b" not in out


@pytest.mark.slow
def test_check_reports_the_same_with_several_processes(ltr_data, pets):
    (pets / "dog" / "3.jpg").write_bytes(b"no image")
    alone, together = (ltr_data("check", "folder", "--workers", workers)[:2] for workers in (1, 2))
    assert alone == together
    assert alone[0] == 1


# -- pack -------------------------------------------------------------------------------------------------------


def test_packing_prints_the_training_command_and_the_file_can_be_checked_and_described(ltr_data, pets, tmp_path):
    file = tmp_path / "pets.arrow"
    code, out, _ = ltr_data("pack", "folder", "--size", 8, "--to", file, "--workers", 1)
    assert code == 0
    assert f"dataset.packed={file}" in out
    assert "exists already" in ltr_data("pack", "folder", "--size", 8, "--to", file, "--workers", 1)[1]
    code, out, _ = ltr_data("check", "folder", f"dataset.packed={file}", "--workers", 1)
    assert code == 0
    assert "60 of 60 packed images are intact" in out
    assert ltr_data("describe", "folder", f"dataset.packed={file}")[0] == 0


@pytest.mark.parametrize("dataset", ["digits_lt", "folder"])
def test_data_sets_that_cannot_be_packed_are_refused(ltr_data, pets, dataset):
    overrides = ["dataset.packed=x"] if dataset == "folder" else []
    assert ltr_data("pack", dataset, *overrides, "--to", "y")[0] == 2


# -- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "digits_l"], "Did you mean 'digits_lt'"),
        (["describe", "digits_lt", "dataset.imbalance=3"], "there is no key"),
        (["describe", "digits_lt", "dataset.imbalance_factor=0"], "imbalance_factor"),
        (["describe", "seed=3"], "the name of a data set comes first, ltr-data describe NAME seed=3"),
        (["check", "digits_lt", "--workers", "0"], "--workers 0"),
        (["pack", "folder", "--to", "x", "--size", "0"], "--size 0"),
        (["pack", "folder", "--to", "."], ". is a folder; the name of a file is needed"),
    ],
)
def test_wrong_commands_are_explained(ltr_data, arguments, message):
    code, _, err = ltr_data(*arguments)
    assert code == 2
    assert message in err
    assert len(err) < 3000


def test_list_and_describe_do_not_import_torch(tmp_path):
    code = (
        "import sys; from ltr.commands.data import main; main(['list']); main(['describe', 'digits_lt']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True).returncode == 0


def test_near_duplicates_of_training_and_test_are_named(tmp_path, capsys):
    import camera_trap_files
    from ltr.commands.data import main

    root = camera_trap_files.write(tmp_path / "traps", camera_trap_files.shots(locations=2, bursts=1))
    where = ["camera_traps", f"dataset.root={root}", "dataset.group=none", "dataset.test_fraction=0.5"]
    pairs = tmp_path / "pairs.csv"
    assert main(["check", *where, "--duplicates", "--distance", "7", "--pairs-to", str(pairs), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "test images look like a training image" in out
    assert pairs.read_text().startswith("test,train,distance")


def test_near_duplicates_are_found_by_stored_features(ltr_data, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    for number, pixels in enumerate([*images, *images[:2], *images[4:6]]):  # the copies are for testing
        path = tmp_path / "own" / ("train" if number < 8 else "test") / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    where = ["folder", "dataset.root=own", "dataset.image_size=32", "backbone.name=squeezenet1_1"]
    where += ["trainer.num_workers=0"]
    code, _, err = ltr_data("check", *where, "--duplicates", "--by", "features")
    assert code == 2
    assert "--by features: squeezenet1_1 has no pretrained weights" in err
    where += ["backbone.weights=null"]
    flags = ["--duplicates", "--by", "features", "--distance", "0.000001", "--pairs-to", "pairs.csv", "--workers", "1"]
    code, out, err = ltr_data("check", *where, *flags)
    assert code == 0, err
    assert "12 images to compute" in out
    assert "4 of 4 test images look like a training image (4 pairs, cosine distance of features at most 1e-06)" in out
    assert "the features are those of a random backbone" in err
    with open(tmp_path / "pairs.csv", newline="") as file:
        pairs = [(row["test"].split("/")[-1][:2], row["train"].split("/")[-1][:2]) for row in csv.DictReader(file)]
    assert sorted(pairs) == [("08", "00"), ("09", "01"), ("10", "04"), ("11", "05")]
    code, out, _ = ltr_data("check", *where, *flags)
    assert "features: cached stage" in out
    code, _, err = ltr_data("check", *where, "features=images", *flags)
    assert code == 2
    assert "features=images stores no features" in err
    (tmp_path / "own" / "train" / "a" / "00.png").write_bytes(b"no image")
    code, out, _ = ltr_data("check", *where, *flags)
    assert code == 1
    assert "no features are compared while images cannot be read" in out


@pytest.mark.parametrize(
    "flags",
    [
        ["--distance", "3"],
        ["--by", "features"],
        ["--duplicates", "--distance", "8"],
        ["--duplicates", "--distance", "2.5"],
        ["--duplicates", "--distance", "nan"],
        ["--duplicates", "--by", "features", "--distance", "1.5"],
        ["--duplicates", "--pairs-to", "pairs.txt"],
    ],
)
def test_wrong_flags_of_the_search_for_duplicates_are_refused(flags, capsys):
    from ltr.commands.data import main

    assert run_guarded(lambda: main(["check", "digits_lt", *flags])) == 2
    assert "error: --" in capsys.readouterr().err


def test_overrides_may_follow_flags_and_unknown_flags_are_named(ltr_data, tmp_path):
    code, out, err = ltr_data("describe", "digits_lt", "--out", "made", "dataset.imbalance_factor=5")
    assert code == 0, err
    assert "imbalance factor 5" in out
    code, _, err = ltr_data("describe", "digits_lt", "--outt", "made", "dataset.imbalance_factor=5")
    assert code == 2
    assert "--outt" in err
    code, _, err = ltr_data("list", "digits_lt")
    assert code == 2
    assert "unrecognized arguments: digits_lt" in err


def test_backslashes_in_the_paths_of_a_table_are_explained(ltr_data, tmp_path):
    (tmp_path / "images.csv").write_text("path,label\na\\1.jpg,x\na\\2.jpg,y\n")
    code, _, err = ltr_data("describe", "table", "dataset.file=images.csv")
    assert code == 1
    assert "Paths have backslashes; write them with /" in err


# -- outputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["check", "folder", "--exclude-to", "bad.txt"],
        ["import", "folder", "--to", "bad.csv"],
        ["check", "folder", "--duplicates", "--pairs-to", "bad.csv"],
    ],
)
def test_a_list_that_the_data_set_reads_is_not_replaced(ltr_data, pets, tmp_path, words):
    listed = tmp_path / words[-1]
    listed.write_text("cat/1.jpg\n")
    (tmp_path / "link.txt").symlink_to(listed)
    for name in (words[-1], "link.txt"):
        code, out, err = ltr_data(*words, f"dataset.exclude={name}")
        assert (code, out, "the command reads this file" in err) == (2, "", True), err
    assert listed.read_text() == "cat/1.jpg\n"

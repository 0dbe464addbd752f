"""Mining: the best images of a pool for each class, resuming, and escaped names in sheets."""

from __future__ import annotations

import csv
import os
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from ltr.apply.contact_sheet import write_candidates, write_sheets
from ltr.apply.mine import NO_IMAGE, Ranking, mine, rare_classes, without
from ltr.apply.pool import image_pool
from ltr.data.images.real_paths import first_of_each
from ltr.errors import ConfigError, DataError


def everything(model, pool) -> tuple[list[str], np.ndarray]:
    """Paths that can be read, and the probabilities of all classes."""
    from ltr.apply.reading import batches

    files = image_pool(pool)
    paths, predictions = [], []
    for indices, images, _ in batches(files, model):
        paths += [files.relative(index) for index in indices]
        predictions.append(model.scores(images).logits.softmax(dim=1))
    return paths, torch.cat(predictions).numpy()


def test_a_ranking_is_that_of_sorting_all_images(redness, pool, tmp_path):
    model = redness()
    files = image_pool(pool)
    mined = mine(model, files, np.array([3, 5]), tmp_path / "out", top=4)
    paths, p = everything(model, pool)
    for row, label in enumerate((3, 5)):
        wanted = [paths[index] for index in np.argsort(-p[:, label], kind="stable")[:4]]
        assert [files.relative(image) for image in mined.ranking.images[row]] == wanted
        np.testing.assert_allclose(mined.ranking.probability[row], np.sort(p[:, label])[::-1][:4], rtol=1e-6)
    assert len(mined.broken) == 2


def test_equal_probabilities_are_ranked_in_the_order_of_the_pool():
    ranking = Ranking.empty(np.array([0]), 3)
    same = np.full((2, 1), 0.5, np.float32)
    for start in (0, 2, 4):
        indices = np.arange(start, start + 2)
        ranking.add(indices, same, np.zeros(2, np.int64), same[:, 0])
    assert ranking.images.tolist() == [[0, 1, 2]]


def test_fewer_images_than_requested_leave_ranks_empty(redness, pool, tmp_path):
    mined = mine(redness(), image_pool(pool), np.array([0]), tmp_path / "out", top=20)
    assert (mined.ranking.images[0] != NO_IMAGE).sum() == 11
    assert write_candidates(tmp_path / "c.csv", mined, redness(), image_pool(pool)) == 11


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 5, 9])
def test_a_killed_run_resumes_and_ends_with_the_same_bits(redness, pool, tmp_path, after):
    model, files, classes = redness(batch_size=2), image_pool(pool), np.array([1, 4, 5])
    whole = mine(model, files, classes, tmp_path / "whole", top=5, chunk=4)
    done = 0

    def until(number: int) -> None:
        nonlocal done
        done += number
        if done > after:
            raise Killed

    with pytest.raises(Killed):
        mine(model, files, classes, tmp_path / "out", top=5, chunk=4, advance=until)
    rest: list[int] = []
    again = mine(model, files, classes, tmp_path / "out", top=5, chunk=4, advance=rest.append)
    assert again.resumed_at == after // 4 * 4
    assert sum(rest) == 13 - again.resumed_at
    for name in ("images", "probability", "predicted", "confidence"):
        assert (getattr(again.ranking, name) == getattr(whole.ranking, name)).all()
    assert again.broken == whole.broken


def test_finished_mining_is_not_repeated(redness, pool, tmp_path):
    mine(redness(), image_pool(pool), np.array([0]), tmp_path / "out")
    advanced: list[int] = []
    mined = mine(redness(), image_pool(pool), np.array([0]), tmp_path / "out", advance=advanced.append)
    assert mined.resumed_at == 13
    assert not advanced


@pytest.mark.parametrize(
    "change", [{"identity": "other"}, {"top": 7}, {"classes": np.array([2])}, {"places": np.arange(5)}]
)
def test_a_state_of_other_settings_is_refused_unless_again_is_set(redness, pool, tmp_path, change):
    common = {"classes": np.array([0]), "top": 3}
    mine(redness(), image_pool(pool), folder=tmp_path / "out", **common)
    with pytest.raises(ConfigError, match="--again"):
        mine(redness(), image_pool(pool), folder=tmp_path / "out", **{**common, **change})
    mine(redness(), image_pool(pool), folder=tmp_path / "out", again=True, **{**common, **change})


def test_a_damaged_state_is_named(redness, pool, tmp_path):
    (tmp_path / ".mining.npz").write_bytes(b"half")
    with pytest.raises(ConfigError, match="damaged"):
        mine(redness(), image_pool(pool), np.array([0]), tmp_path)


def test_rare_classes_are_the_few_shot_ones_by_default(redness):
    # 1000, 125, 37, 15, 8, 4 training images
    assert rare_classes(redness(), [], "few").tolist() == [3, 4, 5]
    assert rare_classes(redness(), [], "few", few_below=10).tolist() == [4, 5]
    assert rare_classes(redness(), [], "medium").tolist() == [2]
    assert rare_classes(redness(), ["class 5", "class 0"], "few").tolist() == [0, 5]


def test_mining_for_the_background_is_refused(redness):
    model = redness(background=5)
    assert rare_classes(model, [], "few").tolist() == [3, 4]
    assert rare_classes(model, [], "all").tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="does not know"):
        rare_classes(model, ["class 5"], "few")


def test_all_classes_of_one_name_in_an_earlier_checkpoint_are_mined_for(redness):
    model = redness()
    model.network.dataset_info.class_names = (*model.class_names[:4], "Iris", "Iris")
    assert rare_classes(model, [], "few").tolist() == [3, 4, 5]
    assert rare_classes(model, ["Iris"], "few").tolist() == [4, 5]


def test_unknown_classes_are_named(redness):
    with pytest.raises(ConfigError, match="Did you mean 'class 1'"):
        rare_classes(redness(), ["clas 1"], "few")
    with pytest.raises(ConfigError, match="2 many, 0 medium, 0 few"):
        rare_classes(redness(classes=2), [], "few")


def test_labelled_images_are_excluded_under_any_spelling_of_their_paths(pool, tmp_path):
    files = image_pool(pool)
    (tmp_path / "labelled.csv").write_text(
        f"path,label\npart 0/00.png,x\n{pool}/part 1/01.png,y\npool/part 0/02.png,z\n"
    )
    left = {files.relative(index) for index in without(files, tmp_path / "labelled.csv")}
    assert left == {files.relative(index) for index in range(13)} - {"part 0/00.png", "part 1/01.png", "part 0/02.png"}


@pytest.mark.parametrize("spelling", ["./part 0//00.png", "part 1/../part 0/00.png", "pool/link/00.png", "pool/00.png"])
def test_another_spelling_or_link_is_the_same_image(pool, tmp_path, spelling):
    files = image_pool(pool)
    (pool / "link").symlink_to(pool / "part 0")
    (pool / "00.png").symlink_to("part 0/00.png")
    (tmp_path / "labelled.csv").write_text(f"path, label\n{spelling}, x\n")
    left = {files.relative(index) for index in without(files, tmp_path / "labelled.csv")}
    assert "part 0/00.png" not in left
    assert "part 0/02.png" in left


def test_an_image_listed_twice_in_a_pool_counts_once(pool):
    rows = ["part 0/00.png", "./part 0/00.png", "part 0/01.png", f"{pool}/part 0/01.png", "part 0/00.png"]
    (pool / "t.csv").write_text("path\n" + "\n".join(rows) + "\n")
    assert first_of_each(image_pool(pool / "t.csv")).tolist() == [0, 2]


def test_class_names_are_compared_in_one_unicode_form(redness):
    model = redness()
    model.network.dataset_info.class_names = ("gre\u0301be", *model.class_names[1:])
    assert rare_classes(model, ["gr\u00e9be"], "few").tolist() == [0]


def test_a_table_that_excludes_no_image_is_an_error(pool, tmp_path):
    (tmp_path / "labelled.csv").write_text("path\nelsewhere.png\n")
    with pytest.raises(DataError, match="none of its 1 paths"):
        without(image_pool(pool), tmp_path / "labelled.csv")
    with pytest.raises(DataError, match="no such table"):
        without(image_pool(pool), tmp_path / "nothing.csv")


def test_the_table_has_the_ranking_and_a_column_to_fill_in(redness, pool, tmp_path):
    model, files = redness(), image_pool(pool)
    mined = mine(model, files, np.array([3, 5]), tmp_path / "out", top=4)
    write_candidates(tmp_path / "c.csv", mined, model, files)
    with open(tmp_path / "c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["rank"]) for row in rows] == [
        (name, str(rank)) for name in ("class 3", "class 5") for rank in range(1, 5)
    ]
    assert {row["label"] for row in rows} == {""}
    assert rows[0]["path"] == files.relative(int(mined.ranking.images[0, 0]))


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def test_a_sheet_escapes_names(redness, tmp_path, draw):
    model = redness(classes=3)
    model.network.dataset_info.class_names = (HOSTILE, "</title><b>", "c")
    name = '<img src=x onerror=alert(3)>".png'
    draw(tmp_path / "pool" / name, 0)
    draw(tmp_path / "pool" / os.fsdecode(b"\xff.png"), 1)
    files = image_pool(tmp_path / "pool")
    mined = mine(model, files, np.array([0, 1]), tmp_path / "out", top=2)
    (sheet,) = write_sheets(tmp_path / "out", mined, model, files, title=HOSTILE, thumbnails=2)
    config = Elements(sheet.read_text(encoding="utf-8"))
    assert not config.all("script")
    assert all("onerror" not in attributes for _, attributes in config.tags)
    assert len(config.all("img")) == 4
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in config.all("img"))
    assert HOSTILE in config.text
    assert name in config.text


def test_a_sheet_shows_the_end_of_a_long_file_name(redness, tmp_path, draw):
    model = redness(classes=3)
    names = [f"2024-05-13_station-17-north-slope_reconyx-hyperfire_{number:04d}.png" for number in (7, 8)]
    for name in names:
        draw(tmp_path / "pool" / name, 0)
    files = image_pool(tmp_path / "pool")
    mined = mine(model, files, np.array([0]), tmp_path / "out", top=2)
    (sheet,) = write_sheets(tmp_path / "out", mined, model, files, title="t", thumbnails=2)
    config = Elements(sheet.read_text(encoding="utf-8"))
    for name in names:
        assert name not in config.text
        assert f"…{name[-35:]}" in config.text
    assert {figure["title"] for figure in config.all("figure")} == set(names)


def test_a_sheet_shows_the_order_of_small_probabilities(redness, pool, tmp_path):
    model, files = redness(), image_pool(pool)
    mined = mine(model, files, np.array([0]), tmp_path / "out", top=2)
    mined.ranking.probability[0, :2] = (3e-5, 2e-5)
    (sheet,) = write_sheets(tmp_path / "out", mined, model, files, title="t", thumbnails=2)
    text = Elements(sheet.read_text(encoding="utf-8")).text
    assert "1 · log-odds -10.41" in text
    assert "2 · log-odds -10.82" in text


def test_many_classes_are_spread_over_sheets(redness, pool, tmp_path):
    model = redness(classes=90)
    files = image_pool(pool)
    mined = mine(model, files, np.arange(85), tmp_path / "out", top=1)
    (tmp_path / "out" / "sheet.html").write_text("of another time")
    sheets = write_sheets(tmp_path / "out", mined, model, files, title="t", thumbnails=1)
    assert [sheet.name for sheet in sheets] == ["sheet-1.html", "sheet-2.html", "sheet-3.html"]
    assert not (tmp_path / "out" / "sheet.html").exists()
    assert [len(Elements(sheet.read_text()).all("h2")) for sheet in sheets] == [40, 40, 5]


def test_an_image_removed_meanwhile_leaves_an_empty_cell(redness, pool, tmp_path):
    model, files = redness(), image_pool(pool)
    mined = mine(model, files, np.array([0]), tmp_path / "out", top=2)
    os.unlink(files.path(int(mined.ranking.images[0, 0])))
    (sheet,) = write_sheets(tmp_path / "out", mined, model, files, title="t", thumbnails=2)
    assert len(Elements(sheet.read_text()).all("img")) == 1
    assert '<span class="gone">cannot be read</span>' in sheet.read_text()

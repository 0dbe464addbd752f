"""ltr-mine on stored features: one pass of the backbone per image, and the ranking of images."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from ltr.apply import pool_features
from ltr.cli import run_guarded
from ltr.data.sources.digits import digits

pytestmark = pytest.mark.filterwarnings("ignore:.*(at random values|of a random backbone).*")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run of features=stored, made once."""
    from ltr.cli import train_main

    outputs = tmp_path_factory.mktemp("stored")
    short = ["features=stored", "trainer.precision=fp32", "trainer.max_epochs=1", "figures=none"]
    assert train_main([f"paths.outputs={outputs}", "callbacks.progress=none", *short]) == 0
    return next(path.parent for path in outputs.glob("*/*/*/result.json"))


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    draw(folder, range(30))
    (folder / "0007 broken.png").write_bytes(b"no image")
    return folder


def draw(folder, numbers):
    for index in numbers:
        Image.fromarray(digits().images[index, :, :, 0]).save(folder / f"{index:04d}.png")


@pytest.fixture
def command(run_command, tmp_path, monkeypatch, run, pool):
    """Run ``ltr-mine`` on the pool with the flags that go with those of the test, see `run_command`."""
    from ltr.commands.mine import main

    monkeypatch.chdir(tmp_path)

    def mine(out, *arguments):
        flags = [] if "images" in arguments else ["--stages", "stages"]
        flags += [] if "--budget" in arguments else ["--classes", "3,8", "--top", "9"]
        return run_command(main, run, pool, "--out", out, "--workers", "0", *flags, *arguments)

    return mine


@pytest.fixture
def without_backbone(monkeypatch):
    """Make every pass through the backbone an error."""

    def refuse(*arguments):
        raise AssertionError("the backbone was run")

    return lambda: monkeypatch.setattr(pool_features, "backbone_features", refuse)


def ranking(folder) -> list[tuple[str, str]]:
    with open(folder / "candidates.csv", newline="") as file:
        return [(row["class"], row["path"]) for row in csv.DictReader(file)]


def probabilities(folder) -> list[float]:
    with open(folder / "candidates.csv", newline="") as file:
        return [float(row["probability"]) for row in csv.DictReader(file)]


def test_stored_features_give_the_ranking_of_images(command, tmp_path):
    code, out, err = command("stored")
    assert code == 0, err
    assert "features: 0 of 31 images are stored" in out
    assert "30 images ranked for" in out
    assert "0007 broken.png" in err
    code, out, err = command("images", "--features", "images")
    assert code == 0, err
    assert "features:" not in out
    assert ranking(tmp_path / "stored") == ranking(tmp_path / "images")
    np.testing.assert_allclose(probabilities(tmp_path / "stored"), probabilities(tmp_path / "images"), atol=1e-5)


def test_a_second_round_gives_the_same_bits_without_the_backbone(command, tmp_path, without_backbone):
    assert command("first")[0] == 0
    without_backbone()
    code, out, err = command("second")
    assert code == 0, err
    assert "features: 30 of 31 images are stored" in out
    assert "0007 broken.png" in err  # it is tried again: no features say that it is broken
    assert (tmp_path / "second" / "candidates.csv").read_bytes() == (tmp_path / "first" / "candidates.csv").read_bytes()


@pytest.mark.parametrize("strategy", ["coreset", "margin"])
def test_another_strategy_reads_the_same_features(command, tmp_path, without_backbone, strategy):
    assert command("first")[0] == 0
    without_backbone()
    code, _, err = command(strategy, "--strategy", strategy, "--budget", "5")
    assert code == 0, err
    assert len(ranking(tmp_path / strategy)) == 5


def test_another_batch_size_reads_the_same_features(command, tmp_path):
    assert command("first", "--batch-size", "7", "--chunk", "14")[0] == 0
    assert command("images", "--features", "images")[0] == 0
    assert ranking(tmp_path / "first") == ranking(tmp_path / "images")


def test_only_new_images_of_a_grown_pool_are_computed(command, pool, tmp_path, monkeypatch):
    assert command("first")[0] == 0
    draw(pool, [100, 101])
    seen = []
    compute = pool_features.backbone_features
    monkeypatch.setattr(pool_features, "backbone_features", lambda *args: seen.append(len(args[1])) or compute(*args))
    code, out, err = command("second")
    assert code == 0, err
    assert "features: 30 of 33 images are stored, 30 of them in tables of other images" in out
    assert sum(seen) == 2


def test_features_of_a_replaced_file_are_computed_again(command, pool, tmp_path):
    assert command("first")[0] == 0
    Image.fromarray(digits().images[500, :, :, 0]).save(pool / "0003.png")
    code, out, err = command("second")
    assert code == 0, err
    assert "features: 29 of 31 images are stored" in out
    assert command("images", "--features", "images")[0] == 0
    assert ranking(tmp_path / "second") == ranking(tmp_path / "images")


def test_an_interrupted_run_keeps_the_features_that_it_computed(command, monkeypatch, tmp_path):
    compute = pool_features.backbone_features
    calls = iter(range(9))

    def dying(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return compute(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pool_features, "backbone_features", dying)
        assert command("first", "--batch-size", "10", "--chunk", "10")[0] != 0
    code, out, err = command("first", "--batch-size", "10", "--chunk", "10")
    assert code == 0, err
    assert "features: 19 of 31 images are stored" in out
    assert command("images", "--features", "images")[0] == 0
    assert ranking(tmp_path / "first") == ranking(tmp_path / "images")


def test_a_store_that_cannot_be_written_is_reported(command, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = command("first", "--stages", "file")
    assert code == 2
    assert "Name a folder that can be written: --stages" in err


def test_features_of_a_run_on_images_are_refused(finished_run, pool, capsys, tmp_path, monkeypatch):
    from ltr.commands.mine import main

    monkeypatch.chdir(tmp_path)
    code = run_guarded(lambda: main([str(finished_run), str(pool), "--out", "mined", "--features", "stored"]))
    assert code == 2
    assert "--features stored: the run was trained on images" in capsys.readouterr().err

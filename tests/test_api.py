"""The Python face: train, load, predict."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import ltr
from ltr.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("loaded")
    return ltr.load(ltr.train([f"paths.outputs={outputs}", "debug=fast"], quiet=True).directory)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "focal_sigmoid"])
def test_a_loaded_run_predicts_what_the_run_recorded(tmp_path, loss):
    import pyarrow.parquet as pq

    short = [f"paths.outputs={tmp_path}", "trainer.max_epochs=2", "trainer.precision=fp32", f"loss={loss}"]
    outcome = ltr.train(short, quiet=True)
    classifier = ltr.load(outcome.directory, accelerator="cpu", precision="fp32")
    from ltr.data.sources.digits import digits

    source = digits()
    recorded = pq.read_table(outcome.directory / "predictions.parquet").to_pydict()
    probabilities = classifier.predict(source.images[recorded["id"]], batch_size=33)
    assert probabilities.shape == (len(recorded["id"]), 10)
    np.testing.assert_array_equal(probabilities.argmax(1), recorded["prediction"])
    best = np.array([scores[0] for scores in recorded["scores"]])
    np.testing.assert_allclose(probabilities.max(1), best, rtol=1e-4)
    if loss == "cross_entropy":
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert classifier.class_names == tuple(str(digit) for digit in range(10))


def test_predicting_no_images_returns_no_probabilities(loaded):
    assert loaded.predict(np.empty((0, 8, 8, 1), np.uint8)).shape == (0, 10)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 1), np.float32), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 1, 8, 8), np.uint8)],
    ids=["floats", "without channels", "channels first"],
)
def test_images_that_the_network_would_misread_are_refused(loaded, images):
    with pytest.raises(ConfigError, match=r"the network reads uint8 \[N, H, W, 1\]. Give pixels"):
        loaded.predict(images)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (["a.jpg"], r"images: list of str, and the network reads an array, uint8 \[N, H, W, 1\]\. .* run ltr-predict"),
        ("photos", "images: str, and .* ltr-predict"),
        ([Image.new("L", (8, 8))], r"images: list of Image, .* np\.stack"),
    ],
)
def test_what_is_not_an_array_is_refused_with_what_is_read(loaded, images, words):
    with pytest.raises(ConfigError, match=words):
        loaded.predict(images)


def test_images_of_another_size_are_predicted_with_a_warning(loaded):
    with pytest.warns(UserWarning, match=r"images of 12x16 pixels .* trained on 8x8\. predict does not resize"):
        assert loaded.predict(np.zeros((2, 12, 16, 1), np.uint8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("method=crt", r"a list is needed\. Write ltr\.config\(\['method=crt'\]\)"),
        ([1], "a list of texts is needed"),
        (None, "a list of texts is needed"),
        (["--config-dir", "configs"], "--config-dir: a flag of ltr-train, .* config_dir='FOLDER'"),
    ],
)
def test_overrides_that_are_not_a_list_of_texts_are_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        ltr.config(overrides)


def test_own_configs_and_code_are_used_from_python(tmp_path, monkeypatch):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: api_losses.Mine\n")
    (tmp_path / "api_losses.py").write_text(
        "from ltr.losses.classification import CrossEntropy\n\n\nclass Mine(CrossEntropy):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"config_dir": tmp_path, "allow": "api_losses"}
    assert ltr.config(["loss=mine"], **own)["loss"]["_target_"] == "api_losses.Mine"
    with pytest.raises(ConfigError, match="not in an allowed package"):
        ltr.config(["loss=mine"], config_dir=tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        ltr.config(config_dir=tmp_path / "nowhere")
    run = ltr.train(["loss=mine", "debug=fast", f"paths.outputs={tmp_path}"], quiet=True, **own).directory
    with pytest.raises(CheckpointError, match="not in an allowed package"):
        ltr.load(run)
    assert ltr.load(run, allow=["api_losses"]).predict(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)


def test_unknown_views_are_refused(loaded):
    with pytest.raises(
        ConfigError, match=r"views=flips: allowed is one of: flip, five_crops, ten_crops\. Did you mean 'flip'"
    ):
        loaded.predict(np.zeros((2, 8, 8, 1), np.uint8), views="flips")


def test_loading_a_missing_run_is_a_readable_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such run"):
        ltr.load(tmp_path / "nowhere")


def test_a_wrong_override_raises_with_its_range():
    with pytest.raises(ConfigError, match=r"batch_size=0.*int \[1, inf\)"):
        ltr.train(["batch_size=0"])


def test_importing_the_package_does_not_import_torch():
    code = "import sys, ltr; print(sorted({'torch', 'numpy', 'hydra', 'pytorch_lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

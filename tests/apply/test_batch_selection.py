"""Selecting a batch to label from a pool: resuming, and wrong input."""

import json

import numpy as np
import pytest

from ltr.apply.acquisition import Selection, select
from ltr.apply.batch_selection import STATE, as_ranking, class_budgets, pool_scores, predict_pool
from ltr.apply.pool import image_pool
from ltr.errors import ConfigError, DataError
from ltr.evaluation.scores import Scores


def predicted(model, pool, folder, **options):
    files = image_pool(pool)
    options = {"with_features": False, "chunk": 4, **options}
    return predict_pool(model, files, np.arange(len(files)), folder, **options)


def test_an_interrupted_prediction_resumes_with_the_same_result(redness, pool, tmp_path):
    model = redness()
    whole = predicted(model, pool, tmp_path / "a")
    assert len(whole.places) == 11
    assert {row.path for row in whole.broken} == {"part 0/05 broken.jpg", "part 1/empty.png"}
    predicted(model, pool, tmp_path / "b")
    for chunk in sorted((tmp_path / "b" / STATE).glob("*.npz"))[1:]:
        chunk.unlink()
    starts = []
    again = predicted(model, pool, tmp_path / "b", started=starts.append)
    assert starts == [4]
    assert again.resumed_at == 4
    np.testing.assert_array_equal(again.probabilities, whole.probabilities)
    np.testing.assert_array_equal(again.places, whole.places)
    assert again.broken == whole.broken


def test_chunks_of_other_weights_are_refused_and_discarded_on_request(redness, pool, tmp_path):
    predicted(redness(), pool, tmp_path)
    with pytest.raises(ConfigError, match="other images, weights, classes or settings"):
        predicted(redness(), pool, tmp_path, identity="of other weights")
    assert predicted(redness(), pool, tmp_path, identity="of other weights", again=True).resumed_at == 0


def test_a_damaged_chunk_is_named(redness, pool, tmp_path):
    predicted(redness(), pool, tmp_path)
    chunk = tmp_path / STATE / "000001.npz"
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(ConfigError, match=r"000001.npz is damaged .*--again starts over"):
        predicted(redness(), pool, tmp_path)


def test_a_network_without_features_is_reported(redness, pool, tmp_path):
    with pytest.raises(ConfigError, match="gives no features"):
        predicted(redness(), pool, tmp_path, with_features=True)


def test_a_chunk_without_a_readable_image_does_not_affect_other_features(redness, pool, tmp_path):
    """The last of four chunks is one empty file."""
    model = redness()
    plain = model.network.predict

    def with_features(images):
        return {"default": Scores(plain(images)["default"].logits, images.float().mean(dim=(2, 3)))}

    model.network.predict = with_features
    predictions = predicted(model, pool, tmp_path, with_features=True)
    assert predictions.features.shape == (11, 3)


def test_a_pool_that_cannot_be_read_is_an_error(redness, tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="not one of the 1 images can be read"):
        predicted(redness(), tmp_path / "pool", tmp_path / "out")


def test_a_selection_is_listed_by_class_in_its_order(redness, pool, tmp_path):
    model = redness()
    predictions = predicted(model, pool, tmp_path)
    is_candidate = np.ones(len(predictions.places), dtype=bool)
    is_candidate[:2] = False
    selection = select("probability", pool_scores(model, predictions, is_candidate), {3: 2, 5: 3})
    rows = np.flatnonzero(is_candidate)
    ranking = as_ranking(selection, predictions, rows)
    assert ranking.classes.tolist() == [3, 5]
    for row, label in enumerate((3, 5)):
        chosen = selection.images[selection.classes == label]
        assert ranking.images[row, : len(chosen)].tolist() == predictions.places[rows[chosen]].tolist()
        expected = predictions.probabilities[rows[chosen], label]
        np.testing.assert_array_equal(ranking.probability[row, : len(chosen)], expected)
    assert not set(ranking.images.ravel().tolist()) & set(predictions.places[:2].tolist())


def test_images_selected_for_no_class_are_listed_under_the_predicted_one(redness, pool, tmp_path):
    predictions = predicted(redness(), pool, tmp_path)
    selection = Selection(np.arange(4), np.full(4, -1), np.zeros(4))
    ranking = as_ranking(selection, predictions, np.arange(len(predictions.places)))
    assert set(ranking.classes) == set(predictions.probabilities[:4].argmax(axis=1))
    assert (ranking.images >= 0).sum() == 4


@pytest.mark.parametrize("text", ["class 9=3", "class 1", "class 1=many", "=3", "class 2=3"])
def test_wrong_budgets_are_explained(redness, text):
    with pytest.raises(ConfigError, match="give NAME=N"):
        class_budgets(redness(), np.array([1, 3]), 10, [text])


def test_budgets_of_single_classes_override_the_common_one(redness):
    assert class_budgets(redness(), np.array([1, 3]), 10, ["class 3=2"]) == {1: 10, 3: 2}
    with pytest.raises(ConfigError, match="all budgets are 0"):
        class_budgets(redness(), np.array([1]), 10, ["class 1=0"])


def test_the_stored_key_is_json(redness, pool, tmp_path):
    predicted(redness(), pool, tmp_path)
    assert len(json.loads((tmp_path / STATE / "key.json").read_text())) == 64

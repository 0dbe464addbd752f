"""Detectors of the optional package pytorch-ood: which are served, what they are fitted to, which way round."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from ltr.errors import ConfigError
from ltr.evaluation.detectors import Detector
from ltr.evaluation.scorers import known_scores
from ltr.evaluation.scores import Scores
from ltr.evaluation.training_scores import TrainingScores, TrainingScoresTable


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the optional package, with its interface."""

    class LogitsDetector:
        requires_fit = False

        def __init__(self, model):
            assert model is None

    class FeaturesDetector:
        requires_fit = False

        def __init__(self, encoder):
            assert encoder is None

    class Smallest(LogitsDetector):
        def predict_logits(self, logits):
            return logits.amin(dim=1)

    class Centre(FeaturesDetector):
        """The distance to the centre of the training images, fitted by a gradient as some of the package are."""

        requires_fit = True

        def fit_features(self, features, labels):
            assert len(features) == len(labels)
            centre = torch.zeros(features.shape[1], requires_grad=True)
            (features - centre).square().sum().backward()
            self.centre = centre.grad / (-2 * len(features))

        def predict_features(self, features):
            return (features - self.centre).norm(dim=1)

    class Linear(FeaturesDetector):
        def __init__(self, encoder, head, w, b, d):
            assert head.weight.equal(w)
            self.w, self.b, self.d = w, b, d

        def predict_features(self, features):
            return (features @ self.w.T + self.b).amax(dim=1)

    class Broken(Centre):
        def fit_features(self, features, labels):
            raise ValueError("k=50 exceeds the number of images")

    class Weighted(Smallest):
        def __init__(self, model, weights):
            raise AssertionError

    package, api, detector = (ModuleType(name) for name in ("pytorch_ood", "pytorch_ood.api", "pytorch_ood.detector"))
    api.LogitsDetector, api.FeaturesDetector = LogitsDetector, FeaturesDetector
    for one in (Smallest, Centre, Linear, Broken, Weighted):
        setattr(detector, one.__name__, one)
    detector.GEN, detector.KNN, detector.ViM = Smallest, Centre, Linear
    for module in (package, api, detector):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_score_of_a_detector_is_negated(package):
    logits = random(8, 4)
    assert known_scores("pytorch_ood.Smallest", Scores(logits), "softmax").equal(-logits.double().amin(dim=1))


def test_a_detector_of_features_is_fitted_to_training_features(package):
    features, others = random(50, 3) + 2, random(8, 3, seed=1)
    with torch.inference_mode():  # as in an evaluation
        detector = Detector(name="pytorch_ood.Centre")
        detector.fit(TrainingScores(random(50, 4), features + 0, torch.zeros(50, dtype=torch.int64)))
        scores = known_scores(detector, Scores(random(8, 4), others), "sigmoid")
    torch.testing.assert_close(scores, -(others - features.mean(0)).norm(dim=1).double())


def test_the_linear_classifier_is_recovered_from_logits_and_features(package):
    features, weight, bias = random(50, 6), random(4, 6, seed=1), random(4, seed=2)
    detector = Detector(name="pytorch_ood.Linear")
    assert detector.needs_training
    detector.fit(TrainingScores(features @ weight.T + bias, features, torch.zeros(50, dtype=torch.int64)))
    torch.testing.assert_close(detector._fitted.w, weight)
    torch.testing.assert_close(detector._fitted.b, bias)
    assert detector._fitted.d == 3


def test_logits_that_no_linear_classifier_gives_are_refused(package):
    training = TrainingScores(random(50, 4), random(50, 6, seed=1), torch.zeros(50, dtype=torch.int64))
    with pytest.raises(ConfigError, match="needs a linear classifier"):
        Detector(name="pytorch_ood.Linear").fit(training)


def test_the_reason_of_a_failed_fit_is_reported(package):
    training = TrainingScores(random(5, 4), random(5, 6), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ConfigError, match="cannot be fitted to these 5 training images: k=50 exceeds"):
        Detector(name="pytorch_ood.Broken").fit(training)


@pytest.mark.parametrize("name", ["Weighted", "smallest"])
def test_a_detector_that_needs_more_than_scores_is_refused(package, name):
    with pytest.raises(ConfigError, match=r"there are .*pytorch_ood\.Smallest"):
        known_scores(f"pytorch_ood.{name}", Scores(random(8, 4)), "softmax")


def test_a_detector_of_logits_is_refused_for_a_sigmoid(package):
    with pytest.raises(ConfigError, match="softmax"):
        known_scores("pytorch_ood.Smallest", Scores(random(8, 4)), "sigmoid")


def test_without_the_package_the_error_names_its_installation(monkeypatch):
    # an imported submodule would be found without asking for its package
    for module in [name for name in sys.modules if name.startswith("pytorch_ood.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pytorch_ood", None)
    with pytest.raises(ConfigError, match=r"pip install 'ltr\[ood\]'"):
        known_scores("pytorch_ood.GEN", Scores(random(8, 4)), "softmax")


def test_scores_are_collected_in_the_order_of_the_images():
    table = TrainingScoresTable()
    logits = random(6, 2)
    for part in ([4, 1, 0], [5, 2, 3]):
        indices = torch.tensor(part)
        table.update(Scores(logits[indices]), indices * 10, indices)
    assert table.joined().logits.equal(logits)
    assert table.joined().labels.tolist() == [0, 10, 20, 30, 40, 50]
    assert table.joined().features is None


def test_runs_and_their_checkpoints_are_evaluated_by_fitted_detectors(package, ltr_train, ltr_eval):
    scorers = "evaluation.scorers=[msp,pytorch_ood.GEN,pytorch_ood.KNN,pytorch_ood.ViM]"
    done = ltr_train("dataset=digits_open", "trainer.max_epochs=1", "dataset.val=train_fraction", scorers)
    assert done.code == 0, done.err
    rows = [row for row in done.result["rows"] if row["split"] == "test"]
    assert [row["scorer"] for row in rows] == ["msp", "pytorch_ood.GEN", "pytorch_ood.KNN", "pytorch_ood.ViM"]
    assert len({row["metrics"]["auroc"] for row in rows}) == 4
    code, out, err = ltr_eval(done.directory)
    assert code == 0, err
    assert f"{100 * rows[2]['metrics']['auroc']:.1f}" in out


def test_the_packages_detectors_rank_like_the_scorers():
    logits = random(40, 5)
    pairs = {"MaxSoftmax": "msp", "MaxLogit": "max_logit", "EnergyBased": "energy", "Entropy": "entropy"}
    for expected, actual in pairs.items():
        one, other = (known_scores(name, Scores(logits), "softmax") for name in (f"pytorch_ood.{expected}", actual))
        assert one.argsort().tolist() == other.argsort().tolist()


FITTED = "GMM KLMatching KNN LTS Mahalanobis NCI NNGuide OpenMax PNML RMD SHE TemperatureScaling ViM fDBD"


@pytest.mark.parametrize("name", FITTED.split())
def test_the_packages_fitted_detectors_separate_near_from_far(name):
    labels = torch.arange(600) % 6
    centres = 3 * random(6, 16)
    near, far = (centres[labels] + random(600, 16, seed=1)).relu(), (0.5 * random(100, 16, seed=2)).relu()

    def scores(features):
        return Scores(0.3 * (features @ (centres - centres.mean(0)).T - centres.square().sum(1) / 4), features)

    detector = Detector(name=f"pytorch_ood.{name}")
    detector.fit(TrainingScores(scores(near).logits, near, labels))
    known, unknown = (known_scores(detector, scores(one), "softmax") for one in (near, far))
    assert (known[:, None] > unknown).double().mean() > 0.9

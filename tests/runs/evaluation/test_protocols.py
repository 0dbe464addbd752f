"""The protocols of a split: the objects for each row of results, and what cannot be evaluated."""

import contextlib

import numpy as np
import pytest
import torch

from ltr.configuration.configs import read_config
from ltr.configuration.targets import allow_packages
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import ConfigError, DataError
from ltr.evaluation.closed_set import ClosedSet
from ltr.evaluation.metrics import Metric
from ltr.evaluation.protocol import PerImageProtocol
from ltr.methods.core.stage import Method
from ltr.methods.erm import ERM
from ltr.runs.evaluation.protocols import check_method, declared_metrics, evaluated_parts, headline_metric, protocols_of

CONFIG = {**read_config("evaluation/default"), "scorers": ["msp", "max_logit"]}
CPU = torch.device("cpu")
LABELS = np.repeat(np.arange(4), 20)
SOURCE = Source("toy", np.zeros((80, 2, 2, 1), np.uint8), LABELS, ("a", "b", "c", "d"), {"train": range(80)})


def split(*protocols, unknown=()):
    nothing = np.empty(0, np.int64)
    unknown = np.array(unknown, np.int64)
    return Split("toy", nothing, nothing, nothing, unknown, np.arange(2), ("a", "b"), np.array([1, 1]), protocols)


def test_the_first_protocol_is_the_headline():
    evaluates = protocols_of(split("closed_set"), CONFIG, "softmax", CPU)
    assert [type(evaluate) for evaluate in evaluates] == [ClosedSet]
    assert headline_metric(split("closed_set")) == ClosedSet.headline


def test_only_the_headline_records_a_row_per_image():
    evaluates = protocols_of(split("closed_set", "closed_set"), CONFIG, "softmax", CPU)
    assert [evaluate.keep_predictions for evaluate in evaluates] == [True, False]


def test_validation_is_evaluated_on_the_validation_part_only():
    assert evaluated_parts(split("closed_set"), "test", CONFIG) == ("test",)
    assert evaluated_parts(split("closed_set"), "val", CONFIG) == ("val",)


def test_an_unknown_protocol_is_refused_with_the_list_of_protocols():
    with pytest.raises(
        ConfigError, match=r"'toy' is evaluated by 'telepathy'; there are background, closed_set, few_shot, open_set"
    ):
        headline_metric(split("telepathy"))


def test_a_method_that_does_not_provide_what_a_protocol_needs_is_refused():
    class Embedding(Method):
        provides = ("features",)

    with pytest.raises(
        ConfigError, match="evaluated by closed_set, which needs logits; method=mine gives features only"
    ):
        check_method(Embedding(), "mine", split("closed_set"), SOURCE, CONFIG)


@pytest.mark.parametrize("key", ["scorers", "recall_at"])
def test_an_empty_list_is_refused(key):
    with pytest.raises(ConfigError, match=rf"evaluation.{key}=\[\]: the list is empty"):
        protocols_of(split("closed_set"), {**CONFIG, key: []}, "softmax", CPU)


def test_the_distance_scorer_is_refused_for_a_method_without_distances():
    with pytest.raises(ConfigError, match="method=erm has no distance to score by"):
        check_method(ERM(), "erm", split("open_set", unknown=[0]), SOURCE, {**CONFIG, "scorers": ["distance"]})


def test_an_open_set_without_unknown_images_is_refused():
    with pytest.raises(ConfigError, match="has no images of unknown classes"):
        check_method(ERM(), "erm", split("open_set"), SOURCE, CONFIG)


def retrieval_split(val):
    """A split that trains on two of four classes and is tested on the others, 20 images of each."""
    nothing, test = np.empty(0, np.int64), np.arange(40, 80)
    return Split("toy", nothing, val, test, nothing, np.arange(4), ("a", "b"), np.array([1, 1]), ("retrieval",))


@pytest.mark.parametrize(
    ("extra", "val", "message"),
    [
        ({"extra_protocols": ["closed_set"]}, [], "closed_set needs images of the 2 training classes, and 40 of 40"),
        ({"extra_protocols": ["few_shot"]}, [], "a 5-way episode needs 5 classes with 16 images each.*, and 2 have"),
        ({"extra_protocols": ["few_shot"], "way": 2, "queries": 20}, [], "with 21 images each.*, and 0 have"),
        ({"extra_protocols": ["few_shot"], "way": 2}, range(3), "a 2-way episode needs 2 classes.*, and 0 have"),
        ({"extra_protocols": ["few_shot"], "way": 2}, [], None),
    ],
)
def test_images_that_a_protocol_cannot_evaluate_are_refused_before_the_training(extra, val, message):
    expected = contextlib.nullcontext() if message is None else pytest.raises((ConfigError, DataError), match=message)
    with expected:
        check_method(ERM(), "erm", retrieval_split(np.array(val, np.int64)), SOURCE, {**CONFIG, **extra})


class Depth(PerImageProtocol):
    """A protocol as a user writes one."""

    name = "depth"
    headline = "depth"
    metrics = (Metric("depth", heading="depth (m)", unit="number", better="lower", shown=("report",)),)

    def __init__(self, class_counts, link, many_above, *, factor=1.0):
        super().__init__()
        self.given = (len(class_counts), link, many_above, factor)

    def numbers_of(self, scores, labels):
        return {"depth": labels}

    def metrics_of(self, numbers):
        return {"depth": float(numbers["depth"].mean())}


class Nameless(PerImageProtocol):
    headline = "depth"


@pytest.fixture
def own_code():
    """Allow the classes of this file."""
    with allow_packages([__name__]):
        yield


def with_protocol(name, **options):
    return {**CONFIG, "extra_protocols": [{"_target_": f"{__name__}.{name}", **options}]}


def test_a_user_protocol_follows_those_of_the_split_and_gets_the_arguments_that_it_names(own_code):
    closed, depth = protocols_of(split("closed_set"), with_protocol("Depth", factor=2.0), "sigmoid", CPU)
    assert isinstance(closed, ClosedSet)
    assert depth.given == (2, "sigmoid", 100, 2.0)


def test_keys_of_a_protocol_config_override_those_of_the_evaluation(own_code):
    evaluates = protocols_of(split("closed_set"), with_protocol("Depth", many_above=7), "softmax", CPU)
    assert evaluates[1].given[2] == 7


def test_metrics_of_a_user_protocol_are_declared_in_the_result(own_code):
    (declared,) = declared_metrics(split("closed_set"), with_protocol("Depth"))
    assert (declared["name"], declared["protocol"], declared["heading"]) == ("depth", "depth", "depth (m)")
    assert declared_metrics(split("closed_set", "open_set"), CONFIG) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Nameless", "needs class attributes name and headline.*lacks name"), ("own_code", "Derive the class")],
)
def test_objects_that_are_not_protocols_are_refused(own_code, name, reason):
    with pytest.raises(ConfigError, match=reason):
        protocols_of(split("closed_set"), with_protocol(name), "softmax", CPU)


def test_a_protocol_of_the_split_is_not_added_twice():
    protocols = protocols_of(
        split("closed_set"), {**CONFIG, "extra_protocols": ["closed_set", "few_shot"]}, "softmax", CPU
    )
    assert [protocol.name for protocol in protocols] == ["closed_set", "few_shot"]


def test_two_scorers_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two scorers have the name 'msp'"):
        protocols_of(split("open_set"), {**CONFIG, "scorers": ["msp", "msp"]}, "softmax", CPU)


@pytest.mark.slow
def test_a_retrieval_run_has_metrics_figures_and_a_second_evaluation(ltr_train, ltr_eval):
    short = ["debug=fast", "figures=all", "evaluation.episodes=5", "evaluation.recall_at=[1,10]"]
    run = ltr_train("dataset=digits_retrieval", "dataset.protocols=[retrieval,few_shot]", *short)
    assert run.code == 0, run.err
    assert run.result["metric"] == "recall_at_1"
    assert {row["protocol"] for row in run.result["rows"]} == {"retrieval", "few_shot"}
    assert set(run.headline) == {"recall_at_1", "recall_at_10", "map_at_r", "r_precision", "queries", "nmi"}
    code, out, err = ltr_eval(run.directory)
    assert code == 0, err
    assert f"{100 * run.headline['recall_at_1']:.1f}" in out


def test_an_unknown_scorer_is_refused_even_if_no_protocol_uses_it(ltr_train):
    refused = ltr_train("evaluation.scorers=[pytorch_ood.Enrgy]", "trainer.max_epochs=1")
    assert refused.code == 2
    assert "'pytorch_ood.Enrgy' is not a detector" in refused.err

"""Evaluation options that no protocol of a split reads: errors of ltr-eval, warnings of a training."""

import re

import numpy as np
import pytest

from ltr.configuration.configs import read_config
from ltr.data.split import Split
from ltr.errors import ConfigError
from ltr.runs.evaluation.unused_options import refuse_unused_options, warn_of_unused_options

DEFAULTS = {**read_config("evaluation/default"), "scorers": ["msp", "max_logit"]}
CLOSED_SET = {"many_above", "few_below", "top_k", "calibration_bins"}
USED = {
    "closed_set": CLOSED_SET,
    "background": {"many_above", "few_below"},
    "open_set": {"many_above", "few_below", "scorers", "usual_scorers"},
    "retrieval": {"recall_at"},
    "few_shot": {"way", "shot", "queries", "episodes"},
}
OPTIONS = sorted(set().union(*USED.values()))


def split(*protocols, val=()):
    nothing = np.empty(0, np.int64)
    val = np.array(val, np.int64)
    return Split("toy", nothing, val, nothing, nothing, np.arange(2), ("a", "b"), np.array([1, 1]), protocols)


@pytest.mark.parametrize("key", OPTIONS)
@pytest.mark.parametrize("protocol", USED)
def test_exactly_the_options_that_a_protocol_reads_are_accepted(protocol, key):
    if key in USED[protocol]:
        refuse_unused_options(split(protocol), DEFAULTS, [key], "test")
        return
    words = f"evaluation.{key}={DEFAULTS[key]} has no effect: the split 'toy' is evaluated by {protocol}, and only "
    with pytest.raises(ConfigError, match=re.escape(words)):
        refuse_unused_options(split(protocol), DEFAULTS, [key], "test")


def test_options_of_all_protocols_of_a_split_are_accepted():
    keys = USED["closed_set"] | USED["open_set"] | USED["retrieval"]
    refuse_unused_options(split("closed_set", "open_set"), {**DEFAULTS, "extra_protocols": ["retrieval"]}, keys, "test")
    with pytest.raises(ConfigError, match=r"evaluation.recall_at=.* has no effect"):
        refuse_unused_options(split("closed_set", "open_set"), DEFAULTS, keys, "test")


def test_options_of_every_evaluation_are_accepted():
    always = ["batch_size", "views", "monitor_split", "every_n_epochs", "extra_protocols"]
    refuse_unused_options(split("few_shot"), DEFAULTS, [*always, *USED["few_shot"]], "val")
    with pytest.raises(ConfigError) as error:  # of these keys it names the one alone
        refuse_unused_options(split("few_shot"), DEFAULTS, [*always, "top_k"], "val")
    assert re.findall(r"evaluation\.(\w+)=\S+ has no effect", str(error.value)) == ["top_k"]


@pytest.mark.parametrize(
    ("changed", "key", "part", "reason"),
    [
        ({"prior": "uniform"}, "prior", "val", "applies to test images, and 'val' is evaluated"),
        ({"prior_of_scores": "train"}, "prior_of_scores", "test", "evaluation.prior is null"),
        ({"usual_scorers": ["energy"]}, "usual_scorers", "test", "names ['msp', 'max_logit']. Set evaluation.scorers"),
    ],
)
def test_an_option_that_another_one_disables_is_refused(changed, key, part, reason):
    with pytest.raises(ConfigError) as error:
        refuse_unused_options(split("closed_set", "open_set"), {**DEFAULTS, **changed}, [key], part)
    assert reason in str(error.value)


def configured(**evaluation):
    return {
        "evaluation": {**DEFAULTS, **evaluation},
        "method": {"name": "erm"},
        "trainer": {"selection": "last"},
    }


def test_a_training_with_defaults_or_with_options_that_are_read_warns_of_nothing(recwarn):
    warn_of_unused_options(configured(), split("background"))
    warn_of_unused_options(configured(scorers=["energy"]), split("open_set"))
    of_method = configured(scorers=["distance"])
    of_method["method"]["scorers"] = ["distance"]
    warn_of_unused_options(of_method, split("background"))
    warn_of_unused_options(configured(every_n_epochs=5), split("background", val=[0]))
    warn_of_unused_options(configured(every_n_epochs=5, monitor_split="test"), split("background"))
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"scorers": ["energy"]}, "evaluation.scorers=['energy'] has no effect: the split 'toy' is evaluated by back"),
        ({"recall_at": [3]}, "evaluation.recall_at=[3] has no effect"),
        ({"every_n_epochs": 5}, "the split 'toy' has no validation images"),
    ],
)
def test_a_training_warns_of_an_option_without_effect(evaluation, words):
    with pytest.warns(UserWarning, match=re.escape(words)) as warned:
        warn_of_unused_options(configured(**evaluation), split("background"))
    assert len(warned) == 1

"""What a split is judged by: the protocols that exist, and a clear error for those that do not yet."""

import numpy as np
import pytest
import torch

from ltr.data.split import Split
from ltr.errors import ConfigError
from ltr.evaluation.closed_set import ClosedSet
from ltr.runs.protocols import headline_metric, protocol_of

PAGE = {"many_above": 100, "few_below": 20, "top_k": 5, "calibration_bins": 15}


def split(*protocols):
    nothing = np.empty(0, np.int64)
    return Split("toy", nothing, nothing, nothing, nothing, np.arange(2), ("a", "b"), np.array([1, 1]), protocols)


def test_the_first_protocol_judges():
    judge = protocol_of(split("closed_set", "open_set"), PAGE, "softmax", torch.device("cpu"))
    assert isinstance(judge, ClosedSet)
    assert headline_metric(split("closed_set")) == ClosedSet.headline


def test_a_protocol_that_there_is_none_of_is_an_error_that_names_both():
    with pytest.raises(ConfigError, match=r"'toy' is judged by retrieval, and this version judges by closed_set"):
        protocol_of(split("retrieval"), PAGE, "softmax", torch.device("cpu"))
    with pytest.raises(ConfigError, match="judged by retrieval"):
        headline_metric(split("retrieval"))


def test_a_retrieval_page_is_refused_before_anything_is_trained(ltr_train, small_sources):
    finished = ltr_train("dataset=cifar100_retrieval", "debug=fast")
    assert finished.code == 2
    assert "is judged by retrieval" in finished.err
    assert not list(finished.outputs.glob("stages/*"))

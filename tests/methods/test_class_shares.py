"""Methods that presume shares of the classes in their batches notice other ones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ltr.configuration.check import check_config
from ltr.configuration.overrides import compose_config
from ltr.configuration.targets import instantiate
from ltr.errors import ConfigError
from ltr.methods.core.settings import DatasetInfo
from ltr.runs.plan import main_settings

COUNTS = (100, 30, 10)
EQUAL = (20, 20, 20)


def messages(*overrides: str, counts: tuple[int, ...] = COUNTS) -> list[str]:
    """The warnings of a method's plan."""
    config = check_config(compose_config(["dataset=digits_lt", "trainer.max_epochs=20", *overrides]))
    names = tuple(f"class {number}" for number in range(len(counts)))
    info = DatasetInfo((1, 8, 8), (0.5,), (0.5,), names, counts)
    method = instantiate(config["method"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method.stages(main_settings(config, "fp32", method), info)
    return [str(warning.message) for warning in caught]


GENERATING = {
    "m2m": (("method=m2m",), "sampler"),
    "smote of pixels": (("method=smote",), "sampler"),
    "smote of features": (("method=smote", "method.space=feature"), "method.classifier.sampler"),
}


@pytest.mark.parametrize(("command", "key"), GENERATING.values(), ids=GENERATING)
@pytest.mark.parametrize("sampler", ["instance", "square_root", "power"])
def test_batches_that_are_not_class_balanced_are_refused(command, key, sampler):
    with pytest.raises(ConfigError, match=rf"^{key}=.* class-balanced batches.*Use {key}=class_balanced"):
        messages(*command, f"{key}={sampler}")


@pytest.mark.parametrize(("command", "key"), GENERATING.values(), ids=GENERATING)
@pytest.mark.parametrize(
    "sampler", ["class_balanced", "class_balanced_deferred", "effective_number", "class_balanced SAMPLER.draw=iid"]
)
@pytest.mark.parametrize("epochs", [1, 20])
def test_class_balanced_batches_are_accepted(command, key, sampler, epochs):
    chosen = f"{key}={sampler}".replace("SAMPLER", key).split()
    assert messages(*command, *chosen, f"trainer.max_epochs={epochs}") == []


@pytest.mark.parametrize(("command", "key"), GENERATING.values(), ids=GENERATING)
def test_batches_that_become_class_balanced_are_reported(command, key):
    (message,) = messages(*command, f"{key}=progressive")
    assert message.startswith(f"{key}=progressive")
    assert f"{key}=class_balanced_deferred" in message


@pytest.mark.parametrize(("command", "key"), GENERATING.values(), ids=GENERATING)
@pytest.mark.parametrize("sampler", ["instance", "progressive", "square_root"])
def test_balanced_data_may_be_sampled_in_any_way(command, key, sampler):
    assert messages(*command, f"{key}={sampler}", counts=EQUAL) == []
    assert messages(*command, f"{key}=class_balanced", counts=(*EQUAL, 0)) == []


@pytest.mark.parametrize("sampler", ["class_balanced", "class_balanced_deferred", "square_root", "progressive"])
def test_a_prior_of_the_training_images_does_not_fit_a_rebalanced_representation(sampler):
    command = ("method=posthoc_la", f"sampler={sampler}")
    config = check_config(compose_config(["dataset=digits_lt", *command]))
    drawn = instantiate(config["sampler"]).class_probabilities(np.array(COUNTS), 19, 20)
    assert np.abs(drawn - np.array(COUNTS) / sum(COUNTS)).max() > 0.05
    assert sum("posthoc_la" in message and "sampler" in message for message in messages(*command)) == 1
    assert not any("posthoc_la" in message for message in messages(*command, "method.tau=0"))
    assert not any("posthoc_la" in message for message in messages(*command, "method.start_from=run"))
    assert not any("posthoc_la" in message for message in messages(*command, counts=EQUAL))


@pytest.mark.parametrize("sampler", ["instance", "power sampler.q=1", "effective_number sampler.beta=0"])
def test_a_prior_of_the_training_images_fits_instance_sampling(sampler):
    assert messages("method=posthoc_la", *f"sampler={sampler}".split()) == []

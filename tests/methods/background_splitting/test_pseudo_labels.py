"""Pseudo-labels: their sources, their stage keys, and the partition."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from method_plans import planned
from splitting import output, parents_of, plan_of

from ltr.errors import CheckpointError, ConfigError
from ltr.methods.background_splitting import pseudo_labels
from ltr.methods.background_splitting.imagenet import output_indices
from ltr.methods.background_splitting.partition import partition, statistics, summary, warn_of_one_class
from ltr.methods.background_splitting.pseudo_labels import by_kmeans, by_taxonomy, by_teacher, kmeans
from ltr.methods.core.stage import StageOutput
from ltr.models.weights import seeded_construction

OUTPUTS = 6


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with a small classifier's weights."""
    with seeded_construction(4):
        state = torchvision.models.squeezenet1_1(num_classes=OUTPUTS).state_dict()
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(state, path)
    return path


def plan_with_teacher(weights, *overrides: str):
    """The plan with this teacher."""
    return plan_of(
        "method.aux.partition=teacher",
        "method.aux.teacher.name=squeezenet1_1",
        "method.aux.teacher.image_size=32",
        f"method.aux.teacher.weights={weights}",
        *overrides,
    )


class Probe:
    """Stand-in for a teacher with known logits that records its images."""

    def __init__(self, monkeypatch, logits=None):
        self.images: list[torch.Tensor] = []
        self.logits = logits
        monkeypatch.setattr(pseudo_labels, "_teacher", lambda computation: (self.ask, None))

    def ask(self, images):
        first = sum(map(len, self.images))
        self.images.append(images.clone())
        actual = self.logits[first : first + len(images)]
        return actual, actual


@pytest.fixture
def plan():
    return plan_of("method.aux.partition=teacher", "method.aux.teacher.pretrained=true")


def logits_of(plan, classes=5):
    images = len(plan.data.source.parts["train"])
    return torch.randn(images, classes, generator=torch.Generator().manual_seed(0))


# -- a teacher's ------------------------------------------------------------------------------------------------------


def test_hard_labels_are_the_arg_max_at_the_source_index_of_each_image(plan, monkeypatch):
    logits = logits_of(plan)
    Probe(monkeypatch, logits)
    actual = by_teacher(plan.computation("pseudo_labels", {}), exclude_classes=[], top_k=1)
    train = plan.data.source.parts["train"]
    assert np.array_equal(actual["labels"][train.start : train.stop], logits.argmax(1).numpy())
    assert (actual["labels"][train.stop :] == -1).all()
    assert actual["classes"].tolist() == [0, 1, 2, 3, 4]


def test_a_teacher_gets_images_without_augmentation(plan, monkeypatch):
    probe = Probe(monkeypatch, logits_of(plan))
    by_teacher(plan.computation("pseudo_labels", {}), exclude_classes=[], top_k=1)
    source = plan.data.source
    train = source.parts["train"]
    pixels = torch.tensor(source.images[train.start : train.stop]).permute(0, 3, 1, 2)
    assert not torch.equal(pixels, pixels.transpose(2, 3))
    assert torch.equal(torch.cat(probe.images), pixels)


def test_soft_labels_are_the_largest_outputs_renormalised(plan, monkeypatch):
    logits = logits_of(plan)
    Probe(monkeypatch, logits)
    actual = by_teacher(plan.computation("pseudo_labels", {}), exclude_classes=[], top_k=3)
    values, ids = logits.topk(3)
    assert np.array_equal(actual["labels"][: len(ids)], ids.numpy())
    np.testing.assert_allclose(actual["shares"][: len(ids)], values.softmax(1).numpy(), atol=1e-3)
    np.testing.assert_allclose(actual["shares"][: len(ids)].astype(float).sum(1), 1, atol=2e-3)


def test_excluded_outputs_are_not_pseudo_classes(plan, monkeypatch):
    logits = logits_of(plan)
    logits[:, 1] += 100
    Probe(monkeypatch, logits)
    actual = by_teacher(plan.computation("pseudo_labels", {}), exclude_classes=[1, 3], top_k=1)
    assert actual["classes"].tolist() == [0, 2, 4]
    expected = logits[:, [0, 2, 4]].argmax(1).numpy()
    assert np.array_equal(actual["labels"][: len(expected)], expected)


@pytest.mark.parametrize(
    ("excluded", "message"),
    [([7], "7: the teacher has 5 outputs; allowed are 0 to 4"), ([0, 1, 2, 3], "leaves 1 of the teacher's 5 outputs")],
)
def test_invalid_exclusions_are_refused(plan, monkeypatch, excluded, message):
    Probe(monkeypatch, logits_of(plan))
    with pytest.raises(ConfigError, match=message):
        by_teacher(plan.computation("pseudo_labels", {}), exclude_classes=excluded, top_k=1)


def test_foreground_classes_are_excluded_from_an_imagenet_teacher_by_name():
    assert output_indices(["tench", "Egyptian cat", "crane"]) == [0, 134, 285, 517]  # a bird and a machine: both
    with pytest.raises(ConfigError, match=r"ImageNet has no class 'goldfsh' .nor 1 more.*goldfish"):
        output_indices(["goldfsh", "digit 3"])


def test_exclusion_by_name_needs_imagenets_outputs(plan, monkeypatch):
    Probe(monkeypatch, logits_of(plan))
    with pytest.raises(ConfigError, match="the teacher has 5 outputs, and only ImageNet's 1000"):
        by_teacher(plan.computation("pseudo_labels", {}), exclude_classes=[1], top_k=1, outputs=1000)


def test_a_teacher_from_a_file_provides_its_last_layer_without_excluded_rows(weights):
    plan = plan_with_teacher(weights, "method.aux.exclude_classes=[2]")
    arrays = parents_of(plan)["pseudo_labels"].arrays
    state = torch.load(weights, weights_only=True)
    kept = [0, 1, 3, 4, 5]
    assert np.array_equal(arrays["weight"], state["classifier.1.weight"][kept].flatten(1).numpy())
    assert np.array_equal(arrays["bias"], state["classifier.1.bias"][kept].numpy())


def test_a_network_of_this_project_serves_as_a_teacher():
    plan = plan_of("method.aux.partition=kmeans", "method.aux.features=representation")
    erm = plan.stages["erm"]
    network = erm.network(plan.dataset_info, 0).eval()
    parents = {"erm": StageOutput("erm", "key", lambda: network)}
    actual = by_teacher(plan.computation("pseudo_labels", parents), exclude_classes=[], top_k=1)
    batch = plan.batch()
    with torch.no_grad():
        expected = network(network.to_unit(batch.images)).argmax(1)
    assert np.array_equal(actual["labels"][batch.indices], expected.numpy())
    assert np.array_equal(actual["weight"], network.head.weight.detach().numpy())


# -- k-means and names ------------------------------------------------------------------------------------------------


def test_kmeans_recovers_separated_clusters():
    truth = np.arange(60) % 4
    random = np.random.default_rng(0)
    features = (10 * np.eye(4)[truth] + 0.1 * random.standard_normal((60, 4))).astype(np.float32)
    actual = kmeans(features, 4)
    pairs = set(zip(truth.tolist(), actual.tolist()))
    assert len(pairs) == 4
    assert len({group for _, group in pairs}) == 4


def test_kmeans_of_pixels_is_deterministic():
    plan = plan_of()
    first, again = (
        by_kmeans(plan.computation("pseudo_labels", {}, seed=seed), features="pixels", groups=6) for seed in (0, 1)
    )
    assert np.array_equal(first["labels"], again["labels"])
    assert len(np.unique(first["labels"])) == 7  # six groups, and the test images


def test_more_groups_than_images_are_refused():
    plan = plan_of()
    with pytest.raises(ConfigError, match=r"1397 training images\. Set at most"):
        by_kmeans(plan.computation("pseudo_labels", {}), features="pixels", groups=1398)


def test_names_of_a_taxonomy_are_pseudo_labels():
    plan = plan_of()
    names = tuple("round" if digit in (0, 6, 8, 9) else "open" for digit in range(10))
    source = replace(plan.data.source, taxonomy={"shape": names})
    actual = by_taxonomy(plan.computation("pseudo_labels", {}, source=source), rank="shape")
    train = source.parts["train"]
    digits = source.labels[train.start : train.stop]
    assert np.array_equal(actual["labels"][train.start : train.stop] == 1, np.isin(digits, (0, 6, 8, 9)))


def test_an_unknown_taxonomic_rank_is_refused():
    plan = plan_of()
    with pytest.raises(ConfigError, match="digits has no taxonomy"):
        by_taxonomy(plan.computation("pseudo_labels", {}), rank="family")


# -- identity ---------------------------------------------------------------------------------------------------------

SAME = [
    ["method.b0=0.5"],
    ["method.b0=null"],
    ["method.aux.weight=0.3"],
    ["method.aux.shuffled=true"],
    ["method.labelled_fraction=0.5"],
    ["seed=3"],
    ["loss=ldam"],
    ["optimizer.lr=0.01", "trainer.max_epochs=3", "batch_size=32"],
    ["dataset.n_foreground=1"],
    ["dataset.max_per_class=20", "dataset.val=train_fraction"],
]


@pytest.mark.parametrize("overrides", SAME, ids=lambda overrides: overrides[0])
def test_other_options_do_not_change_the_stage_of_pseudo_labels(weights, overrides):
    assert (
        plan_with_teacher(weights, *overrides).keys["pseudo_labels"] == plan_with_teacher(weights).keys["pseudo_labels"]
    )


OTHER = [
    "method.aux.teacher.image_size=48",
    "method.aux.teacher.mean=[0.5,0.5,0.5]",
    "method.aux.exclude_classes=[1]",
    "method.aux.labels=soft",
]


@pytest.mark.parametrize("override", OTHER)
def test_teacher_and_transform_change_the_stage_of_pseudo_labels(weights, override):
    assert (
        plan_with_teacher(weights, override).keys["pseudo_labels"] != plan_with_teacher(weights).keys["pseudo_labels"]
    )


def test_weights_files_are_identified_by_content(weights, tmp_path):
    (tmp_path / "same.pth").write_bytes(weights.read_bytes())
    state = torch.load(weights, weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, tmp_path / "other.pth")
    key = plan_with_teacher(weights).keys["pseudo_labels"]
    assert plan_with_teacher(tmp_path / "same.pth").keys["pseudo_labels"] == key
    assert plan_with_teacher(tmp_path / "other.pth").keys["pseudo_labels"] != key


def test_clusters_of_erm_features_share_the_stage_of_erm():
    plan = plan_of("method.aux.features=representation")
    assert plan.keys["erm"] == planned("dataset=digits_bg", "method=erm").keys["representation"]


def test_missing_weights_are_refused_at_planning(tmp_path):
    with pytest.raises(CheckpointError, match=r"method\.aux\.teacher\.weights=.*no such file"):
        plan_with_teacher(tmp_path / "none.pth")


def test_a_teacher_without_weights_is_refused_with_the_alternatives():
    with pytest.raises(ConfigError, match=r"weights=FILE.*run=RUN.*pretrained=true.*partition=kmeans"):
        plan_of("method.aux.partition=teacher")


# -- what a split makes of them ---------------------------------------------------------------------------------------

PSEUDO = {"labels": np.array([0, 0, 1, 2, 0, 1, -1], dtype=np.int32), "classes": np.arange(4, dtype=np.int32)}


def test_partition_statistics_equal_counts():
    labels = np.array([0, 0, 0, 0, 1, 1])
    actual = statistics(PSEUDO, slice(None), np.arange(6), labels)
    assert actual["counts"].tolist() == [3, 2, 1, 0]
    assert actual["background_counts"].tolist() == [2, 1, 1, 0]
    assert (actual["size"], actual["background_size"]) == (3, 3)
    assert actual["largest_share"] == pytest.approx(0.5)
    assert actual["background_largest_share"] == pytest.approx(0.5)
    assert actual["background_entropy"] == pytest.approx(1.5 * math.log(2))
    assert "3 of 4 pseudo-classes, largest share 50.0%" in summary(actual)


def test_a_training_image_without_a_pseudo_label_is_refused():
    with pytest.raises(ConfigError, match="1 training images have no pseudo-label"):
        statistics(PSEUDO, slice(None), np.arange(7), np.zeros(7, dtype=np.int64))


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.51, True), (math.nan, False)])
def test_a_pseudo_class_with_more_than_half_of_the_background_warns(share, warned):
    with warnings.catch_warnings(record=True) as actual:
        warnings.simplefilter("always")
        warn_of_one_class({"background_largest_share": np.float64(share)})
    assert bool(actual) is warned
    assert not warned or "51.0% of the background" in str(actual[0].message)


def partitioned(plan, seed=0, pseudo=None, **options):
    parents = {"pseudo_labels": output("pseudo_labels", pseudo)} if pseudo else {}
    all_options = {"shuffled": False, "labelled_fraction": 1.0, **options}
    return partition(plan.computation("partition", parents, seed=seed), **all_options)


def test_shuffled_pseudo_labels_are_permuted_among_the_training_images():
    plan = plan_of("dataset.val=train_fraction")
    pseudo = parents_of(plan)["pseudo_labels"].arrays
    plain, shuffled = (partitioned(plan, pseudo=pseudo, shuffled=choice) for choice in (False, True))
    train = plan.data.split.train
    assert sorted(shuffled["taken_from"][train]) == sorted(train)
    assert np.array_equal(plain["counts"], shuffled["counts"])
    taken = pseudo["labels"][shuffled["taken_from"]][train]
    assert np.mean(taken == pseudo["labels"][train]) < 0.2  # ten groups
    assert not np.array_equal(plain["background_counts"], shuffled["background_counts"])


def test_shuffling_depends_on_the_seed():
    plan = plan_of()
    pseudo = parents_of(plan)["pseudo_labels"].arrays
    first, again, other = (
        partitioned(plan, seed=seed, pseudo=pseudo, shuffled=True)["taken_from"] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.001, 0.25, 0.5])
def test_a_labelled_fraction_applies_to_every_class_with_at_least_one_image(fraction):
    plan = plan_of()
    actual = partitioned(plan, labelled_fraction=fraction)
    counts = np.asarray(plan.dataset_info.class_counts)
    expected = np.maximum(np.round(fraction * counts), 1)
    assert actual["labelled_counts"].tolist() == expected.tolist()
    outside = np.setdiff1d(np.arange(len(plan.data.source)), plan.data.split.train)
    assert actual["labelled"].sum() == expected.sum()
    assert not actual["labelled"][outside].any()


def test_the_labelled_images_depend_on_the_seed():
    plan = plan_of()
    first, again, other = (partitioned(plan, seed=seed, labelled_fraction=0.3)["labelled"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)

"""RKD: stages and students; metric learning by triplets."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from method_plans import planned, state, step

from ltr.configuration.declarations import rules_of_target
from ltr.errors import ConfigError
from ltr.losses.reductions import RelationalReduction
from ltr.losses.relational import rkd_distance
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import StageOutput
from ltr.methods.distillation.rkd import ClassifyingStudent, MetricStudent
from ltr.methods.metric import EmbeddingNetwork, nearest_alike
from resuming import same_bits

METRIC = ("method=rkd", "dataset=digits_retrieval")
CLASSES = ("method=rkd_classification",)
WITHOUT = ("method.distance_weight=0", "method.angle_weight=0")
ALIKE = ("method.teacher.head.normalise=false", "method.teacher.head.width=128")


def network_of(plan, name, parents=None):
    stage = plan.stages[name]
    return stage.network(plan.dataset_info, 0, parents)


def student_of(plan, teacher=None):
    """The student as its training begins, with this or a new teacher."""
    teacher = network_of(plan, "teacher") if teacher is None else teacher
    return network_of(plan, "student", {"teacher": StageOutput("teacher", "key", lambda: teacher)})


# --- stages


def test_a_teacher_and_a_student_are_two_stages_and_the_networks_differ():
    plan = planned(*METRIC)
    assert {name: stage.parents for name, stage in plan.stages.items()} == {"teacher": (), "student": ("teacher",)}
    teacher, student = network_of(plan, "teacher"), student_of(plan)
    assert isinstance(teacher, EmbeddingNetwork)
    assert isinstance(student, MetricStudent)
    assert (teacher.head.width, teacher.head.normalise) == (512, True)
    assert (student.head.width, student.head.normalise) == (128, False)
    assert not torch.equal(teacher.backbone.stage1[0].weight, student.backbone.stage1[0].weight)


def test_a_classifying_student_learns_from_a_classifier():
    plan = planned(*CLASSES)
    teacher, student = network_of(plan, "teacher"), student_of(plan)
    assert type(teacher) is ImageClassifier
    assert isinstance(student, ClassifyingStudent)


def test_each_generation_learns_from_the_one_before_and_the_first_is_shared():
    plan = planned(*METRIC, "method.generations=3")
    assert {name: stage.parents for name, stage in plan.stages.items()} == {
        "teacher": (),
        "student_1": ("teacher",),
        "student_2": ("student_1",),
        "student_3": ("student_2",),
    }
    one = planned(*METRIC)
    assert one.keys["student"] == plan.keys["student_1"]
    assert len(set(plan.keys.values())) == 4
    assert len({stage.role for stage in plan.stages.values()}) == 4


def test_without_generations_only_the_teacher_is_evaluated():
    plan = planned(*METRIC, "method.generations=0")
    assert plan.keys == {"teacher": planned(*METRIC).keys["teacher"]}


def test_without_distillation_terms_there_is_no_teacher():
    plan = planned(*METRIC, "method.distance_weight=0", "method.angle_weight=0", "method.task_weight=1")
    assert list(plan.stages) == ["student"]
    actual = network_of(plan, "student").training_step(plan.batch(), 0)
    assert list(actual["logs"]) == ["task"]


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (METRIC, "method.angle_weight=3"),
        (METRIC, "method.reduction=valid"),
        (METRIC, "method.task_weight=1"),
        (METRIC, "head.width=32"),
        (CLASSES, "method.hkd_weight=1"),
        (CLASSES, "method.temperature=2"),
    ],
)
def test_an_option_of_the_student_changes_its_key_and_not_the_teachers(config, option):
    plain, changed = planned(*config), planned(*config, option)
    assert plain.keys["student"] != changed.keys["student"]
    assert plain.keys["teacher"] == changed.keys["teacher"]


@pytest.mark.parametrize(
    "option",
    ["method.teacher.epochs=3", "method.teacher.head.width=64", "method.teacher.optimizer.lr=0.01"],
)
def test_an_option_of_the_teacher_changes_both_keys(option):
    plain, changed = planned(*METRIC), planned(*METRIC, option)
    assert not set(plain.keys.values()) & set(changed.keys.values())


def test_the_teacher_may_have_another_backbone():
    plan = planned(*CLASSES, "backbone@method.teacher.backbone=resnet44")
    assert plan.stages["teacher"].settings.backbone["depth"] == 44
    assert plan.stages["student"].settings.backbone["_target_"].endswith("DigitsNet")
    same = planned(*CLASSES)
    assert same.stages["teacher"].settings.backbone == same.stages["student"].settings.backbone


# --- what is learnt


def test_a_student_that_is_a_scaled_copy_of_its_teacher_has_zero_loss():
    plan = planned(*METRIC, *ALIKE)
    teacher = network_of(plan, "teacher").eval()
    student = student_of(plan, teacher).eval()
    batch = plan.batch()
    before = student.training_step(batch, 0)["loss"]
    student.backbone.load_state_dict(teacher.backbone.state_dict())
    student.head.load_state_dict({name: 3.0 * tensor for name, tensor in teacher.head.state_dict().items()})
    after = student.training_step(batch, 0)["loss"]
    assert before.detach() > 1e-2
    assert after.detach() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (METRIC, {"distance": 1.0, "angle": 2.0}),
        ((*METRIC, "method.task_weight=0.5"), {"task": 0.5, "distance": 1.0, "angle": 2.0}),
        ((*METRIC, "method.angle_weight=0"), {"distance": 1.0}),
        (CLASSES, {"task": 1.0, "distance": 25.0, "angle": 50.0}),
        ((*CLASSES, "method.hkd_weight=2"), {"task": 1.0, "distance": 25.0, "angle": 50.0, "hkd": 2.0}),
        ((*CLASSES, *WITHOUT, "method.fitnet_weight=3"), {"task": 1.0, "fitnet": 3.0}),
        ((*METRIC, "method.attention_weight=9"), {"distance": 1.0, "angle": 2.0, "attention": 9.0}),
    ],
)
def test_the_loss_is_the_weighted_sum_of_the_terms_that_are_logged(config, weights):
    plan = planned(*config)
    actual = student_of(plan).training_step(plan.batch(), 0)
    assert set(actual["logs"]) == set(weights)
    expected = sum(weight * float(actual["logs"][name]) for name, weight in weights.items())
    assert actual["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert all(term > 0 for term in actual["logs"].values())


def test_the_metric_student_ignores_labels_unless_requested():
    plan = planned(*METRIC)
    student, batch = student_of(plan).eval(), plan.batch()
    shuffled = batch._replace(labels=batch.labels.roll(7))
    assert torch.equal(student.training_step(batch, 0)["loss"], student.training_step(shuffled, 0)["loss"])


def test_the_teacher_is_neither_trained_nor_stored_with_the_student():
    plan = planned(*CLASSES)
    teacher = network_of(plan, "teacher")
    before = state(teacher)
    student = student_of(plan, teacher)
    step(student, plan.batch(), steps=2)
    assert same_bits(before, state(teacher))
    assert student.state_dict().keys() == network_of(plan, "teacher").state_dict().keys()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_hints_regressor_is_trained_and_rebuilt_without_the_teacher():
    plan = planned(*CLASSES, *WITHOUT, "method.fitnet_weight=0.1", "backbone@method.teacher.backbone=resnet20")
    student = student_of(plan)
    assert student.regressor.convolution.weight.shape == (32, 48, 1, 1)
    before = state(student.regressor)
    step(student, plan.batch())
    assert not same_bits(before, state(student.regressor))
    alone = type(student)(student.spec, **student.options)
    alone.load_state_dict(student.state_dict())


@pytest.mark.parametrize("config", [METRIC, CLASSES])
def test_training_steps_reduce_the_distance_to_the_teacher(config):
    plan = planned(*config)
    student, batch = student_of(plan), plan.batch()
    first = student.training_step(batch, 0)["logs"]["distance"]
    step(student, batch, steps=15)
    assert student.training_step(batch, 0)["logs"]["distance"] < 0.8 * first


def test_an_embedding_network_predicts_features_and_no_logits():
    plan = planned(*METRIC)
    student = network_of(plan, "student").eval()
    actual = student.predict(plan.batch("test").images)["default"]
    assert actual.features.shape == (128, 128)
    assert actual.logits.shape == (128, 0)


def test_a_triplet_network_clusters_images_of_a_class():
    plan = planned("method=triplet", "dataset=digits_retrieval")
    assert list(plan.stages) == ["embedding"]
    network, batch = network_of(plan, "embedding"), plan.batch()
    torch.manual_seed(0)
    first = network.training_step(batch, 0)["loss"].detach()
    step(network, batch, steps=20)
    assert network.training_step(batch, 0)["loss"].detach() < 0.7 * first


FEW = ("batch_size=48", "dataset=digits_retrieval")
EPISODES = ("method=prototypical", *FEW)


def test_a_prototypical_network_embeds_by_the_features_themselves_and_learns():
    plan = planned(*EPISODES)
    network, batch = network_of(plan, "embedding"), plan.batch()
    assert network.head.width == network.backbone.num_features
    first = network.training_step(batch, 0)["loss"].detach()
    step(network, batch, steps=20)
    assert network.training_step(batch, 0)["loss"].detach() < 0.7 * first


def test_prototypical_networks_may_be_teacher_and_student():
    episodes = ("loss=prototypical", "sampler=episodes", "head=features", "method.task_weight=1")
    teachers = [f"{group}@method.teacher.{group}={name}" for group, name in (part.split("=") for part in episodes[:3])]
    plan = planned("method=rkd", *FEW, *episodes, *teachers)
    actual = student_of(plan).training_step(plan.batch(), 0)
    assert set(actual["logs"]) == {"task", "distance", "angle"}


def test_correct_counts_images_whose_nearest_neighbour_is_of_their_class():
    embeddings = torch.tensor([[0.0], [1.0], [1.2], [5.0], [5.5]])
    assert nearest_alike(embeddings, torch.tensor([0, 0, 1, 2, 2])).tolist() == [True, False, False, True, True]


def test_an_image_alone_has_no_nearest_neighbour():
    assert nearest_alike(torch.ones(1, 2), torch.tensor([0])).tolist() == [False]


# --- what is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*METRIC, "head=linear"), r"head is LinearHead.*head=embedding"),
        ((*METRIC, "loss=cross_entropy"), r"loss is CrossEntropy.*loss=triplet"),
        ((*METRIC, "loss@method.teacher.loss=cross_entropy"), r"method\.teacher\.loss is CrossEntropy"),
        ((*METRIC, "method.hkd_weight=1"), r"hkd_weight=1.*rkd_classification"),
        ((*METRIC, "method.distance_weight=0", "method.angle_weight=0"), r"all 0: the student has no loss"),
        ((*METRIC, "batch_size=4"), r"batch_size=4.*triplet"),
        ((*METRIC, "batch_size=2", "sampler=instance"), r"batch_size=2"),
        (
            (*METRIC, "batch_size=512", "sampler.images_per_class=200"),
            r"images_per_class=200: 5 of 5 classes have fewer",
        ),
        ((*EPISODES, "sampler.images_per_class=1"), r"images_per_class=1"),
        ((*EPISODES, "loss.shot=16"), r"loss\.shot=16: an episode would have no query"),
        ((*EPISODES, "batch_size=160"), r"batch_size=160.*batch_size=80 for 5"),
        ((*EPISODES, "sampler=per_class"), r"batch_size=48 with sampler\.images_per_class=5"),
        ((*EPISODES, "sampler=instance"), r"sampler=episodes"),
        ((*CLASSES, "head=embedding"), r"head=embedding has no class scores"),
        ((*CLASSES, "method.task_weight=0", *WITHOUT), r"all 0"),
        ((*CLASSES, "loss=triplet"), r"loss=Triplet compares embeddings"),
        ((*METRIC, "+method.teacher.dropout=1"), r"method\.teacher\.dropout: nothing reads it"),
        (
            ("method=triplet", "dataset=digits_retrieval", "batch_size=2", "sampler=instance"),
            "needs 3 images",
        ),
    ],
)
def test_invalid_distillations_are_refused_before_training(overrides, message):
    with pytest.raises(ConfigError, match=message):
        planned(*overrides)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("dataset.n_train=4", r"different data: 4 classes \(0, 1, 2, 3\) and 5 classes"),
        ("dataset.images=own_part", r"training images \(.* per class"),
    ],
)
def test_a_teacher_of_another_split_is_refused(other, message):
    elsewhere = planned(*METRIC, other)
    student = student_of(planned(*METRIC), network_of(elsewhere, "teacher"))
    with pytest.raises(ConfigError, match=message):
        student.optimisation(8)


@pytest.mark.parametrize("option", ["head=embedding", "loss=triplet"])
def test_embeddings_are_refused_by_a_method_of_class_scores(option):
    plan = planned(option)
    with pytest.raises(ConfigError, match="method=triplet"):
        network_of(plan, "representation")


# --- runs

SHORT = ["trainer.max_epochs=2", "trainer.precision=fp32", "trainer.limit_train_batches=5", "dataset=digits_retrieval"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.mark.slow
def test_generations_share_earlier_stages_and_a_run_is_evaluated_by_recall(ltr_train, ltr_eval, store, tmp_path):
    one = ltr_train(*SHORT, "method=rkd", f"paths.stages={store}", outputs=tmp_path / "one")
    assert one.code == 0, one.err
    assert 0 < one.headline["recall_at_1"] <= 1
    assert ltr_eval(one.directory, "trainer.precision=fp32")[0] == 0
    two = ltr_train(*SHORT, "method=rkd", "method.generations=2", f"paths.stages={store}", outputs=tmp_path / "two")
    assert [stage["status"] for stage in two.result["stages"]] == ["reused", "reused", "trained"]
    # a teacher from a checkpoint: the same student
    finished = ltr_train(
        *SHORT, "method=rkd", f"method.start_from={one.directory}", "head.width=16", outputs=tmp_path / "given"
    )
    assert finished.code == 0, finished.err
    assert finished.result["stages"][0]["status"] == "reused"


@pytest.mark.slow
def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(ltr_train, store, tmp_path):
    other = ltr_train(*SHORT, "dataset.n_train=4", "method=triplet", "trainer.max_epochs=1", outputs=tmp_path / "a")
    assert other.code == 0, other.err
    refused = ltr_train(*SHORT, "method=rkd", f"method.start_from={other.directory}", outputs=tmp_path / "b")
    assert refused.code != 0
    assert "have different data: 4 classes (0, 1, 2, 3) and 5 classes" in refused.err


@pytest.mark.parametrize("target", ["rkd.RKD", "terms.RKD"])
def test_every_reduction_that_can_be_chosen_is_one_of_the_losses(target):
    reductions = list(get_args(RelationalReduction))
    assert rules_of_target(f"ltr.methods.distillation.{target}")["reduction"] == reductions
    student, teacher = torch.randn(2, 6, 3).unbind()
    assert len({float(rkd_distance(student, teacher, reduction)) for reduction in reductions}) == len(reductions)

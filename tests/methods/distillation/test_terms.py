"""Distillation as further loss terms: what they add, what they refuse, and that a teacher's pass is shared."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from method_plans import planned, state, step

from ltr.errors import ConfigError
from ltr.files import checkpoint_file
from ltr.losses.distillation import attention_transfer, kl_to_teacher
from ltr.losses.relational import rkd_angle, rkd_distance
from ltr.methods.core.checkpoint import load_network
from ltr.methods.core.network import ImageClassifier
from ltr.methods.distillation import teacher
from ltr.methods.distillation import terms as extras
from ltr.models.digits_net import DigitsNet
from resuming import same_bits

WHERE = "teachers/run"
TERMS = ("RKD", "HKD", "FitNet", "AttentionTransfer")


def config(term: str, **options) -> dict:
    return {"_target_": f"ltr.methods.distillation.terms.{term}", "teacher": WHERE, **options}


@pytest.fixture
def plan():
    return planned()


@pytest.fixture
def teacher_network(plan, monkeypatch):
    """The teacher at every path, with non-initial BatchNorm statistics."""
    network = plan.representation(seed=5)
    read = []
    monkeypatch.setattr(extras, "read_network", lambda where: read.append(where) or network)
    network.read = read
    return network


def student(plan, *configs) -> ImageClassifier:
    stage = plan.stages["representation"]
    return replace(stage, settings=stage.settings.replaced(extras=configs)).network(plan.dataset_info, 0)


def training_step(plan, network) -> dict:
    torch.manual_seed(0)
    return network.training_step(plan.batch(), 0)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_added_to_the_loss_and_logged(plan, teacher_network, term):
    plain = training_step(plan, student(plan))
    actual = training_step(plan, student(plan, config(term)))
    assert actual["logs"][term] > 0
    assert actual["loss"].item() == pytest.approx(float(plain["loss"].detach() + actual["logs"][term]), rel=1e-5)


def test_the_terms_equal_their_losses_of_features_logits_and_maps(plan, teacher_network):
    network = student(plan, config("RKD"), config("HKD"), config("AttentionTransfer")).eval()
    batch = plan.batch()
    actual = network.training_step(batch, 0)["logs"]
    unit = network.to_unit(batch.images)
    with torch.no_grad():
        student_features, our_maps = network.backbone.features_and_maps(network.normalise(unit))
        teacher_features, their_maps = teacher_network.backbone.features_and_maps(teacher_network.normalise(unit))
        torch.testing.assert_close(
            actual["RKD"],
            25 * rkd_distance(student_features, teacher_features) + 50 * rkd_angle(student_features, teacher_features),
        )
        torch.testing.assert_close(
            actual["HKD"],
            kl_to_teacher(network.head(student_features), teacher_network.head(teacher_features), 4.0).mean(),
        )
        attention = sum(
            attention_transfer(student_map, teacher_map) for student_map, teacher_map in zip(our_maps, their_maps)
        )
        torch.testing.assert_close(actual["AttentionTransfer"], 1000 * attention)


@pytest.mark.parametrize(("term", "zero"), [("RKD", 1e-6), ("HKD", 1e-6), ("AttentionTransfer", 1e-6)])
def test_terms_are_zero_for_a_student_equal_to_its_teacher(plan, teacher_network, term, zero):
    network = student(plan, config(term))
    network.backbone.load_state_dict(teacher_network.backbone.state_dict())
    network.head.load_state_dict(teacher_network.head.state_dict())
    assert network.eval().training_step(plan.batch(), 0)["logs"][term].abs() < zero


def test_terms_of_one_teacher_share_its_network_and_forward_pass(plan, teacher_network):
    network = student(plan, *map(config, TERMS))
    passes = []
    teacher_network.backbone.stage1.register_forward_hook(lambda *_: passes.append(1))
    training_step(plan, network)
    assert teacher_network.read == [WHERE]
    assert len(passes) == 1


def test_feature_maps_come_from_the_students_forward_pass(plan, teacher_network):
    network = student(plan, config("FitNet"), config("AttentionTransfer"))
    passes = []
    network.backbone.stage1.register_forward_hook(lambda *_: passes.append(1))
    training_step(plan, network)
    assert len(passes) == 1


def test_recording_maps_does_not_change_features(plan, teacher_network):
    plain, keeping = student(plan).eval(), student(plan, config("FitNet")).eval()
    unit = plain.to_unit(plan.batch().images)
    with torch.no_grad():
        assert torch.equal(plain.features(unit), keeping.features(unit))


def test_a_copied_network_records_its_maps_separately(plan, teacher_network):
    network = student(plan, config("FitNet"))
    copied = copy.deepcopy(network)
    with torch.no_grad():
        copied.backbone.stage1[0].weight.zero_()
        unit = network.to_unit(plan.batch().images)
        assert not torch.equal(copied.eval().features(unit), network.eval().features(unit))


def test_the_hints_regressor_is_trained_and_the_teacher_is_not(plan, teacher_network):
    network = student(plan, config("FitNet", weight=0.1))
    before, teachers = state(network.extras), state(teacher_network)
    assert [name for name, _ in network.extras.named_parameters()] == ["FitNet.regressor.convolution.weight"]
    step(network, plan.batch(), steps=2)
    assert not same_bits(before, state(network.extras))
    assert same_bits(teachers, state(teacher_network))
    assert not any("teacher" in name for name in network.state_dict())


def test_every_term_changes_the_students_gradient(plan, teacher_network):
    def gradient(*configs) -> torch.Tensor:
        network = student(plan, *configs)
        training_step(plan, network)["loss"].backward()
        return network.backbone.stage1[0].weight.grad

    plain = gradient()
    for term in TERMS:
        actual = gradient(config(term))
        assert torch.isfinite(actual).all()
        assert (actual - plain).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("term", "options", "message"),
    [
        ("RKD", {"distance_weight": 0, "angle_weight": 0}, "has no effect"),
        ("HKD", {"temperature": 0}, "temperature=0"),
        ("FitNet", {"level": -4}, "level=-4.*-3 to -1"),
        ("FitNet", {"level": 0}, "level=0"),
    ],
)
def test_invalid_options_are_refused(plan, teacher_network, term, options, message):
    with pytest.raises(ConfigError, match=message):
        student(plan, config(term, **options))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("which", ["backbone", "taught"])
def test_terms_on_maps_refuse_a_network_without_maps(plan, teacher_network, term, which, monkeypatch):
    if which == "taught":
        teacher_network.backbone.map_channels = ()
    else:
        build = DigitsNet.__init__

        def without_maps(self, *arguments, **options):
            build(self, *arguments, **options)
            self.map_channels = ()

        monkeypatch.setattr(DigitsNet, "__init__", without_maps)
    if term in ("RKD", "HKD"):
        student(plan, config(term))
    else:
        with pytest.raises(ConfigError, match=f"{term} compares feature maps.*backbone has none.*resnet32"):
            student(plan, config(term))


def test_a_teacher_of_other_data_is_refused_unless_that_is_allowed(teacher_network):
    other = planned("dataset=digits")
    with pytest.raises(ConfigError, match=r"different data: 500 training images"):
        student(other, config("RKD"))
    student(other, config("RKD", same_split=False))


def test_hkd_of_other_classes_is_refused_even_if_other_data_are_allowed(teacher_network):
    fewer = planned("dataset=digits", "dataset.num_classes=6")
    with pytest.raises(ConfigError, match="scores of 6 classes"):
        student(fewer, config("HKD", same_split=False))


def test_images_of_another_shape_are_refused_even_if_other_data_are_allowed(plan):
    network = plan.representation()
    dataset_info = copy.copy(plan.dataset_info)
    object.__setattr__(dataset_info, "image_shape", (3, 8, 8))
    with pytest.raises(ConfigError, match=r"shape \(1, 8, 8\) and images of shape \(3, 8, 8\)"):
        teacher.check_teacher(network, dataset_info, WHERE, same_split=False)


@pytest.mark.slow
def test_a_run_with_all_terms_is_trained_evaluated_and_evaluated_again(ltr_train, ltr_eval, tmp_path):
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.precision=fp32", "optimizer.lr=0.01"]
    first = ltr_train(*short, outputs=tmp_path / "teacher").directory
    nodes = ",".join(f"{{_target_: ltr.methods.distillation.terms.{term}, teacher: {first}}}" for term in TERMS)
    done = ltr_train(*short, f"+method.extras=[{nodes}]", "trainer.ema_decay=0.9", outputs=tmp_path / "student")
    assert done.code == 0, done.err
    header = (done.directory / "metrics.csv").read_text().splitlines()[0]
    assert all(f"train/{term}" in header for term in TERMS)
    assert not any(name.startswith("extras") for name in load_network(checkpoint_file(done.directory)).state_dict())
    # a teacher counts by its content, and only training needs it
    moved = first.rename(tmp_path / "moved")
    assert ltr_eval(done.directory, "trainer.precision=fp32")[0] == 0
    again = nodes.replace(str(first), str(moved))
    reused = ltr_train(
        *short, f"+method.extras=[{again}]", "trainer.ema_decay=0.9", f"paths.stages={done.outputs / 'stages'}"
    )
    assert reused.result["stages"][0]["status"] == "reused"


@pytest.mark.slow
def test_a_missing_teacher_is_refused(ltr_train):
    refused = ltr_train(
        "+method.extras=[{_target_: ltr.methods.distillation.terms.HKD, teacher: nowhere}]", "trainer.max_epochs=1"
    )
    assert refused.code != 0
    assert "nowhere is neither a run directory" in refused.err

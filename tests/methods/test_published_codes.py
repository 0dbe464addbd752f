"""Checkpoints under the names of the authors' code, made up here: the logits are those of that code's forward pass.

The forward passes are written for this test, on the state dict alone.
"""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from ltr.configuration.evaluation_overrides import PUBLISHED_CODES
from ltr.configuration.overrides import compose_config
from ltr.errors import CheckpointError, ConfigError
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.foreign import foreign_network
from ltr.models import timm_backbone
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.classifier32 import Classifier32
from ltr.models.published_names import LAYOUTS

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)
DATASET_INFO = DatasetInfo((3, 32, 32), MEAN, STD, tuple("abcdefghij"), (5,) * 10)
LINEAR = {"_target_": "ltr.models.heads.LinearHead"}
COSINE = {"_target_": "ltr.models.heads.CosineHead", "scale": 30.0}
NO_BIAS = {**LINEAR, "bias": False}
CROSS_ENTROPY = {"_target_": "ltr.losses.classification.CrossEntropy"}
RESNET = {"_target_": "ltr.models.cifar_resnet.CifarResNet", "depth": 20, "shortcut_padding": "both", "weights": None}
NINE = {"_target_": "ltr.models.classifier32.Classifier32", "weights": None}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalised(images: Tensor) -> Tensor:
    return (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> State:
    """Tensors of these shapes: convolutions of usual size, positive variances."""
    numbers = torch.Generator().manual_seed(1)
    state = {}
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=numbers)
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
        state[name] = tensor.abs() + 0.5 if name.endswith("running_var") else tensor / fan_in**0.5
    return state


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def resnet_shapes(names: dict[str, str], blocks: int = 3) -> dict[str, tuple[int, ...]]:
    """ResNet-20's tensors; ``names`` has those of the stem, of a stage and of a block's layers."""
    shapes = {f"{names['conv']}.weight": (16, 3, 3, 3), **norm_shapes(names["bn"], 16)}
    inside = 16
    for stage, width in enumerate((16, 32, 64)):
        for block in range(blocks):
            prefix = f"{names['stage'].format(stage)}.{block}"
            for layer, channels in zip(names["layers"].split(), (inside, width)):
                shapes[f"{prefix}.conv{layer}.weight"] = (width, channels, 3, 3)
                shapes |= norm_shapes(f"{prefix}.bn{layer}", width)
            inside = width
    return shapes


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts)


def resnet_features(state: State, names: dict[str, str], x: Tensor, zeros: tuple[float, float]) -> Tensor:
    """ResNet-20's features; ``zeros`` are the shares of the missing channels before and after the real ones."""
    x = F.relu(batch_norm(state, names["bn"], F.conv2d(x, state[f"{names['conv']}.weight"], padding=1)))
    first, second = names["layers"].split()
    for stage in range(3):
        for block in range(3):
            prefix = f"{names['stage'].format(stage)}.{block}"
            stride = 2 if stage and not block else 1
            y = F.conv2d(x, state[f"{prefix}.conv{first}.weight"], stride=stride, padding=1)
            y = F.relu(batch_norm(state, f"{prefix}.bn{first}", y))
            y = batch_norm(
                state, f"{prefix}.bn{second}", F.conv2d(y, state[f"{prefix}.conv{second}.weight"], padding=1)
            )
            missing = y.shape[1] - x.shape[1]
            before, after = (int(share * missing) for share in zeros)
            x = F.relu(y + F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, after)))
    return x.mean((2, 3))


M2M = {"conv": "conv_1_3x3", "bn": "bn_1", "layers": "_a _b"}
SLA = {"conv": "base_model.0", "bn": "base_model.1", "layers": "_a _b"}
OTHERS = {"conv": "conv1", "bn": "bn1", "layers": "1 2"}
STAGES = {"m2m": ("stage_", 1), "sla": ("base_model.", 3), "others": ("layer", 1)}


class Numbered(str):
    """A prefix of stages that are numbered from somewhere."""

    def format(self, stage: int) -> str:  # type: ignore[override]
        prefix, first = STAGES[self]
        return f"{prefix}{stage + first}"


M2M["stage"], SLA["stage"], OTHERS["stage"] = Numbered("m2m"), Numbered("sla"), Numbered("others")
AFTER, BOTH = (0.0, 1.0), (0.5, 0.5)


def read(path, head=LINEAR, backbone=RESNET, dataset_info=DATASET_INFO, **how):
    configs = {"backbone": backbone, "head": head, "loss": CROSS_ENTROPY}
    return foreign_network(path, configs, dataset_info, **how)


def logits_of(network, images: Tensor) -> Tensor:
    return network.predict(images)["default"].logits


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-4)


def m2m_checkpoint(path, normalised_classifier: bool = False) -> State:
    """A checkpoint as written by M2m's train.py, with the state of a generator."""
    shapes = {**resnet_shapes(M2M), "linear.weight": (64, 10) if normalised_classifier else (10, 64)}
    state = random_tensors(shapes if normalised_classifier else {**shapes, "linear.bias": (10,)})
    torch.save({"net": state, "optimizer": {"state": {}}, "acc": 78.3, "rng_state": torch.get_rng_state()}, path)
    return state


@pytest.mark.parametrize("layout", [None, "m2m"])
def test_a_checkpoint_of_the_m2m_code_gives_its_logits(tmp_path, images, layout):
    state = m2m_checkpoint(tmp_path / "m2m.t7")
    x = resnet_features(state, M2M, normalised(images), AFTER)
    network = read(tmp_path / "m2m.t7", layout=layout)
    close(logits_of(network, images), F.linear(x, state["linear.weight"], state["linear.bias"]))
    assert network.settings.backbone["shortcut_padding"] == "after"


def test_the_normalised_classifier_of_the_m2m_code_is_a_cosine_head(tmp_path, images):
    state = m2m_checkpoint(tmp_path / "m2m.t7", normalised_classifier=True)
    x = resnet_features(state, M2M, normalised(images), AFTER)
    cosines = F.normalize(x, dim=1) @ F.normalize(state["linear.weight"], dim=0)
    close(logits_of(read(tmp_path / "m2m.t7", COSINE), images), 30 * cosines)
    with pytest.raises(ConfigError, match=r"M2m's normalised one.*Set head=cosine"):
        read(tmp_path / "m2m.t7", NO_BIAS)


@pytest.mark.parametrize("outputs", [(40,), (40, 10)])  # four rotations; with self-distillation a student
@pytest.mark.parametrize("layout", [None, "sla"])
def test_a_checkpoint_of_the_sla_code_gives_its_logits(tmp_path, images, outputs, layout):
    shapes = resnet_shapes(SLA)
    for index, rows in enumerate(outputs):
        shapes |= {f"classifiers.{index}.weight": (rows, 64), f"classifiers.{index}.bias": (rows,)}
    state = random_tensors(shapes)
    torch.save({"model": state, "optim": {"state": {}}, "epoch": 3}, tmp_path / "model-best.pth")
    x = resnet_features(state, SLA, normalised(images), AFTER)
    last = len(outputs) - 1
    joint = F.linear(x, state[f"classifiers.{last}.weight"], state[f"classifiers.{last}.bias"])
    close(logits_of(read(tmp_path / "model-best.pth", layout=layout), images), joint if last else joint[:, ::4])


@pytest.mark.parametrize("layout", [None, "akamaster", "ldam"])
def test_checkpoints_of_akamaster_and_the_ldam_code_give_their_logits(tmp_path, images, layout):
    state = random_tensors({**resnet_shapes(OTHERS), "linear.weight": (10, 64), "linear.bias": (10,)})
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "resnet20.th")
    x = resnet_features(state, OTHERS, normalised(images), BOTH)
    network = read(tmp_path / "resnet20.th", layout=layout)
    close(logits_of(network, images), F.linear(x, state["linear.weight"], state["linear.bias"]))


def test_the_normalised_classifier_of_the_ldam_code_is_transposed(tmp_path, images):
    state = random_tensors({**resnet_shapes(OTHERS), "linear.weight": (64, 10)})
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "ldam.pth.tar")
    x = resnet_features(state, OTHERS, normalised(images), BOTH)
    cosines = F.normalize(x, dim=1) @ F.normalize(state["linear.weight"], dim=0)
    close(logits_of(read(tmp_path / "ldam.pth.tar", COSINE, layout="ldam"), images), 30 * cosines)


@pytest.mark.parametrize("norms", ["bn{}", "bn{}.bns.0"])  # ARPL; ARPL+CS has a second one for generated images
def test_a_checkpoint_of_the_arpl_code_gives_its_logits(tmp_path, images, norms):
    shapes, widths = {}, (3, 64, 64, 128, 128, 128, 128, 128, 128, 128)
    for layer in range(1, 10):
        shapes[f"conv{layer}.weight"] = (widths[layer], widths[layer - 1], 3, 3)
        shapes |= norm_shapes(norms.format(layer), widths[layer])
        if norms.endswith("0"):
            shapes |= norm_shapes(f"bn{layer}.bns.1", widths[layer])
    state = random_tensors({**shapes, **norm_shapes(norms.format(10), 128), "fc.weight": (10, 128)})
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "classifier32_Softmax.pth")
    x = normalised(images)
    for layer in range(1, 10):
        x = F.conv2d(x, state[f"conv{layer}.weight"], stride=2 if layer % 3 == 0 else 1, padding=1)
        x = F.leaky_relu(batch_norm(state, norms.format(layer), x), 0.2)
    network = read(tmp_path / "classifier32_Softmax.pth", NO_BIAS, NINE)
    close(logits_of(network, images), F.linear(x.mean((2, 3)), state["fc.weight"]))
    backbone = Classifier32(3, weights=str(tmp_path / "classifier32_Softmax.pth")).eval()
    close(backbone(normalised(images)), x.mean((2, 3)))


def test_a_backbone_starts_from_a_published_file_only_with_the_same_shortcuts(tmp_path, images):
    state = m2m_checkpoint(tmp_path / "m2m.t7")
    with pytest.raises(ConfigError, match=r"M2m's code.*Set backbone\.shortcut_padding=after"):
        CifarResNet(3, depth=20, weights=str(tmp_path / "m2m.t7"))
    for weights_map in (None, "m2m"):
        backbone = CifarResNet(
            3, depth=20, shortcut_padding="after", weights=str(tmp_path / "m2m.t7"), weights_map=weights_map
        )
        close(backbone.eval()(normalised(images)), resnet_features(state, M2M, normalised(images), AFTER))
    with pytest.raises(ConfigError, match=r"weights_map=m2n: no published code.*Did you mean 'm2m'"):
        CifarResNet(3, depth=20, weights=str(tmp_path / "m2m.t7"), weights_map="m2n")
    torch.save(CifarResNet(3, depth=20).state_dict(), tmp_path / "ldam.pth")
    with pytest.raises(ConfigError, match="LDAM-DRW's code"):
        CifarResNet(3, depth=20, shortcut_padding="after", weights=str(tmp_path / "ldam.pth"), weights_map="ldam")
    with pytest.raises(ConfigError, match=r"LDAM-DRW's code.*Set backbone\.shortcut_reduction=stride"):
        CifarResNet(3, depth=20, shortcut_reduction="average", weights=str(tmp_path / "ldam.pth"), weights_map="ldam")


def test_shortcuts_that_differ_from_the_codes_are_refused(tmp_path):
    m2m_checkpoint(tmp_path / "m2m.t7")
    with pytest.raises(ConfigError, match="shortcut_padding is 'both'"):
        read(tmp_path / "m2m.t7", padding="both")


@pytest.mark.parametrize("wrong", ["sla", "arpl", "herbs", "pim", "ldam"])
def test_a_file_of_another_code_is_refused(tmp_path, wrong):
    m2m_checkpoint(tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="those of M2m's code"):
        read(tmp_path / "net.pth", layout=wrong)
    torch.save({"conv1.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "other.pth")
    if wrong != "ldam":
        with pytest.raises(CheckpointError, match="not those of"):
            read(tmp_path / "other.pth", layout=wrong)


def test_the_choices_of_published_codes_are_the_known_layouts():
    assert set(PUBLISHED_CODES) == set(LAYOUTS)


# -- HERBS and PIM ---------------------------------------------------------------------------------------------------

SIDE, EMBED, WIDTH, CLASSES = 64, 8, 24, 10
HERBS_FACTS = DatasetInfo((3, SIDE, SIDE), MEAN, STD, tuple("abcdefghij"), (5,) * 10)
TIMM = {"_target_": "ltr.models.timm_backbone.TimmBackbone", "weights": None}


def tiny_swin(*_: object):
    """Swin of four stages of a block each."""
    torch.manual_seed(2)
    sizes = {"img_size": SIDE, "window_size": 2, "embed_dim": EMBED, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    net = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **sizes)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def herbs_state(locations: list[int], channels: list[int], *, both: bool, conv: bool, joints: int) -> State:
    """The plug-in's tensors under the names of ``pim_module`` without the backbone's."""
    down, selected = "fpn_down" if both else "fpn", sum(SELECTED[both])
    shapes: dict[str, tuple[int, ...]] = {}
    layers = range(1, 5)
    for layer, (n, c) in enumerate(zip(locations, channels), 1):
        ones = (1, 1) if conv else ()
        shapes |= {f"{down}.Proj_layer{layer}.0.weight": (c, c, *ones), f"{down}.Proj_layer{layer}.0.bias": (c,)}
        shapes |= {
            f"{down}.Proj_layer{layer}.2.weight": (WIDTH, c, *ones),
            f"{down}.Proj_layer{layer}.2.bias": (WIDTH,),
        }
        below = locations[layer - 2]
        if layer > 1 and not conv and (both or n != below):  # PIM has an identity between maps of one size
            shapes |= {f"{down}.Up_layer{layer}.weight": (below, n, 1), f"{down}.Up_layer{layer}.bias": (below,)}
    for layer in layers if both else ():
        for part in (0, 2):
            shapes |= {f"fpn_up.Proj_layer{layer}.{part}.weight": (WIDTH, WIDTH)}
            shapes |= {f"fpn_up.Proj_layer{layer}.{part}.bias": (WIDTH,)}
        if layer < 4:
            after = locations[layer]
            shapes |= {f"fpn_up.Down_layer{layer}.weight": (after, locations[layer - 1], 1)}
            shapes |= {f"fpn_up.Down_layer{layer}.bias": (after,)}
    for kind in ("fpn_classifier_down", "fpn_classifier_up") if both else ("fpn_classifier",):
        for layer in layers:
            name = f"{kind}_layer{layer}"
            shapes |= {
                f"{name}.0.weight": (WIDTH, WIDTH, 1),
                f"{name}.0.bias": (WIDTH,),
                **norm_shapes(f"{name}.1", WIDTH),
            }
            shapes |= {f"{name}.3.weight": (CLASSES, WIDTH, 1), f"{name}.3.bias": (CLASSES,)}
    quarter = WIDTH // 4
    for name, shape in {
        "param_pool0": (joints, selected),
        "conv_q1": (quarter, WIDTH, 1),
        "conv_k1": (quarter, WIDTH, 1),
        "conv1": (WIDTH, WIDTH, 1),
        "param_pool1": (1, joints),
        "classifier": (CLASSES, WIDTH),
    }.items():
        shapes |= {f"combiner.{name}.weight": shape, f"combiner.{name}.bias": shape[:1]}
    shapes |= {"combiner.adj1": (joints, joints), "combiner.alpha1": (1,), **norm_shapes("combiner.batch_norm1", WIDTH)}
    return random_tensors(shapes)


SELECTED = {True: [7, 4, 2, 1], False: [57, 14, 4, 1]}  # of 64, 16, 4, 4 locations: the configs' shares


def plug_in(state: State, levels: list[Tensor], *, both: bool, conv: bool) -> list[Tensor]:
    """The image-wise logits of the plug-in for levels [B, N, C]: combiner, last path, first path."""
    down = "fpn_down" if both else "fpn"

    def dense(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"].flatten(1), state[f"{name}.bias"])

    def project(name: str, x: Tensor) -> Tensor:
        return dense(f"{name}.2", F.relu(dense(f"{name}.0", x)))

    def mixed(name: str, x: Tensor) -> Tensor:
        return F.conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"]) if f"{name}.weight" in state else x

    def doubled(x: Tensor, to: int) -> Tensor:
        side = int(x.shape[1] ** 0.5)
        if x.shape[1] == to:
            return x
        grid = x.transpose(1, 2).unflatten(2, (side, side))
        return F.interpolate(grid, scale_factor=2, mode="bilinear").flatten(2).transpose(1, 2)

    def classify(name: str, x: Tensor) -> Tensor:
        hidden = F.relu(batch_norm(state, f"{name}.1", dense(f"{name}.0", x).transpose(1, 2)).transpose(1, 2))
        return dense(f"{name}.3", hidden)

    x = [project(f"{down}.Proj_layer{layer}", level) for layer, level in enumerate(levels, 1)]
    for layer in (4, 3, 2):
        up = doubled(x[layer - 1], x[layer - 2].shape[1]) if conv else mixed(f"{down}.Up_layer{layer}", x[layer - 1])
        x[layer - 2] = x[layer - 2] + up
    first = [classify(f"fpn_classifier_down_layer{layer}", y) for layer, y in enumerate(x, 1)] if both else []
    if both:
        x = [project(f"fpn_up.Proj_layer{layer}", level) for layer, level in enumerate(x, 1)]
        for layer in (1, 2, 3):
            x[layer] = x[layer] + mixed(f"fpn_up.Down_layer{layer}", x[layer - 1])
    last_name = "fpn_classifier_up_layer" if both else "fpn_classifier_layer"
    last = [classify(f"{last_name}{layer}", y) for layer, y in enumerate(x, 1)]
    chosen = []
    for features, logits, count in zip(x, last, SELECTED[both]):
        for_image = []
        for feature, logit in zip(features, logits):
            of_image = logit.mean(0).argmax()
            score = logit.softmax(1)[:, of_image] if both else logit.softmax(1).amax(1)
            for_image.append(feature[score.sort(descending=True).indices[:count]])
        chosen.append(torch.stack(for_image))
    nodes = dense("combiner.param_pool0", torch.cat(chosen, 1).transpose(1, 2))  # [B, C, J]
    query, key = (mixed(f"combiner.conv_{one}1", nodes).mean(1) for one in "qk")
    pairs = torch.tanh(query.unsqueeze(2) - key.unsqueeze(1)) * state["combiner.alpha1"]
    nodes = mixed("combiner.conv1", nodes) @ (state["combiner.adj1"] + pairs)
    nodes = batch_norm(state, "combiner.batch_norm1", nodes)
    joined = dense("combiner.classifier", dense("combiner.param_pool1", nodes).flatten(1))
    return [joined, *(logits.mean(1) for logits in [*last, *first])]


def swin_levels(net, x: Tensor) -> list[Tensor]:
    """Levels as the code's Swin returns them: each stage's output after the merging that leads to the next stage."""
    maps = [one.permute(0, 2, 3, 1) for one in net.forward_intermediates(x, intermediates_only=True)]
    merged = [net.layers[stage + 1].downsample(maps[stage]) for stage in range(3)]
    return [level.flatten(1, 2) for level in (*merged, maps[3])]


def old_swin_state(net) -> State:
    """A Swin's tensors as timm named them then: mergings at the end of stages, an unused classifier and buffers."""
    state = {}
    for name, tensor in net.state_dict().items():
        parts = name.split(".")
        if len(parts) > 2 and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        state["backbone." + ".".join(parts)] = tensor
    extra = {"backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4)}
    return {**state, **extra, "backbone.head.weight": torch.zeros(5, 64), "backbone.head.bias": torch.zeros(5)}


def config(method: str, **changes: object) -> dict:
    return {**compose_config([f"method={method}"])["method"], **changes}


@torch.no_grad()
@pytest.mark.parametrize(("method", "both"), [("herbs_released", True), ("pim", False)])
def test_swin_checkpoints_of_the_herbs_and_pim_codes_give_their_logits(tmp_path, monkeypatch, method, both):
    net = tiny_swin().eval()
    monkeypatch.setattr(timm_backbone, "_create", tiny_swin)
    channels = [16, 32, 64, 64]
    state = herbs_state([64, 16, 4, 4], channels, both=both, conv=False, joints=3)
    torch.save({"model": {**state, **old_swin_state(net)}, "optimizer": {}, "epoch": 79}, tmp_path / "best.pt")
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    expected = plug_in(state, swin_levels(net, normalised(images)), both=both, conv=False)
    configs = {"backbone": {**TIMM, "name": "tiny_swin", "img_size": SIDE}, "head": LINEAR, "loss": CROSS_ENTROPY}
    network = foreign_network(tmp_path / "best.pt", {**configs, "method": config(method)}, HERBS_FACTS)
    actual = network.predict(images)
    names = ["merged", *(f"level_{n}" for n in range(1, 5)), *(f"top_down_{n}" for n in range(1, 5))]
    for name, logits in zip(names, expected, strict=both):
        close(actual[name].logits, logits)
    close(actual["mean_of_softmaxes"].logits.softmax(1), torch.stack(expected).softmax(2).mean(0))
    few = config(method, selected=[3, 2, 1, 1], selected_fractions=None)
    with pytest.raises(CheckpointError, match=r"and 7 are selected.*set method\.selected"):
        foreign_network(tmp_path / "best.pt", {**configs, "method": few}, HERBS_FACTS)


@torch.no_grad()
def test_a_resnet_checkpoint_of_the_pim_code_gives_its_logits(tmp_path):
    net = timm.create_model("test_resnet", num_classes=0).eval()
    maps = net.forward_intermediates(torch.zeros(1, 3, SIDE, SIDE), intermediates_only=True)
    chosen = [one.shape[1] for one in maps][-4:]
    locations = [one.shape[2] ** 2 for one in maps][-4:]
    state = herbs_state(locations, chosen, both=False, conv=True, joints=2)
    count = [max(1, round(n * share)) for n, share in zip(locations, (8 / 9, 8 / 9, 8 / 9, 2 / 9))]
    state["combiner.param_pool0.weight"] = torch.randn(2, sum(count)) / sum(count) ** 0.5
    backbone = {f"backbone.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"model": {**state, **backbone}}, tmp_path / "best.pt")
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    levels = [
        m.flatten(2).transpose(1, 2) for m in net.forward_intermediates(normalised(images), intermediates_only=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SELECTED, False, count)
        expected = plug_in(state, levels[-4:], both=False, conv=True)
    configs = {
        "backbone": {**TIMM, "name": "test_resnet"},
        "head": LINEAR,
        "loss": CROSS_ENTROPY,
        "method": config("pim"),
    }
    actual = foreign_network(tmp_path / "best.pt", configs, HERBS_FACTS).predict(images)
    for name, logits in zip(["merged", "level_1", "level_2", "level_3", "level_4"], expected, strict=True):
        close(actual[name].logits, logits)

"""Weights of other code: the layouts that are published for ResNet-32, renaming, and one message for all misfits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltr.errors import CheckpointError, ConfigError
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.foreign import foreign_network

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONE = {"_target_": "ltr.models.cifar_resnet.CifarResNet", "depth": 32, "weights": None}
LINEAR = {"_target_": "ltr.models.heads.LinearHead"}
COSINE = {"_target_": "ltr.models.heads.CosineHead", "scale": 30.0}
FEATURES = {"_target_": "ltr.models.embedding.EmbeddingHead", "width": None}
CROSS_ENTROPY = {"_target_": "ltr.losses.classification.CrossEntropy"}
DATASET_INFO = DatasetInfo((3, 32, 32), MEAN, STD, tuple("abcdefghij"), (5,) * 10)


class Block(nn.Module):
    """A basic block whose widening shortcut is padded with zero channels on both sides: option A."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.missing = width - inside
        self.shortcut = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.missing:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return functional.relu(out + x)


class NormedLinear(nn.Module):
    """Cosines of features and the columns of a weight [D, C], as LDAM-DRW's classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1) @ functional.normalize(self.weight, dim=0)


class Published(nn.Module):
    """ResNet-32 under the names of the files that LDAM-DRW and akamaster's repository publish."""

    def __init__(self, cosine: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self.stage(16, 16, 1)
        self.layer2 = self.stage(16, 32, 2)
        self.layer3 = self.stage(32, 64, 2)
        self.linear = NormedLinear() if cosine else nn.Linear(64, 10)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_var, 0.5, 2.0)
                nn.init.normal_(part.running_mean, std=0.1)

    def stage(self, inside: int, width: int, stride: int) -> nn.Sequential:
        return nn.Sequential(Block(inside, width, stride), *(Block(width, width, 1) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.avg_pool2d(x, x.size(3)).flatten(1))


def published(path, cosine: bool = False) -> Published:
    """Write a training checkpoint as those repositories do: from DataParallel, by an old torch, with its optimiser."""
    torch.manual_seed(0)
    network = Published(cosine).eval()
    state = {f"module.{n}": t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9).state_dict()
    content = {"epoch": 200, "arch": "resnet32", "state_dict": state, "best_acc1": torch.tensor(77.0)}
    torch.save({**content, "optimizer": optimiser}, path, _use_new_zipfile_serialization=False)
    return network


def read(path, head=LINEAR, dataset_info=DATASET_INFO, **how):
    return foreign_network(path, {"backbone": BACKBONE, "head": head, "loss": CROSS_ENTROPY}, dataset_info, **how)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def normalised(images) -> Tensor:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images / 255 - mean) / std


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "resnet32.th"
    return path, published(path)


@torch.no_grad()
def test_a_file_in_the_published_layout_gives_the_logits_of_its_network(file, images, normalised):
    path, expected = file
    actual = read(path).predict(images)["default"].logits
    torch.testing.assert_close(actual, expected(normalised), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_normalised_classifier_is_a_transposed_cosine_head(tmp_path, images, normalised):
    path = tmp_path / "ckpt.best.pth.tar"
    expected = published(path, cosine=True)
    with pytest.raises(CheckpointError, match=r"add weights\.transposed=\[linear\.weight\]"):
        read(path, COSINE)
    actual = read(path, COSINE, transposed=["module.linear.weight"]).predict(images)["default"].logits
    torch.testing.assert_close(actual, 30 * expected(normalised), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_names_of_the_user_are_mapped_with_a_star_for_any_part(tmp_path, file, images, normalised):
    path, expected = file
    state = torch.load(path, weights_only=True)["state_dict"]
    swapped = {}
    for name, tensor in state.items():
        parts = name.replace("module.", "").replace("linear", "top.out").split(".")
        if parts[0].startswith("layer"):
            parts = ["body", f"stage{parts[0][-1]}", parts[1], parts[2].replace("conv", "c"), *parts[3:]]
        swapped[".".join(parts)] = tensor
    torch.save({"net": {**swapped, "aux.weight": torch.zeros(3)}, "seed": 1}, tmp_path / "own.pt")
    names: dict[str, str | None] = {f"body.stage{n}": f"layer{n}" for n in (1, 2, 3)}
    names |= {f"body.stage{n}.*.c{c}": f"layer{n}.*.conv{c}" for n in (1, 2, 3) for c in (1, 2)}
    names |= {"top.out": "head", "aux": None}
    with pytest.raises(CheckpointError, match="they are in: net"):
        read(tmp_path / "own.pt", names=names)
    actual = read(tmp_path / "own.pt", entry="net", names=names).predict(images)["default"].logits
    torch.testing.assert_close(actual, expected(normalised), rtol=1e-4, atol=1e-4)


def test_an_entry_of_several_state_dicts_is_read_as_one(tmp_path, file):
    expected = file[1]
    state = expected.state_dict()
    parts = {
        "feat_model": {f"module.{n}": t for n, t in state.items() if not n.startswith("linear")},
        "classifier": {f"module.{n}": t for n, t in state.items() if n.startswith("linear")},
    }
    torch.save({"state_dict_best": parts}, tmp_path / "both.pth")
    names = {"feat_model": "backbone", "classifier.linear": "head"}
    network = read(tmp_path / "both.pth", entry="state_dict_best", names=names)
    assert torch.equal(network.head.weight, expected.linear.weight)


def test_all_mismatches_are_reported_at_once_with_the_names_to_map(tmp_path, file):
    expected = file[1]
    state = {name.replace("linear", "last_classifier"): tensor for name, tensor in expected.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("layer1")}
    state["layer2.0.shortcut.0.weight"] = torch.zeros(32, 16, 1, 1)
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    torch.save(state, tmp_path / "wrong.pt")
    with pytest.raises(CheckpointError) as error:
        read(tmp_path / "wrong.pt")
    lines = str(error.value).splitlines()
    assert "wrong.pt" in lines[0]
    assert lines[1:] == [
        "  missing in the file (52): backbone.layer1.* (50), head.weight [10, 64], head.bias [10]",
        "  unexpected in the file (3): last_classifier.weight [10, 64], last_classifier.bias [10], "
        "layer2.0.shortcut.0.weight [32, 16, 1, 1]",
        "  mis-shaped: conv1.weight is [16, 1, 3, 3], backbone.conv1.weight needs [16, 3, 3, 3]"
        " (weights for 1 input channels, not 3)",
        "  perhaps: weights.map='{last_classifier: head}'",
    ]


def test_another_number_of_classes_is_an_error(file):
    with pytest.raises(CheckpointError, match=r"linear\.weight is \[10, 64\].*the data set has 3 classes"):
        read(file[0], dataset_info=DatasetInfo((3, 32, 32), MEAN, STD, ("a", "b", "c"), (5, 5, 5)))


def test_using_features_only_needs_no_classifier(tmp_path, file, images):
    state = {name: t for name, t in file[1].state_dict().items() if not name.startswith("linear")}
    torch.save(state, tmp_path / "backbone.pt")
    actual = read(tmp_path / "backbone.pt", FEATURES).predict(images)["default"]
    assert actual.features.shape == (4, 64)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"names": {"liner": "head"}}, "begins with 'liner'.*Did you mean 'linear'"),
        ({"names": {"bn1": "conv1"}}, "both conv1.weight and bn1.weight map to backbone.conv1.weight"),
        ({"transposed": ["fc.weight"]}, "has no tensor 'fc.weight'"),
    ],
)
def test_rules_that_match_no_tensor_are_refused(file, how, words):
    with pytest.raises(ConfigError, match=words):
        read(file[0], **how)

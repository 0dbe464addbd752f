"""Levels, paths and classifiers of locations, on four families of backbones and ours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ltr.errors import ConfigError
from ltr.methods.herbs.pyramid import (
    ConvolvedLocations,
    Levels,
    LocationMixing,
    Path,
    Pyramid,
    Resampling,
    backbone_map_sizes,
)
from ltr.models.backbones import Backbone
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.timm_backbone import TimmBackbone

FAMILIES = ["test_resnet", "test_convnext", "test_efficientnet", "test_vit"]


class Maps(Backbone):
    """A stand-in with given strides and channels, whose maps are averages of the image."""

    def __init__(self, strides, channels):
        super().__init__()
        self.map_strides, self.map_channels, self.num_features = strides, channels, channels[-1]

    def features_and_maps(self, images):
        maps = [
            F.avg_pool2d(images, stride).mean(1, keepdim=True).expand(-1, width, -1, -1)
            for stride, width in zip(self.map_strides, self.map_channels)
        ]
        return maps[-1].mean((2, 3)), maps


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_levels_at_the_strides_of_the_paper(name):
    options = {"img_size": 64} if name == "test_vit" else {}
    backbone = TimmBackbone(3, name=name, **options).eval()
    pyramid = Pyramid(
        backbone, backbone_map_sizes(backbone, (3, 64, 64)), paths="both", count=4, maps="merged", width=8
    )
    with torch.no_grad():
        first, last = pyramid(backbone.feature_maps(torch.randn(2, 3, 64, 64)))
    expected = [(64 // stride, 64 // stride) for stride in (8, 16, 32, 32)]
    assert pyramid.sizes == expected
    for levels in (first, last):
        assert [level.shape for level in levels] == [(2, *size, 8) for size in expected]


@pytest.mark.parametrize("size", [64, 96, 80])
def test_a_convolutional_pyramid_takes_any_size(size):
    backbone = TimmBackbone(3, name="test_convnext").eval()
    pyramid = Pyramid(
        backbone, backbone_map_sizes(backbone, (3, 64, 64)), paths="both", count=4, maps="merged", width=8
    )
    with torch.no_grad():
        _, last = pyramid(backbone.feature_maps(torch.randn(1, 3, size, size)))
    assert [tuple(level.shape[1:3]) for level in last] == pyramid.levels.sizes(
        backbone_map_sizes(backbone, (3, size, size))
    )


@pytest.mark.parametrize(
    ("strides", "maps", "kept", "sizes"),
    [
        ((4, 8, 16, 32), "merged", None, [8, 4, 2, 2]),
        ((4, 8, 16, 32), "stages", None, [16, 8, 4, 2]),
        ((2, 4, 8, 16, 32), "merged", None, [8, 4, 2, 2]),
        ((16, 16, 16, 16), "merged", None, [8, 4, 2, 2]),
        ((16, 16, 16, 16), "stages", None, [4, 4, 4, 4]),
        ((1, 2, 4), "merged", None, [32, 16, 16]),
        ((4, 8, 16, 32), "merged", 2, [2, 2]),
        ((4, 8, 16, 32), "merged", 1, [2]),
        ((4, 8, 16, 32), "stages", 2, [4, 2]),
    ],
)
def test_levels_have_their_stride_or_that_of_the_next_map(strides, maps, kept, sizes):
    backbone = Maps(strides, (4, 6, 8, 10, 12)[: len(strides)])
    levels = Levels(backbone, 4, maps, kept)
    actual = levels(backbone.feature_maps(torch.randn(2, 3, 64, 64)))
    assert [level.shape[1] for level in actual] == sizes
    assert [level.shape[3] for level in actual] == list(levels.channels)
    assert levels.sizes(backbone_map_sizes(backbone, (3, 64, 64))) == [(side, side) for side in sizes]


def test_merging_keeps_every_value_and_pads_odd_borders_with_zeros():
    backbone = Maps((1, 2), (3, 3))
    odd = torch.arange(1.0, 76).view(1, 3, 5, 5)
    merged = Levels(backbone, 2)([odd, odd[:, :, :3, :3]])[0]
    assert merged.shape == (1, 3, 3, 12)
    assert merged[0, 0, 0].tolist() == [v for y in (0, 1) for x in (0, 1) for v in odd[0, :, y, x].tolist()]
    assert merged.sum() == odd.sum()
    assert merged[0, 2, 2, 3:].abs().sum() == 0


def test_paths_add_the_resampled_level_before():
    levels = [torch.randn(1, 4, 4, 2), torch.randn(1, 2, 2, 2)]
    path = Path([2, 2], 3, top_down=True)
    fine, coarse = path(levels)
    torch.testing.assert_close(coarse, path.projections[1](levels[1]))
    up = F.interpolate(coarse.permute(0, 3, 1, 2), size=(4, 4), mode="bilinear").permute(0, 2, 3, 1)
    torch.testing.assert_close(fine, path.projections[0](levels[0]) + up)
    path = Path([2, 2], 3, top_down=False)
    fine, coarse = path(levels)
    torch.testing.assert_close(fine, path.projections[0](levels[0]))
    down = fine.unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((2, 4))
    torch.testing.assert_close(coarse, path.projections[1](levels[1]) + down)


def shapes(path: Path) -> list[list[tuple[int, int]]]:
    return [[(p[0].in_features, p[0].out_features), (p[2].in_features, p[2].out_features)] for p in path.projections]


def test_a_projections_hidden_layer_is_as_wide_as_its_level():
    assert shapes(Path([4, 6], 3, top_down=True)) == [[(4, 4), (4, 3)], [(6, 6), (6, 3)]]


@pytest.mark.parametrize(
    ("maps", "hidden_width", "hidden"),
    [
        ("merged", "level", [8, 16, 32, 32]),  # what Swin's patch merging leaves of 4 C channels
        ("stages", "level", [4, 8, 16, 32]),
        ("merged", "path", [5, 5, 5, 5]),
    ],
)
def test_the_top_down_path_has_the_codes_hidden_widths(maps, hidden_width, hidden):
    backbone = Maps((4, 8, 16, 32), (4, 8, 16, 32))
    sizes = backbone_map_sizes(backbone, (3, 64, 64))
    options = {"paths": "both", "count": 4, "maps": maps, "width": 5, "hidden_width": hidden_width}
    pyramid = Pyramid(backbone, sizes, **options)
    entering = pyramid.levels.channels
    assert shapes(pyramid.top_down) == [[(c, h), (h, 5)] for c, h in zip(entering, hidden)]
    assert shapes(pyramid.bottom_up) == [[(5, 5), (5, 5)]] * 4


def test_levels_of_one_size_are_added_unless_mixed():
    levels = [torch.randn(1, 2, 2, 3), torch.randn(1, 2, 2, 3)]
    path = Path([3, 3], 3, top_down=True, mixing_sizes=[(2, 2), (2, 2)], mix_equal=False)
    assert not list(path.steps.parameters())
    fine, coarse = path(levels)
    torch.testing.assert_close(fine, path.projections[0](levels[0]) + coarse)


def test_merged_levels_alone_have_a_normalisation():
    levels = Levels(Maps((4, 8, 16, 32), (4, 8, 16, 32)), 4, norm="merging")
    assert [isinstance(norm, nn.LayerNorm) for norm in levels.norms] == [True, True, True, False]


def test_a_map_of_the_same_size_is_not_copied():
    level = torch.randn(1, 3, 3, 2)
    assert Resampling()(level, (3, 3)) is level


def test_learned_mixing_is_a_weighted_sum_of_all_locations_for_a_fixed_size():
    mixing = LocationMixing((2, 2), (3, 3))
    level = torch.randn(2, 2, 2, 5)
    expected = mixing.mixing(level.flatten(1, 2).transpose(1, 2)).transpose(1, 2).unflatten(1, (3, 3))
    torch.testing.assert_close(mixing(level, (3, 3)), expected)
    with pytest.raises(ConfigError, match="weights are for 4 locations, and these images give 3 x 3"):
        mixing(torch.randn(1, 3, 3, 5), (3, 3))


def test_the_released_classifier_is_two_convolutions_with_a_norm_between():
    classify = ConvolvedLocations(6, 4)
    level = torch.randn(2, 3, 3, 6)
    reference = nn.Sequential(nn.Conv1d(6, 6, 1), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 1))
    reference[0].weight.data, reference[0].bias.data = (
        classify.hidden.weight.data[:, :, None],
        classify.hidden.bias.data,
    )
    reference[3].weight.data, reference[3].bias.data = classify.out.weight.data[:, :, None], classify.out.bias.data
    expected = reference(level.flatten(1, 2).transpose(1, 2)).transpose(1, 2).unflatten(1, (3, 3))
    torch.testing.assert_close(classify(level), expected)


def test_without_paths_levels_are_unchanged():
    backbone = CifarResNet(3, depth=8)
    sizes = backbone_map_sizes(backbone, (3, 32, 32))
    pyramid = Pyramid(backbone, sizes, paths="none", count=4, maps="merged", kept=1)
    maps = backbone.eval().feature_maps(torch.randn(1, 3, 32, 32))
    first, last = pyramid(maps)
    assert first == []
    assert pyramid.sizes == [(8, 8)]
    assert torch.equal(last[0], maps[-1].permute(0, 2, 3, 1))
    assert not list(pyramid.parameters())


def test_the_width_is_that_of_the_coarsest_map_up_to_the_papers():
    for channels, width in (((4, 8), 8), ((1024, 2048), 1536)):
        pyramid = Pyramid(Maps((8, 16), channels), [(4, 4), (2, 2)], paths="top_down", count=4, maps="merged")
        assert pyramid.widths == (width, width)
        assert pyramid.bottom_up is None


def test_a_backbone_built_for_another_size_is_named_with_its_key():
    backbone = TimmBackbone(3, name="swin_tiny_patch4_window7_224", img_size=64)
    with pytest.raises(ConfigError, match=r"96 x 96 pixels.*backbone\.img_size=96"):
        backbone_map_sizes(backbone, (3, 96, 96))


def test_a_backbone_without_maps_is_refused_with_three_that_have_them():
    backbone = TimmBackbone(3, name="test_resnet")
    backbone._map_indices, backbone.map_channels, backbone.map_strides = [], (), ()  # as of a network without any
    with pytest.raises(ConfigError, match=r"test_resnet.*no multi-scale.*resnet50, convnext_tiny or swin_tiny"):
        backbone_map_sizes(backbone, (3, 64, 64))


def test_levels_are_normalised_by_location_by_channel_or_not_at_all():
    backbone = Maps((4, 8), (6, 10))
    maps = [torch.rand(3, 6, 8, 8) * 50 + 20, torch.rand(3, 10, 4, 4) * 50 + 20]
    maps[0][0, :, :2, :2] *= 4  # locations of long features, which merge to the first of the finer level
    plain = Levels(backbone, 2)(maps)
    for level, norm in zip(Levels(backbone, 2, norm="layer")(maps), plain, strict=True):
        torch.testing.assert_close(level, F.layer_norm(norm, norm.shape[-1:]))
    for level, norm in zip(Levels(backbone, 2, norm="batch")(maps), plain, strict=True):
        expected = (norm - norm.mean((0, 1, 2))) / (norm.var((0, 1, 2), correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-4)
    longest = [
        int(Levels(backbone, 2, norm=norm)(maps)[0].detach().norm(dim=-1).argmax()) for norm in ("none", "batch")
    ]
    assert longest == [0, 0]
    of_layer = Levels(backbone, 2, norm="layer")(maps)[0].detach().norm(dim=-1)
    torch.testing.assert_close(of_layer, torch.full_like(of_layer, 24**0.5), rtol=1e-4, atol=1e-4)

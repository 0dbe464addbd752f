"""The combiner against its formula written out."""

from __future__ import annotations

import pytest
import torch

from ltr.methods.herbs.combiner import GraphCombiner


def by_hand(combiner: GraphCombiner, locations: torch.Tensor) -> torch.Tensor:
    """The formula image by image and joint by joint, in evaluation mode."""
    actual = []
    for image in locations:
        joints = combiner.to_joints.weight @ image + combiner.to_joints.bias[:, None]
        q = [combiner.query(joint).mean() for joint in joints]
        k = [combiner.key(joint).mean() for joint in joints]
        hidden = [combiner.convolution(joint) for joint in joints]
        out = torch.zeros_like(image[0]) + combiner.to_one.bias
        for j in range(len(joints)):
            node = sum(
                (combiner.adjacency[i, j] + combiner.alpha * torch.tanh(q[i] - k[j])) * hidden[i]
                for i in range(len(joints))
            )
            out = out + combiner.to_one.weight[0, j] * combiner.norm(node[None])[0]
        actual.append(out)
    return torch.stack(actual)


def test_the_combiner_follows_its_formula():
    torch.manual_seed(0)
    combiner = GraphCombiner(8, 10, joints=3).eval()
    with torch.no_grad():
        combiner.alpha.fill_(0.7)
        combiner.norm.running_mean.normal_()
        locations = torch.randn(2, 10, 8)
        torch.testing.assert_close(combiner(locations), by_hand(combiner, locations))


@pytest.mark.parametrize(("selected", "joints"), [(480, 7), (2720, 42), (7, 2), (1, 2)])
def test_there_is_a_joint_for_64_locations_and_at_least_two(selected, joints):
    assert GraphCombiner(4, selected).to_joints.out_features == joints


def test_the_initial_adjacency_is_a_small_constant_without_attention():
    combiner = GraphCombiner(4, 480)
    torch.testing.assert_close(combiner.adjacency.detach(), torch.eye(7) / 100 + 0.01)
    assert combiner.alpha.item() == 0


def test_training_with_one_image_has_finite_gradients():
    combiner = GraphCombiner(4, 5)
    combiner(torch.randn(1, 5, 4)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in combiner.parameters())

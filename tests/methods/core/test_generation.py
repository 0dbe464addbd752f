"""Images made by input gradients: where they go, how far, and that the networks stay as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltr.methods.core import generation


def grey(number: int = 3, size: int = 4) -> torch.Tensor:
    """Images in the middle of [0, 1], [number, 3, size, size]."""
    return torch.full((number, 3, size, size), 0.5)


class Linear(nn.Module):
    """Two classes whose logits are linear in the pixels."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3 * size * size, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight.T


def small_network() -> nn.Module:
    """A convolution, BatchNorm with statistics of its own, and dropout."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip
    network(torch.rand(16, 3, 4, 4))
    return network


def test_steps_for_a_linear_network_follow_the_difference_of_its_weights():
    network, start = Linear(), grey()
    target = torch.tensor([0, 1, 1])
    moved = generation.translate(generation.towards(network, target), start, steps=5, step_size=0.1)
    # the best perturbation of length 0.5: along w_target - w_other
    direction = network.weight[target] - network.weight[1 - target]
    best = 0.5 * direction / direction.norm(dim=1, keepdim=True)
    assert torch.allclose((moved - start).flatten(1), best, atol=1e-6)


def test_the_second_term_moves_away_from_the_seeds_class():
    g, f, start = Linear(), Linear(), grey(1)
    with torch.no_grad():
        g.weight.zero_()  # g has no opinion: the second term is alone
    target, source = torch.tensor([0]), torch.tensor([1])
    objective = generation.towards_and_away(g, f, target, source, 0.5)
    moved = generation.translate(objective, start, steps=1, step_size=0.1)
    away = -f.weight[1] / f.weight[1].norm()
    assert torch.allclose((moved - start).flatten(), 0.1 * away, atol=1e-6)


def test_without_a_second_term_the_trained_network_is_not_called():
    called = []
    g, start, target = Linear(), grey(1), torch.tensor([0])
    objective = generation.towards_and_away(g, called.append, target, torch.tensor([1]), 0.0)
    moved = generation.translate(objective, start, steps=1, step_size=0.1)
    assert called == []
    assert moved.equal(generation.translate(generation.towards(g, target), start, steps=1, step_size=0.1))


def test_pixels_are_clipped_to_the_unit_interval():
    start = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    moved = generation.translate(generation.towards(Linear(), torch.tensor([0, 1, 0, 1])), start, steps=5, step_size=2)
    assert moved.min() == 0
    assert moved.max() == 1


def test_the_distance_is_limited_for_each_image():
    start = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    objective = generation.towards(Linear(), torch.tensor([0, 1, 0, 1]))
    moved = generation.translate(objective, start, steps=20, step_size=0.1, radius=0.5)
    assert generation.norms(moved - start).max() <= 0.5 + 1e-6
    assert generation.norms(moved - start).min() > 0.3


def test_without_steps_or_gradient_the_images_are_unchanged():
    start = grey()
    assert torch.equal(generation.translate(lambda x: x.sum((1, 2, 3)), start, steps=0, step_size=0.1), start)
    assert torch.equal(generation.translate(lambda x: (x * 0).sum((1, 2, 3)), start, steps=3, step_size=0.1), start)


def test_the_input_is_unchanged_and_the_memory_format_is_preserved():
    start = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    before = start.clone()
    moved = generation.translate(generation.towards(Linear(), torch.zeros(4).long()), start, steps=2, step_size=0.1)
    assert torch.equal(start, before)
    assert not start.requires_grad
    assert not moved.requires_grad
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_the_perturbation_of_an_image_does_not_depend_on_its_batch():
    network = small_network()
    start = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    target = torch.arange(5)
    with generation.frozen(network):
        together = generation.translate(generation.towards(network, target), start, steps=3, step_size=0.1)
        alone = generation.translate(generation.towards(network, target[3:4]), start[3:4], steps=3, step_size=0.1)
    assert torch.allclose(together[3:4], alone, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_generation_restores_the_state_of_the_network(training):
    network = small_network().train(training)
    network[0].eval()  # modes may differ from part to part
    network[6].bias.requires_grad_(False)
    modes = [part.training for part in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with generation.frozen(network):
        assert not any(part.training for part in network.modules())
        generation.translate(generation.towards(network, torch.tensor([0, 1])), grey(2), steps=3, step_size=0.1)
    assert [part.training for part in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == [True] * 5 + [False]
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_generation_restores_the_state_of_the_network_after_an_error():
    network = small_network()
    with pytest.raises(RuntimeError, match="broken"), generation.frozen(network):
        raise RuntimeError("broken")
    assert network.training
    assert all(p.requires_grad for p in network.parameters())


def test_accumulated_gradients_are_unchanged():
    network = small_network()
    network(torch.rand(4, 3, 4, 4)).sum().backward()
    before = [p.grad.clone() for p in network.parameters()]
    with generation.frozen(network):
        generation.translate(generation.towards(network, torch.tensor([0, 1])), grey(2), steps=3, step_size=0.1)
    generation.translate(generation.towards(network, torch.tensor([0, 1])), grey(2), steps=3, step_size=0.1)
    assert all(torch.equal(p.grad, b) for p, b in zip(network.parameters(), before))


def test_gradients_are_of_single_precision_under_autocast():
    network, target, seen = small_network().eval(), torch.tensor([0, 1]), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    plain = generation.translate(generation.towards(network, target), grey(2), steps=2, step_size=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = generation.translate(generation.towards(network, target), grey(2), steps=2, step_size=0.1)
    assert torch.equal(plain, under)
    assert set(seen) == {torch.float32}


def test_generation_works_under_no_grad():
    with torch.no_grad():
        moved = generation.translate(generation.towards(Linear(), torch.tensor([0])), grey(1), steps=1, step_size=0.1)
    assert not torch.equal(moved, grey(1))


def test_noise_is_limited_for_each_image_or_for_the_whole_batch():
    noise = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    each = generation.limit_noise(noise, 0.5, whole_batch=False)
    official = generation.limit_noise(noise, 0.5, whole_batch=True)
    assert torch.allclose(generation.norms(each), torch.full((64,), 0.5))
    assert torch.allclose(official.transpose(0, 1).flatten(1).norm(dim=1), torch.full((3,), 0.5))
    # the quirk: the more images, the less noise has each; 0.5 * sqrt(3 / 64) here
    assert generation.norms(official).max() < 0.13


def test_short_noise_stays_as_it_is():
    noise = torch.full((2, 3, 4, 4), 0.01)
    assert torch.equal(generation.limit_noise(noise, 0.5, whole_batch=False), noise)


def test_a_random_direction_keeps_its_length_at_the_edge():
    start = (torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()  # all at the edge
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    length = torch.linspace(0.1, 1.0, 8)
    moved = generation.move_by(start, direction, length)
    assert torch.allclose(generation.norms(moved - start), length, rtol=1e-3)
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_black_and_white_pixels_move_inwards_as_in_the_papers_torch_version():
    start = torch.zeros(1, 3, 2, 2)
    start[..., 1] = 1.0
    # brighter where black and darker where white: a clamp in front, as of torch 2.15, would give no gradient at all
    moved = generation.translate(lambda x: (x - 0.5).square().sum((1, 2, 3)), start, steps=1, step_size=0.2)
    torch.testing.assert_close((moved - start).norm(), torch.tensor(0.2))
    assert (moved[..., 0] > 0).all()
    assert (moved[..., 1] < 1).all()

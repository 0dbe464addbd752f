"""Distillation image by image: class probabilities (Hinton et al., 2015), hints (FitNets), attention transfer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ltr.losses.scale import near_one


def kl_to_teacher(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 times KL(softmax(teacher / T) || softmax(student / T)) of each row, summed over classes.

    The factor T^2 keeps the gradient's size from shrinking with the temperature. The teacher is not detached here:
    whoever wants no gradient into it detaches it.

    Args:
        student_logits, teacher_logits: [..., C], any float type; computed in float32 or better.
        temperature: T > 0.

    Returns:
        [...], >= 0 but for rounding.
    """
    student = functional.log_softmax(_wide(student_logits) / temperature, dim=-1)
    teacher = functional.log_softmax(_wide(teacher_logits) / temperature, dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=-1)


class HintRegressor(nn.Module):
    """The learned map from a student's feature map to the teacher's (FitNets: Romero et al., ICLR 2015): a 1x1
    convolution without bias, as in RKD's comparisons; the paper's own has the size that makes the maps equal.

    Args:
        student_channels, teacher_channels: of the maps.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight)

    def forward(self, student_map: Tensor) -> Tensor:
        """[B, C_s, H, W] -> [B, C_t, H, W]."""
        return self.convolution(student_map)


def hint_loss(regressed: Tensor, teacher_map: Tensor) -> Tensor:
    """FitNets (equation 3) as its later users write it: the mean of the squared differences, a scalar.

    The paper has half their sum. Maps of different height and width are averaged down to the smaller one.

    Args:
        regressed: what a `HintRegressor` gives, [B, C, H, W].
        teacher_map: [B, C, H', W']; a constant.
    """
    ours, theirs = same_size(regressed, teacher_map.detach())
    return functional.mse_loss(_wide(ours), _wide(theirs))


def attention(feature_map: Tensor) -> Tensor:
    """Where a map is active: the mean over channels of its squares, at length 1; [B, C, H, W] -> [B, H * W]."""
    wide = _wide(feature_map)
    return functional.normalize(near_one(wide, wide.dtype, grow=False).square().mean(1).flatten(1), dim=1)


def attention_transfer(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Attention transfer (Zagoruyko and Komodakis, ICLR 2017): the mean of squared differences of attentions, a scalar.

    This is the official code's term for one pair of maps; the paper (equation 2) has half the difference's norm, not
    squared. Channels may differ, and maps of different height and width are averaged down to the smaller one.

    Args:
        student_map: [B, C_s, H, W].
        teacher_map: [B, C_t, H', W']; a constant.
    """
    ours, theirs = same_size(student_map, teacher_map.detach())
    return functional.mse_loss(attention(ours), attention(theirs))


def same_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [B, C, H, W] averaged down to the smaller height and the smaller width of them."""
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))

    def fitted(one: Tensor) -> Tensor:
        return one if tuple(one.shape[2:]) == size else functional.adaptive_avg_pool2d(one, size)

    return fitted(first), fitted(second)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.element_size() < 4 else values

"""Per-image distillation losses: class probabilities (Hinton et al., 2015), hints (FitNets), attention transfer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ltr.losses.functional import at_least_float32
from ltr.losses.scale import rescale_near_one


def kl_to_teacher(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) of each row.

    The factor T^2 keeps the size of the gradient independent of the temperature. Gradients also flow into the teacher's
    logits unless the caller detaches them.

    Args:
        student_logits, teacher_logits: [..., C], any float type; computed in float32 or better.
        temperature: T > 0.

    Returns:
        [...], >= 0 up to rounding.
    """
    student = functional.log_softmax(at_least_float32(student_logits) / temperature, dim=-1)
    teacher = functional.log_softmax(at_least_float32(teacher_logits) / temperature, dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=-1)


class HintRegressor(nn.Module):
    """Learned projection from a student's feature map to the teacher's channels (FitNets: Romero et al., ICLR 2015).

    It is a 1x1 convolution without bias, as in the RKD paper's comparisons; FitNets chooses the kernel size so that
    both maps have the same size.

    Args:
        student_channels, teacher_channels: channels of the two feature maps.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight)

    def forward(self, student_map: Tensor) -> Tensor:
        """Project [B, C_s, H, W] to [B, C_t, H, W]."""
        return self.convolution(student_map)


def hint_loss(regressed: Tensor, teacher_map: Tensor) -> Tensor:
    """Return the hint loss of FitNets (equation 3): the mean of the squared differences, a scalar.

    The paper takes half their sum; later papers take the mean. Maps of different height or width are average-pooled to
    the smaller size.

    Args:
        regressed: output of a `HintRegressor`, [B, C, H, W].
        teacher_map: [B, C, H', W'], detached here.
    """
    student, teacher = match_sizes(regressed, teacher_map.detach())
    return functional.mse_loss(at_least_float32(student), at_least_float32(teacher))


def attention_map(feature_map: Tensor) -> Tensor:
    """Return the mean over channels of the squared activations, L2-normalised: [B, C, H, W] -> [B, H * W]."""
    wide = at_least_float32(feature_map)
    return functional.normalize(rescale_near_one(wide, wide.dtype, grow=False).square().mean(1).flatten(1), dim=1)


def attention_transfer(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Return the attention transfer loss of two feature maps, a scalar (Zagoruyko and Komodakis, ICLR 2017).

    It is the mean squared difference of the attention maps, as in the official code; the paper (equation 2) takes half
    the norm of the difference. The maps may differ in channels; maps of different height or width are average-pooled to
    the smaller size.

    Args:
        student_map: [B, C_s, H, W].
        teacher_map: [B, C_t, H', W'], detached here.
    """
    student, teacher = match_sizes(student_map, teacher_map.detach())
    return functional.mse_loss(attention_map(student), attention_map(teacher))


def match_sizes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool two feature maps [B, C, H, W] to the smaller height and the smaller width."""
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))

    def pool(feature_map: Tensor) -> Tensor:
        return feature_map if feature_map.shape[2:] == size else functional.adaptive_avg_pool2d(feature_map, size)

    return pool(first), pool(second)

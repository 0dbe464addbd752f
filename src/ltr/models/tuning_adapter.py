"""AdaptFormer: a bottleneck in parallel to the frozen MLP of every transformer block.

peft has no such adapter for models outside the package transformers, and timm has none.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ltr.configuration.ranges import Positive, PositiveInt
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.models.backbones import Backbone
from ltr.models.tuning import ImageShape, Tuning, transformer_blocks


class AdaptedMLP(nn.Module):
    """Frozen MLP of a block with a parallel bottleneck: MLP(z) + scale * Up(ReLU(Down(z))).

    z is the block's input after its second normalisation, as in equation 4 of Chen et al. (NeurIPS 2022); the official
    code uses the input before it. A layer scale of the block multiplies the sum. Down is initialised Kaiming-uniform,
    Up with zeros.

    Args:
        mlp: MLP of width D, on tensors [..., D].
        width: D.
        bottleneck: width of the bottleneck.
        scale: factor of the bottleneck's output.
    """

    def __init__(self, mlp: nn.Module, width: int, bottleneck: int, scale: float) -> None:
        super().__init__()
        self.mlp = mlp
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(tokens) + self.scale * self.up(functional.relu(self.down(tokens)))


@named("tune/adapter")
class TuneAdapter(Tuning):
    """AdaptFormer (Chen et al., NeurIPS 2022): 2 D b + b + D parameters in each block of width D.

    Args:
        bottleneck: width b; 64 in the paper.
        scale: factor of the adapter's output; 0.1 in the paper.
    """

    name = "adapter"

    def __init__(self, *, bottleneck: PositiveInt = 64, scale: Positive = 0.1) -> None:
        self.bottleneck = bottleneck
        self.scale = scale

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        blocks = transformer_blocks(backbone, self.name)
        backbone.requires_grad_(False)
        for path, block in blocks:
            linear = next((part for part in block.mlp.modules() if isinstance(part, nn.Linear)), None)  # type: ignore[union-attr]
            if linear is None:
                raise ConfigError(f"tune=adapter: the MLP of {path} has no linear layer. Use tune=lora, norm or bias")
            adapted = AdaptedMLP(block.mlp, linear.in_features, self.bottleneck, self.scale)  # type: ignore[arg-type]
            adapted.mlp.requires_grad_(False)
            backbone.set_submodule(f"{path}.mlp", adapted)

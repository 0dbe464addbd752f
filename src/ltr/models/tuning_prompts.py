"""Visual prompt tuning: learned tokens at the input of every block of a vision transformer.

peft has prompts only for models of the package transformers, and timm has none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.ranges import PositiveInt
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.models.backbones import Backbone, dry_run
from ltr.models.tuning import ImageShape, Tuning, transformer_blocks


@named("tune/vpt")
class TunePrompts(Tuning):
    """VPT-deep (Jia et al., ECCV 2022): each block gets ``tokens`` separate prompts after the class token.

    The prompts of a block are removed after it, which equals the paper's replacement by those of the next block. They
    are initialised uniformly in +-sqrt(6 / (3 p p + D)), for patches of p x p pixels and width D, as in the official
    code; the network therefore differs from the frozen one before the first step.

    Args:
        tokens: number of prompts per block.
    """

    name = "vpt"

    def __init__(self, *, tokens: PositiveInt = 10) -> None:
        self.tokens = tokens

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        blocks = transformer_blocks(backbone, self.name)
        net: Any = getattr(backbone, "net", backbone)
        prefix, width = getattr(net, "num_prefix_tokens", None), getattr(net, "embed_dim", None)
        if prefix is None or not isinstance(width, int) or getattr(net, "rope", None) is not None:
            raise ConfigError(_refusal(backbone))
        backbone.requires_grad_(False)
        patch = math.prod(getattr(net.patch_embed, "patch_size", (16, 16)))
        bound = math.sqrt(6 / (3 * patch + width))
        for _, block in blocks:
            block.register_parameter(
                "prompts", nn.Parameter(torch.empty(1, self.tokens, width).uniform_(-bound, bound))
            )
            block.num_prefix_tokens = prefix
            block.register_forward_pre_hook(_insert_prompts)
            block.register_forward_hook(_remove_prompts)
        try:
            dry_run(backbone, backbone, image_shape)
        except Exception as error:  # window attention, or attention with a position table
            raise ConfigError(_refusal(backbone)) from error


def _insert_prompts(block: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    tokens, *rest = inputs
    prompts = block.prompts.to(tokens.dtype).expand(len(tokens), -1, -1)
    prefix = block.num_prefix_tokens
    return torch.cat([tokens[:, :prefix], prompts, tokens[:, prefix:]], 1), *rest


def _remove_prompts(block: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    prefix = block.num_prefix_tokens
    return torch.cat([output[:, :prefix], output[:, prefix + block.prompts.shape[1] :]], 1)


def _refusal(backbone: Backbone) -> str:
    return (
        f"tune=vpt: {getattr(backbone, 'name', type(backbone).__name__)} takes no further tokens; timm's plain vision "
        "transformers with position embeddings do, such as vit_base_patch16_224. Use tune=adapter or lora"
    )

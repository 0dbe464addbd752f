"""A model's outputs for evaluation, and the operations on class scores that protocols share.

The *link* turns logits into probabilities; the training loss determines it. Under ``softmax`` the classes exclude each
other and the probabilities of an image sum to 1. Under ``sigmoid`` every class is a separate binary decision,
p_c = 1 / (1 + exp(-z_c)). These probabilities are not divided by their sum, because the model was not trained with that
likelihood.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ltr.errors import ConfigError, DataError, nearest

Link = Literal["softmax", "sigmoid"]
LINKS: tuple[str, ...] = get_args(Link)

_BLOCK = 64  # columns that share one maximum in `top_classes`; near the square root of ten thousand classes
_LOW_WORD = 2**32 - 1


class Scores(NamedTuple):
    """Outputs of a model for a batch.

    Each protocol names the parts that it needs; all other parts may be None, as in ``Scores(features=embeddings)`` for
    retrieval.

    Attributes:
        logits: float32 [B, C], scaled as for the loss.
        features: [B, D], or None.
        knownness: [B], higher means more likely a known class, or None.
    """

    logits: Tensor = None  # type: ignore[assignment]  # of networks that only embed
    features: Tensor | None = None
    knownness: Tensor | None = None


def check_link(link: str) -> None:
    """Raise ConfigError for an unknown link."""
    if link not in LINKS:
        raise ConfigError(f"link={link!r} is unknown; a loss declares one of {', '.join(LINKS)}{nearest(link, LINKS)}")


def class_labels(labels: Any) -> Tensor:
    """Convert labels of any integer type (a tensor, an array or a list) to int64 [B].

    Raises:
        DataError: the labels are not of an integer type, or not one-dimensional.
    """
    numbers = torch.as_tensor(labels)
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool or numbers.ndim != 1:
        raise DataError(
            f"labels of type {numbers.dtype} and shape {list(numbers.shape)}; allowed are class numbers of an integer "
            "type, one for each image. Convert them, as in labels.long() or labels.argmax(1)"
        )
    return numbers.long()


def require_part(part: Tensor | None, name: str) -> Tensor:
    """Return a part of `Scores` that a protocol needs.

    Raises:
        ValueError: the part is None.
    """
    if part is None:
        raise ValueError(f"these scores hold no {name}: pass Scores({name}=...)")
    return part


def top_classes(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` highest scores of each image and their classes, best first; ties in order of class id.

    ``torch.topk`` orders ties differently on different devices; here the order is fixed, so that results do not depend
    on the device. With many classes, the maxima of blocks of columns are ranked first: in the order (score descending,
    class ascending), the k best classes are in the k best blocks.

    Args:
        logits: float32 [B, C].
        k: in [1, C].

    Returns:
        Scores float32 [B, k] and classes int64 [B, k].
    """
    classes = logits.shape[1]
    blocks = classes // _BLOCK
    if blocks <= 2 * k:  # the k best blocks would be most of the row
        candidates = torch.arange(classes, device=logits.device).expand_as(logits)
        return _ranked(logits, candidates, k)
    in_blocks = blocks * _BLOCK
    maxima = logits[:, :in_blocks].unflatten(1, (blocks, _BLOCK)).amax(dim=2)
    _, best = _ranked(maxima, torch.arange(blocks, device=logits.device).expand_as(maxima), k)
    columns = torch.arange(_BLOCK, device=logits.device)
    outside = torch.arange(in_blocks, classes, device=logits.device).expand(len(logits), -1)
    candidates = torch.cat([(best[:, :, None] * _BLOCK + columns).flatten(1), outside], dim=1)
    return _ranked(logits.gather(1, candidates), candidates, k)


def _ranked(values: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the first k entries of each row in the order (value descending, id ascending), as one packed integer."""
    bits = (values + 0.0).view(torch.int32)  # adding zero turns -0.0 into 0.0
    keys = ((_ascending(bits).long() << 32) | (_LOW_WORD - ids)).topk(k, dim=1).values
    best = _ascending((keys >> 32).int()).view(torch.float32)
    return best, _LOW_WORD - (keys & _LOW_WORD)


def _ascending(bits: Tensor) -> Tensor:
    """Map bit patterns of float32 to int32 in the order of the floats: flip the lower 31 bits of negative ones.

    Applying the function twice gives the input.
    """
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def log_normaliser(logits: Tensor, link: str) -> Tensor:
    """Return the log-normaliser of the likelihood, float32 [B]; the NLL is the log-normaliser minus the label's logit.

    Softmax: log sum_c exp(z_c). Sigmoid: sum_c log(1 + exp(z_c)), since the likelihood of "this class and no other"
    is the product of all C answers. Either NLL is the unweighted loss, in nats; NLLs of different links are not
    comparable.
    """
    if link == "softmax":
        return logits.logsumexp(dim=1)
    return functional.softplus(logits).sum(dim=1)


def probabilities(values: Tensor, normaliser: Tensor, link: str) -> Tensor:
    """Return the probabilities [B, K] of classes with logits ``values`` [B, K], given the `log_normaliser` [B]."""
    if link == "softmax":
        return (values - normaliser[:, None]).exp()
    return values.sigmoid()

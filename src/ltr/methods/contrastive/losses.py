"""The balanced contrastive loss of BCL, and the expected contrastive loss of ProCo."""

from __future__ import annotations

import torch
from torch import Tensor

from ltr.losses.functional import at_least_float32, integer_labels
from ltr.methods.contrastive.options import Form
from ltr.methods.contrastive.von_mises_fisher import log_expected_exponential, mean_length


def balanced_contrastive(
    projections: Tensor,
    labels: Tensor,
    centres: Tensor | None,
    temperature: float,
    class_averaging: bool = True,
) -> Tensor:
    """Return the balanced contrastive loss of each projection, [N] (Zhu et al., CVPR 2022).

    L_i = -mean over p in P_i of log(exp(z_i z_p / t) / sum over j of mean over k in B_j of exp(z_i z_k / t)), where B_j
    are the other projections of class j and its centre, and P_i is B_j of the label of i. A projection without any
    positive has the loss 0.

    As in the official code, the mean of the label's own class is over the others and the centre, without z_i.

    Args:
        projections: z, of unit length, [N, D], all views of a batch.
        labels: [N].
        centres: centre of each class, of unit length, [C, D]; None: without class complement.
        temperature: t.
        class_averaging: False sums over B_j instead of the mean: without centres, this is the supervised contrastive
            loss (Khosla et al., NeurIPS 2020).
    """
    with torch.autocast(projections.device.type, enabled=False):
        projections, labels = at_least_float32(projections), integer_labels(labels)
        keys, key_labels = projections, labels
        if centres is not None:
            keys = torch.cat([projections, centres.to(projections.dtype)])
            key_labels = torch.cat([labels, torch.arange(len(centres), device=labels.device)])
        similarities = projections @ keys.T / temperature
        is_same_class = labels.unsqueeze(1) == key_labels
        is_itself = torch.eye(len(projections), len(keys), dtype=torch.bool, device=labels.device)
        is_positive = is_same_class & ~is_itself
        terms = similarities
        if class_averaging:
            sizes = is_same_class.sum(0) + (centres is not None)  # of the class of each key, its centre included
            terms = similarities - (sizes - is_positive.long()).to(similarities.dtype).log()
        log_sums = terms.masked_fill(is_itself, -torch.inf).logsumexp(1)
        positives = is_positive.sum(1)
        means = (similarities * is_positive).sum(1) / positives.clamp(min=1)
        return torch.where(positives > 0, log_sums - means, 0.0)


def expected_contrastive(
    projections: Tensor,
    labels: Tensor,
    directions: Tensor,
    kappa: Tensor,
    log_prior: Tensor,
    temperature: float,
    form: Form = "in",
) -> Tensor:
    """Return the contrastive loss of each projection with infinitely many others, float64 [N] (Du et al., TPAMI 2024).

    The projections V of class j have a von Mises-Fisher distribution with mean direction m_j and concentration k_j, and
    class j the share p_j. With e_j = log E[exp(z V / t) | j],

        in:  L = log sum over j of p_j exp(e_j) - log p_y - e_y,
        out: L = log sum over j of p_j exp(e_j) - log p_y - z E[V | y] / t.

    ``in`` is the cross-entropy of the logits e_j + log p_j; ``out`` is at least as large. The formula holds on the
    sphere, and its gradient is that along it: |z| = 1 is used, and no part in the direction of z is computed.

    Args:
        projections: z, of unit length, [N, D].
        labels: y, [N].
        directions: m_j, of unit length, [C, D].
        kappa: k_j, [C].
        log_prior: log p_j, [C].
        temperature: t.
        form: see above.
    """
    with torch.autocast(projections.device.type, enabled=False):
        projections, labels = at_least_float32(projections), integer_labels(labels)
        cosines = (projections @ directions.to(projections.dtype).T).double()
        width, scale = projections.shape[1], 1 / temperature
        log_prior = log_prior.double()
        logits = log_expected_exponential(cosines, kappa, scale, width) + log_prior
        if form == "in":
            of_label = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        else:
            expected = scale * cosines * mean_length(kappa, width) + log_prior
            of_label = expected.gather(1, labels.unsqueeze(1)).squeeze(1)
        return logits.logsumexp(1) - of_label

"""The network of background splitting: one backbone, a head with a constant background logit, an auxiliary head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss
from ltr.losses.gathering import all_reduce_sum, world_size
from ltr.methods.background_splitting.head import BackgroundHead, prior_bias
from ltr.methods.background_splitting.options import AuxInit, BiasInit
from ltr.methods.background_splitting.partition import warn_of_one_class
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import NeedsParents, NetworkSpec
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed


@named("network/background_splitting")
class BackgroundClassifier(ImageClassifier):
    """Network of background splitting, with its main and its auxiliary head.

    Args:
        spec: see `NetworkSpec`; its parents are ``pseudo_labels`` and ``partition``, if the method has these stages.
        b0: the background's constant logit; None: a learned row, with which the head is an ordinary one.
        bias_init: ``head`` keeps the initial bias of the head's config; ``prior`` starts at the classes' shares
            (`prior_bias`) and exempts the bias from weight decay.
        background_weight: the background's class weight, instead of that of the loss.
        aux_weight: weight of the auxiliary term; 0 for no term and no auxiliary head.
        aux_init: initial weights of the auxiliary head: ``teacher`` copies the teacher's last layer, ``fresh`` draws
            random ones, ``auto`` copies if the widths are equal.
        aux_classes: number of pseudo-classes, for a network without parents.

    Raises:
        ConfigError: a head without a bias or a loss without class weights to set, or a teacher's last layer of another
            width.
    """

    distributed_numerics_version = 2  # 1: each process divided by the number of its own labelled images

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        b0: float | None,
        bias_init: BiasInit,
        background_weight: float | None,
        aux_weight: float,
        aux_init: AuxInit,
        aux_classes: int | None = None,
    ) -> None:
        parent_arrays = {
            name: spec.parents[name].arrays for name in ("pseudo_labels", "partition") if name in spec.parents
        }
        report = parent_arrays.get("partition", {})
        constant = b0 is not None
        super().__init__(
            spec,
            logit_counts=report["labelled_counts"].tolist() if "labelled_counts" in report else None,
            head_rows=spec.dataset_info.num_classes - 1 if constant else None,
            background=0 if constant else None,
        )
        if b0 is not None:
            self.head = BackgroundHead(self.head, b0)
        self.prior_biased = bias_init == "prior"
        if self.prior_biased:
            self.head.init_bias(prior_bias(spec.dataset_info.class_counts, b0, self.link))
        if background_weight is not None:
            set_background_weight(self.loss, background_weight)
        self.aux_weight = aux_weight
        self.aux_head: nn.Linear | None = None
        if aux_weight > 0:
            pseudo = parent_arrays.get("pseudo_labels", {})
            aux_classes = len(pseudo["classes"]) if pseudo else aux_classes
            if aux_classes is None:
                raise NeedsParents(
                    f"method.aux.weight={aux_weight}: the number of pseudo-classes, and so the auxiliary head, follows "
                    "from the stage 'pseudo_labels', which is not computed here. Set method.aux.weight=0 for a network "
                    "without that head"
                )
            with seeded_construction(derive_seed(spec.seed, spec.role, "aux")):
                self.aux_head = nn.Linear(self.num_features, aux_classes)
            if pseudo:
                start_from_teacher(self.aux_head, pseudo, aux_init)
        pseudo, rows = parent_arrays.get("pseudo_labels", {}), report.get("taken_from", slice(None))
        per_image: dict[str, Any] = {name: pseudo[name][rows] for name in ("labels", "shares") if name in pseudo}
        per_image["labelled"] = report.get("labelled")
        for name in ("labels", "shares", "labelled"):  # of the training data: not in checkpoints
            values = per_image.get(name)
            self.register_buffer(f"_{name}", None if values is None else torch.tensor(values), persistent=False)
        # DistributedDataParallel would broadcast all buffers at every step
        self._ddp_params_and_buffers_to_ignore = ["_labels", "_shares", "_labelled"]
        self._report = {name: report[name] for name in report if name not in ("taken_from", "labelled", "summary")}
        self.options = {
            "b0": b0,
            "bias_init": bias_init,
            "background_weight": background_weight,
            "aux_weight": aux_weight,
            "aux_init": aux_init,
            "aux_classes": aux_classes if aux_weight > 0 else None,
        }

    def on_fit_start(self) -> None:
        if "counts" in self._report:
            warn_of_one_class(self._report)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        features = self.batch_features(batch)
        logits = self.head(features)
        loss = self.main_loss(logits, batch)
        outcome: dict[str, Any] = {"correct": (logits.detach().argmax(1) == batch.labels).sum(), "logs": {}}
        if self.aux_head is not None:
            aux_loss, aux_correct = self.aux_loss(self.aux_head(features), batch.indices)
            outcome["logs"] = {"main_loss": loss.detach(), "aux_loss": aux_loss.detach(), "aux_accuracy": aux_correct}
            loss = loss + self.aux_weight * aux_loss
        outcome["loss"] = loss
        return self.with_extras(outcome, batch, features, logits)

    def main_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of the batch's images with labels; 0 if there are none.

        In training the denominator is averaged over all processes, as `ltr.losses.functional.reduce` does.
        """
        if self._labelled is None:
            return self.loss(logits, batch.labels, batch.mix)
        labelled = self._labelled[batch.indices].float()  # type: ignore[index]
        weights = self.loss.label_weights(batch.labels)
        counted = labelled if weights is None or self.loss.reduction == "batch" else labelled * weights
        losses = self.loss.per_image(logits, batch.labels) * labelled
        total = counted.sum()
        if self.training:
            all_reduce_sum(total)
            total = total / world_size()
        return losses.sum() / total.clamp_min(torch.finfo(losses.dtype).tiny)

    def aux_loss(self, logits: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the auxiliary term of a batch and the accuracy of the auxiliary head on its pseudo-labels.

        Args:
            logits: [B, G] of the auxiliary head.
            indices: int64 [B], positions of the images in the source.
        """
        labels = self._labels[indices].long()  # type: ignore[index]
        if self._shares is None:
            first, losses = labels, functional.cross_entropy(logits, labels)
        else:
            first, losses = labels[:, 0], soft_cross_entropy(logits, labels, self._shares[indices])  # type: ignore[index]
        return losses.mean(), (logits.detach().argmax(1) == first).float().mean()

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {} if self.aux_head is None else {"aux_head": self.aux_head}

    def no_weight_decay(self) -> list[str]:
        if not self.prior_biased and self.loss.prior_bias is None:
            return []
        return ["head.rows.bias" if isinstance(self.head, BackgroundHead) else "head.bias"]

    def as_classifier(self) -> ImageClassifier:
        """Return the network without its auxiliary head, with a row of zeros and bias b0 for the background.

        This needs a linear head with bias; with any other head, the method returns the network itself.
        """
        constant = isinstance(self.head, BackgroundHead)
        if constant and (self.head.rows.head_kind != "linear" or self.head.bias is None):
            return self
        plain = ImageClassifier(self.spec.replaced(settings=self.settings.replaced(extras=())))
        plain.take_backbone(self)
        rows = self.head.rows if constant else self.head
        state = dict(rows.state_dict())
        if constant:
            state["weight"] = torch.cat([torch.zeros_like(state["weight"][:1]), state["weight"]])
            state["bias"] = torch.cat([torch.full_like(state["bias"][:1], self.head.b0), state["bias"]])
        plain.head.load_state_dict(state)
        return plain.eval()

    def artifacts(self) -> dict[str, Any]:
        """Return the statistics of the partition, see `ltr.methods.background_splitting.partition.statistics`."""
        return dict(self._report)


def soft_cross_entropy(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Return -sum_k q_k log softmax(z)_{a_k}, [B], for several pseudo-labels of an image with their shares.

    Args:
        logits: [B, G].
        labels: int64 [B, K], pseudo-classes.
        shares: [B, K], sum 1; any float type.
    """
    log_p = logits.float().log_softmax(1)
    return -(shares.float() * log_p.gather(1, labels)).sum(1)


def start_from_teacher(aux_head: nn.Linear, pseudo: Mapping[str, Any], init: AuxInit) -> None:
    """Copy the teacher's last layer into the auxiliary head, if ``init`` asks for it or the widths are equal.

    Raises:
        ConfigError: ``init=teacher``, and the teacher has no last layer or one of another width.
    """
    weight = pseudo.get("weight")
    if weight is not None and weight.shape == tuple(aux_head.weight.shape) and init != "fresh":
        with torch.no_grad():
            aux_head.weight.copy_(torch.from_numpy(weight))
            aux_head.bias.copy_(torch.from_numpy(pseudo["bias"]))
    elif init == "teacher":
        mismatch = "these pseudo-labels have none" if weight is None else f"the teacher's is {list(weight.shape)}"
        raise ConfigError(
            f"method.aux.init=teacher: the auxiliary head is {list(aux_head.weight.shape)} and the last layer to start "
            f"from does not match it: {mismatch}. Use a backbone of the teacher's width, or method.aux.init=auto"
        )


def set_background_weight(loss: ClassificationLoss, weight: float) -> None:
    """Set the class weight of class 0; other classes keep theirs (1 by default)."""
    if loss.weights is None:
        loss.weights = torch.ones(len(loss.class_counts))
    loss.weights[0] = weight

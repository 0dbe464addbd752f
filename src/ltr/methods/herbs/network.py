"""The network of HERBS (Chou, Kao and Lin, arXiv 2303.06442) and of PIM, on which HERBS builds.

Data flow: the backbone's feature maps become levels; a top-down path and then a bottom-up path run through them, and
every location of every level is classified on both. On the bottom-up levels, the locations with the highest scores are
selected and combined into the merged output; the logits of the other locations are pushed down (background
suppression). The top-down classifiers learn from the bottom-up ones at a decreasing temperature (refinement).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch, to_device
from ltr.errors import ConfigError
from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.losses.gathering import world_size
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.herbs import losses as terms
from ltr.methods.herbs.combiner import GraphCombiner
from ltr.methods.herbs.options import HERBSOptions
from ltr.methods.herbs.pyramid import CLASSIFIERS, Pyramid, backbone_map_sizes, resample
from ltr.methods.herbs.selection import Selection, counts_of, gather, image_class_scores, location_scores, select
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed, uniforms


class PassResult(NamedTuple):
    """Logits, features and selections of one pass through the network."""

    features: Tensor  # [B, D], the head's input: the combined locations, or without suppression the pooled features
    merged: Tensor  # [B, C], the head's logits
    students: list[Tensor]  # logits [B, H, W, C] of the levels that learn from others
    levels: list[Tensor]  # logits [B, H, W, C] of the last path's levels
    selections: list[Selection]  # of the coarsest levels, those with a selection


# values of newer options, for checkpoints from before these options
_BEFORE = {"hidden_width": "path", "mix_equal_levels": True, "locations_per_joint": 64}


@named("network/herbs")
class HerbsNetwork(ImageClassifier):
    """Network of HERBS, of PIM, and of their modules on a plain backbone.

    The head classifies the combined locations, so that the config ``head`` and the loss act on the merged output.
    Without suppression it classifies the backbone's pooled features, and its output is called ``original``.
    Probabilities are softmaxes for any loss, because cross-entropy trains the other outputs.

    Args:
        options: the fields of `HERBSOptions`; those of `_BEFORE` have other defaults here.

    Raises:
        ConfigError: a backbone without feature maps, or more locations to select than a level has.
    """

    numerics_version = 2  # 1: the top-down projections' hidden layers had the width of the path
    distributed_numerics_version = 2  # 1: random locations depended on the process of an image

    options: HERBSOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec)
        self.options = HERBSOptions(**{**_BEFORE, **options})
        self.suppression = self.options.suppression
        self.refinement = self.options.refinement
        self.temperature = self.options.temperature
        plain = self.options.paths == "none"
        # on a plain backbone, suppression uses the last block and refinement the last two
        kept = (2 if self.refinement else int(self.suppression)) if plain else None
        self.pyramid: Pyramid | None = None
        self.combiner: GraphCombiner | None = None
        self.classifiers, self.student_classifiers = nn.ModuleList(), nn.ModuleList()
        if kept != 0:
            with seeded_construction(derive_seed(spec.seed, spec.role, "herbs")):
                self._build(kept, plain)
        self.headline = self.output_names[0] if len(self.output_names) == 1 else self.options.readout
        if self.options.log_gradient_norms:
            self.register_buffer("gradient_norms", torch.zeros(len(self.term_weights)))

    def _build(self, kept: int | None, plain: bool) -> None:
        options, dataset_info = self.options, self.dataset_info
        self.pyramid = Pyramid(
            self.backbone,
            backbone_map_sizes(self.backbone, dataset_info.image_shape),
            paths=options.paths,
            count=options.levels,
            maps=options.maps,
            kept=kept,
            width=options.width,
            hidden_width=options.hidden_width,
            learned_mixing=options.resampling == "learned",
            mix_equal_levels=options.mix_equal_levels,
            init=options.init,
            norm=options.level_norm,
        )
        make = CLASSIFIERS[options.classifier]
        widths = self.pyramid.widths
        self.classifiers.extend(make(width, dataset_info.num_classes) for width in widths)
        if self.refinement and not plain:
            self.student_classifiers.extend(make(width, dataset_info.num_classes) for width in widths)
        if not self.suppression:
            return
        locations = [height * width for height, width in self.pyramid.sizes]
        if plain:
            locations = locations[-1:]
        self.counts = counts_of(locations, counts=options.selected, fractions=options.selected_fractions)
        self.combiner = GraphCombiner(
            widths[-1],
            sum(self.counts),
            options.joints,
            options.dropout,
            locations_per_joint=options.locations_per_joint,
        )
        self.head = instantiate(self.settings.head, widths[-1], dataset_info.num_classes)
        if self.loss.prior_bias is not None and getattr(self.head, "bias", None) is not None:
            self.head.init_bias(self.loss.prior_bias)

    # -- names ---------------------------------------------------------------------------------------------------

    @property
    def link(self) -> str:
        return "softmax"

    @property
    def output_names(self) -> list[str]:
        """Return the names of image-wise outputs: the head's, then one for each level of each path, finest first."""
        first = "merged" if self.suppression else "original"
        top_down = [f"top_down_{level}" for level, _ in enumerate(self.student_classifiers, 1)]
        return [first, *(f"level_{level}" for level, _ in enumerate(self.classifiers, 1)), *top_down]

    @property
    def term_weights(self) -> dict[str, float]:
        """Return the weights of the loss terms by name."""
        used = {
            "merged": True,
            "layer": len(self.classifiers) > 0,
            "dropped": self.suppression,
            "refinement": self.refinement,
        }
        return {name: float(self.options[f"{name}_weight"]) for name, is_used in used.items() if is_used}

    def parameter_modules(self) -> dict[str, nn.Module]:
        modules = {
            "pyramid": self.pyramid,
            "classifiers": self.classifiers,
            "student_classifiers": self.student_classifiers,
            "combiner": self.combiner,
        }
        return {name: module for name, module in modules.items() if module is not None}

    # -- pixels to logits ----------------------------------------------------------------------------------------

    def forward_pass(self, unit: Tensor, draws: Tensor | None = None) -> PassResult:
        """Run one pass for images with pixels in [0, 1].

        Args:
            draws: with ``location_rule=random``, numbers [B, all locations that can be selected] that rank them.
        """
        if self.pyramid is None:
            features = self.backbone(self.normalise(unit))
            return PassResult(features, self.head(features), [], [], [])
        if self.combiner is None:
            features, maps = self.backbone.features_and_maps(self.normalise(unit))
        else:
            maps = self.backbone.feature_maps(self.normalise(unit))
        first, last = self.pyramid(maps)
        levels = [classify(level) for classify, level in zip(self.classifiers, last)]
        if self.student_classifiers:
            students = [classify(level) for classify, level in zip(self.student_classifiers, first)]
        else:  # the block before the last one learns from the last
            students = levels[:-1] if self.refinement else []
        selections: list[Selection] = []
        if self.combiner is not None:
            selections = self._select(levels[-len(self.counts) :], draws)
            selected = [
                gather(level.flatten(1, 2), chosen.indices)
                for level, chosen in zip(last[-len(selections) :], selections)
            ]
            features = self.combiner(torch.cat(selected, 1))
        return PassResult(features, self.head(features), students, levels, selections)

    @torch.no_grad()
    def _select(self, levels: Sequence[Tensor], draws: Tensor | None) -> list[Selection]:
        flat = [level.detach().flatten(1, 2) for level in levels]
        if self.options.location_rule == "random":
            numbers = self._fixed_draws(flat) if draws is None else draws
            scores = list(numbers.split([level.shape[1] for level in flat], dim=1))
        else:
            score = location_scores if self.options.location_rule == "location" else image_class_scores
            scores = [score(level) for level in flat]
        return [select(ranked, count) for ranked, count in zip(scores, self.counts)]

    def _fixed_draws(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the same random ranks for every image, for the evaluation of a network with random selection."""
        locations = sum(level.shape[1] for level in levels)
        numbers = uniforms(derive_seed(self.seed, self.role, "selection"), np.zeros(1, dtype=np.int64), locations)
        return to_device(numbers.astype(np.float32), levels[0].device).expand(len(levels[0]), -1)

    def _draws(self, images: int, batch_index: int) -> Tensor | None:
        """Return random ranks for a training batch; None unless the selection is random."""
        if not self.suppression or self.options.location_rule != "random":
            return None
        assert self.pyramid is not None
        locations = sum(height * width for height, width in self.pyramid.sizes[-len(self.counts) :])
        seed = derive_seed(self.seed, self.role, "selection", self.current_epoch, batch_index, 0)
        # by the images' rows in the global batch: several processes select as one does
        rows = np.arange(images) * world_size() + self.global_rank
        return to_device(uniforms(seed, rows, locations).astype(np.float32), self.device)

    def outputs(self, result: PassResult) -> dict[str, Tensor]:
        """Return image-wise logits float32 [B, C] by name; those of a level are the mean over its locations."""
        students = result.students if self.student_classifiers else []
        levels = [location_logits.float().mean((1, 2)) for location_logits in (*result.levels, *students)]
        return dict(zip(self.output_names, [result.merged.float(), *levels], strict=True))

    def features(self, unit: Tensor) -> Tensor:
        return self.forward_pass(unit).features

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return scores of the two joint readouts and of every single output.

        ``sum_of_logits``, the softmax of the summed outputs, follows the paper's text; ``mean_of_softmaxes`` follows
        the released code, and its logits are logarithms of its probabilities.
        """
        return self._scores(self.forward_pass(self.to_unit(images)))

    def _scores(self, result: PassResult) -> dict[str, Scores]:
        single = self.outputs(result)
        variants = dict(single)
        if len(single) > 1:
            stacked = torch.stack(list(single.values()))
            joint = {"sum_of_logits": stacked.sum(0), "mean_of_softmaxes": _log_of_mean(stacked)}
            variants = {**joint, **single}
        features = result.features.float()
        return {name: Scores(logits, features) for name, logits in variants.items()}

    # -- learning ------------------------------------------------------------------------------------------------

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        initial, period = self.options.temperature, self.options.temperature_period
        self.temperature = terms.temperature_at(epoch, self.settings.epochs, initial, period)

    @property
    def graph_obstacle(self) -> str | None:  # type: ignore[override]
        if self.options.log_gradient_norms:
            return "method.log_gradient_norms measures only in the first step of an epoch"
        is_random = self.suppression and self.options.location_rule == "random"
        return "method.location_rule=random draws locations on the host" if is_random else None

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Return the weighted sum of the terms; each is logged without its weight."""
        result = self.forward_pass(self.to_unit(batch.images), self._draws(len(batch.labels), batch_index))
        outputs = self.outputs(result)
        losses = self._losses(result, outputs, batch)
        weighted = {name: self.term_weights[name] * loss for name, loss in losses.items()}
        logs = {name: loss.detach() for name, loss in losses.items()}
        if self.refinement:
            logs["temperature"] = torch.full_like(logs["refinement"], self.temperature)
        with torch.no_grad():
            if self.suppression:
                logs["dropped_tanh"] = terms.dropped_tanh(*self._dropped(result))
            correct = (torch.stack(list(outputs.values())).sum(0).argmax(1) == batch.labels).sum()
        if self.options.log_gradient_norms:
            logs |= self._gradient_norms(weighted, batch_index)
        step = {"loss": torch.stack(list(weighted.values())).sum(), "correct": correct, "logs": logs}
        return self.with_extras(step, batch, result.features, result.merged)

    def _losses(self, result: PassResult, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        losses = {"merged": self.loss(result.merged, batch.labels, batch.mix)}
        if result.levels:
            level_logits = [logits for name, logits in outputs.items() if name.startswith("level_")]
            losses["layer"] = terms.layer_loss(level_logits, batch.labels, batch.mix)
        if self.suppression:
            losses["dropped"] = terms.dropped_loss(*self._dropped(result))
        if self.refinement:
            teachers = result.levels[-len(result.students) :]
            # on a plain backbone, the earlier block may have more locations
            students = [resample(s, (t.shape[1], t.shape[2])) for s, t in zip(result.students, teachers, strict=True)]
            losses["refinement"] = terms.refinement_loss(
                students, teachers, self.temperature, self.options.refinement_reduction
            )
        return losses

    @staticmethod
    def _dropped(result: PassResult) -> tuple[list[Tensor], list[Tensor]]:
        levels = result.levels[-len(result.selections) :]
        return [level.flatten(1, 2) for level in levels], [chosen.dropped for chosen in result.selections]

    def _gradient_norms(self, weighted: Mapping[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """Return the norm of each weighted term's gradient, measured in the first step of an epoch."""
        if batch_index == 0:
            trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
            norms = []
            for term in weighted.values():
                gradients = torch.autograd.grad(term, trained, retain_graph=True, allow_unused=True)
                norms.append(torch.stack([g.float().norm() for g in gradients if g is not None]).norm())
            self.gradient_norms.copy_(torch.stack(norms))  # type: ignore[operator]
        return {f"gradient_{name}": norm for name, norm in zip(weighted, self.gradient_norms.clone())}  # type: ignore[operator]

    # -- outputs -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def examples(self, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        """Return the arrays of overlays.

        They are ``images`` uint8 [B, H, W, C], ``labels`` and ``predictions`` int64 [B], and ``selected_<level>`` bool
        [B, H_l, W_l] for each level that selects.
        """
        if not self.suppression:
            return {}
        result = self.forward_pass(self.to_unit(images))
        predictions = torch.stack(list(self.outputs(result).values())).sum(0).argmax(1)
        masks = {name: mask.cpu().numpy() for name, mask in self._masks(result).items()}
        shown = {"images": images.permute(0, 2, 3, 1), "labels": labels, "predictions": predictions}
        return {name: tensor.cpu().numpy() for name, tensor in shown.items()} | masks

    @torch.no_grad()
    def locations(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``selected_<level>``, and ``dropped_tanh`` [B]: the mean over dropped locations and classes."""
        return self._locations(self.forward_pass(self.to_unit(images))) if self.suppression else {}

    @torch.no_grad()
    def predict_with_locations(self, images: Tensor) -> tuple[dict[str, Scores], dict[str, Tensor]]:
        """Return the results of `predict` and `locations` from one forward pass."""
        result = self.forward_pass(self.to_unit(images))
        return self._scores(result), self._locations(result)

    def _locations(self, result: PassResult) -> dict[str, Tensor]:
        if not self.suppression:
            return {}
        return {**self._masks(result), "dropped_tanh": terms.dropped_tanh(*self._dropped(result), each_image=True)}

    @staticmethod
    def _masks(result: PassResult) -> dict[str, Tensor]:
        """Return ``selected_<level>`` bool [B, H_l, W_l] of each level that selects."""
        first = len(result.levels) - len(result.selections) + 1
        return {
            f"selected_{level}": (~chosen.dropped).view(logits.shape[:3])
            for level, (chosen, logits) in enumerate(zip(result.selections, result.levels[first - 1 :]), first)
        }

    def as_classifier(self) -> ImageClassifier:
        if self.suppression:
            raise ConfigError(
                "method=herbs with method.suppression=true cannot be another method's representation: its head "
                "classifies combined locations, not the backbone's features. Use method=erm, or method=herbs with "
                "method.suppression=false method.paths=none"
            )
        return self


def _log_of_mean(logits: Tensor) -> Tensor:
    """Return the logarithm of the mean softmax over the outputs, [R, B, C] -> [B, C]."""
    return logits.log_softmax(2).logsumexp(0) - float(np.log(len(logits)))

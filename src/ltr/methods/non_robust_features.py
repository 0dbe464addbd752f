"""Non-robust features (Ilyas et al., NeurIPS 2019, section 3.2), the idea behind M2m.

A small, hardly visible perturbation changes every training image until a plain network predicts another class t, and
the image gets the label t. A new network that is trained only on these seemingly mislabelled images still classifies
unperturbed test images far above chance: the perturbations hold features of t that generalise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import Batch, to_device
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core import generation
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Computation, Method, NetworkSpec, Stage
from ltr.methods.core.step_data import augment_images, step_of
from ltr.methods.decoupling.representation import network_of
from ltr.methods.erm import plain_representation
from ltr.methods.options import NonRobustFeaturesOptions, Perturbation, Targets
from ltr.randomness import derive_seed, generator


@named("computation/perturbed_images")
def perturbed_images(
    computation: Computation,
    *,
    targets: Targets,
    perturbation: Perturbation,
    budget: float,
    step_size: float,
    steps: int,
) -> dict[str, np.ndarray]:
    """Perturb every un-augmented training image and relabel it, as the stage ``perturbed``.

    Pixels are rounded to 8 bits, which changes a CIFAR image by a length of about 0.06.

    Args:
        computation: with the trained ``representation``.
        targets: ``random``: any class, the image's own included, so that the label is independent of the image;
            ``next``: y + 1, modulo the number of classes.
        perturbation: ``adversarial``: `generation.translate` towards the target; ``noise``: the control, a random
            direction of equal norm.
        budget: largest Euclidean length of a perturbation, of pixels in [0, 1]; the length of noise.
        step_size, steps: step size and number of steps of the gradient descent.

    Returns:
        Indexed by source index, zero for images that are not trained on: ``images`` uint8 [N, H, W, C], ``targets``
        int64 [N], ``length`` float32 [N] (of the perturbation, after rounding).
    """
    network = network_of(computation.parents).to(computation.device).requires_grad_(False)
    total, classes = len(computation.source), computation.dataset_info.num_classes
    channels, height, width = computation.dataset_info.image_shape
    images = np.zeros((total, height, width, channels), dtype=np.uint8)
    length = np.zeros(total, dtype=np.float32)
    labels = new_labels(computation.split.labels(computation.source), classes, targets, computation.seed)
    labels[np.setdiff1d(np.arange(total), computation.split.train)] = 0
    noise = torch.Generator(computation.device).manual_seed(derive_seed(computation.seed, computation.role, "noise"))
    for batch in computation.loader("train"):
        indices = batch.indices.cpu().numpy()
        start = network.to_unit(batch.images)
        if perturbation == "noise":
            direction = torch.randn(start.shape, generator=noise, device=start.device)
            moved = generation.move_by(start, direction, torch.full((len(start),), budget, device=start.device))
        else:
            objective = generation.towards(network, to_device(labels[indices], start.device))
            moved = generation.translate(objective, start, steps=steps, step_size=step_size, radius=budget)
        rounded = (moved * 255).round_().to(torch.uint8)
        images[indices] = rounded.permute(0, 2, 3, 1).cpu().numpy()
        length[indices] = generation.norms(network.to_unit(rounded) - start).cpu().numpy()
    return {"images": images, "targets": labels, "length": length}


def new_labels(labels: np.ndarray, classes: int, targets: Targets, seed: int) -> np.ndarray:
    """Return targets int64 [N] for labels int64 [N]; the same for the perturbation and its control."""
    if targets == "next":
        return (labels + 1) % classes
    return generator(seed, "non-robust targets").integers(0, classes, len(labels))


@named("network/on_perturbed_images")
class OnPerturbedImages(ImageClassifier):
    """Network trained on perturbed images with their new labels.

    Args:
        spec: see `NetworkSpec`; its parent is ``perturbed``.
    """

    graph_obstacle = "the host augments the perturbed images of every batch"

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self._arrays = spec.parents["perturbed"].arrays if spec.parents else {}
        self._on_device: tuple[Tensor, Tensor] | None = None

    def on_train_start(self) -> None:
        super().on_train_start()
        images, targets = (torch.from_numpy(self._arrays[name]).to(self.device) for name in ("images", "targets"))
        self._on_device = images, targets

    def on_train_end(self) -> None:
        self._on_device = None  # frees the memory of a whole data set

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        assert self._on_device is not None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        images, targets = (tensor[batch.indices] for tensor in self._on_device)
        step = step_of(data, self.current_epoch, batch_index, batch)
        seed = derive_seed(self.seed, self.role, "augment", self.current_epoch)
        pixels = augment_images(
            data.augment, images.permute(0, 3, 1, 2), step.local_labels, seed=seed, positions=step.local_positions
        )
        return super().training_step(batch._replace(images=pixels, labels=targets), batch_index)


@named("method/non_robust_features")
class NonRobustFeatures(Method):
    """Training on non-robust features, with the stages ``representation``, ``perturbed`` and ``classifier``.

    ERM's plain network (cross-entropy, instance sampling) perturbs the images, and a new network is trained on them.
    The top level of the configuration has the settings of both networks.

    Raises:
        ConfigError: image files, or an augmentation that mixes images.
    """

    Options = NonRobustFeaturesOptions
    options: NonRobustFeaturesOptions
    provides = ("logits", "features")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        if settings.augment.get("files"):
            raise ConfigError(
                "method=non_robust_features keeps a perturbed copy of every image in memory, for which image files are "
                "too large. Use a data set of small images, such as dataset=cifar10"
            )
        if settings.augment.get("mix"):
            raise ConfigError(
                f"method=non_robust_features with augment.mix={settings.augment['mix']}: a mixed image has two "
                "perturbations and no label. Use augment=cifar"
            )
        base = plain_representation(settings, dataset_info, "representation")
        perturbed = Stage(
            "perturbed",
            "perturbed",
            base.settings,
            compute=perturbed_images,
            parents=(base.name,),
            options=dict(self.options),
        )
        fresh = Stage("classifier", "fresh", settings, module=OnPerturbedImages, parents=(perturbed.name,))
        return [base, perturbed, fresh]

"""Network of M2m: each training step replaces images of its batch by generated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch, to_device
from ltr.errors import CheckpointError, ConfigError
from ltr.identity import named
from ltr.methods.core import generation
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.core.step_data import Step, augment_images, gather_images, step_of
from ltr.methods.m2m.examples import example_arrays
from ltr.methods.m2m.options import M2mClassifierOptions
from ltr.methods.m2m.rejection import accepted, is_confident
from ltr.methods.m2m.seeds import DRAWS, Slots, choose_slots
from ltr.randomness import derive_seed, uniforms

LOGS = ("slots", "accepted", "rejected_by_confidence", "rejected_by_chance", "perturbation_norm")
_NOISE_RADIUS = 0.5  # official code
ONLY_IN_MEMORY = (
    "method.seed_source=dataset samples seeds from all training images, which must be in memory. For image files set "
    "method.seed_source=batch"
)


@named("network/m2m")
class M2mClassifier(ImageClassifier):
    """The network f, trained on batches with generated images from the start of its deferred sampler.

    Each step logs, as shares of its images: ``slots``, the images to replace; ``accepted``;
    ``rejected_by_confidence`` of g; ``rejected_by_chance``, among those that g accepts. The other slots have no image
    of a larger class as seed. ``perturbation_norm`` is the mean Euclidean norm of the change to a seed, in pixel units,
    over the generated images (0 in a step without any).

    Args:
        spec: see `NetworkSpec`; its parent is ``generator``, the network g.
        options: the fields of `M2mClassifierOptions`.
    """

    options: M2mClassifierOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec)
        self.options = M2mClassifierOptions(**options)
        self.class_counts = np.asarray(spec.dataset_info.class_counts)
        self.first_epoch = instantiate(spec.settings.sampler).start_epoch(spec.settings.epochs)
        self.generating = False
        self._parents = spec.parents
        self._generator: tuple[ImageClassifier, ...] = ()  # a tuple, so that it is not a submodule in checkpoints of f

    @property
    def generator(self) -> ImageClassifier:
        """Frozen network g, on this network's device.

        Raises:
            CheckpointError: this network was loaded without g.
        """
        if not self._generator:
            if not self._parents:
                raise CheckpointError(
                    "M2m generates images with the network of its stage 'generator', which a checkpoint does not hold. "
                    "Train with method=m2m, which builds this network with that stage"
                )
            network = self._parents["generator"].load()
            self._generator = (network.eval().requires_grad_(False),)
        if self._generator[0].device != self.device:
            self._generator[0].to(self.device)
        return self._generator[0]

    @property
    def graph_obstacle(self) -> str | None:  # type: ignore[override]
        return "M2m chooses on the host which images of a batch it replaces" if self.generating else None

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.generating = epoch >= self.first_epoch

    @property
    def _data(self) -> Any:
        """DataModule of the stage; None outside a Trainer."""
        return None if self._trainer is None else self._trainer.datamodule  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.options.seed_source == "dataset" and self._data.images is None:
            raise ConfigError(ONLY_IN_MEMORY)
        _ = self.generator  # raises before the first step

    # -- one step ------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        unit = self.to_unit(batch.images)
        logs = torch.zeros(len(LOGS), device=unit.device)
        if self.generating:
            step = step_of(self._data, self.current_epoch, batch_index, batch)
            unit, logs = self.with_generated(unit, step)
        outcome: dict[str, Any] = super().training_step(batch._replace(images=unit), batch_index)
        return {**outcome, "logs": {**outcome.get("logs", {}), **dict(zip(LOGS, logs.unbind()))}}

    def with_generated(
        self, unit: Tensor, step: Step, *, draws: np.ndarray | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return a batch [B, C, H, W] with accepted images in their slots, and the values of `LOGS`, float32 [5].

        All choices but g's are made on the host, without waiting for the device.

        Args:
            draws: float64 [N, DRAWS] for the images of all processes, see `choose_slots` for the columns; None:
                functions of (seed, role, epoch, position).
            noise: uniform in [-0.5, 0.5), for each slot of all processes in the order of their positions,
                [K, C, H, W], before it is limited; None: of the step's random generator.
        """
        if draws is None:
            draws = uniforms(self._seed_of("slots"), step.positions, DRAWS)
        from_batch = self.options.seed_source == "batch"
        slots = choose_slots(
            step.labels,
            self.class_counts,
            self.options.beta,
            draws,
            images=None if from_batch else self._data.class_index,
            random_target=self.options.target == "random",
        )
        pool = gather_images(unit, step.world_size) if from_batch else None  # collective: called without slots, too
        local_slots = np.flatnonzero(step.is_local(slots.places))
        count = len(local_slots)
        if not count:
            return unit, self._log_values(slots, step)
        # padded to few different lengths, since cuDNN tunes convolutions anew for each
        numbers = local_slots[np.arange(_padded(count, len(unit)) if unit.is_cuda else count) % count]
        local = slots.select(numbers)
        host = np.stack([local.seeds, local.targets, local.sources, step.rows(local.places), local.chance, numbers])
        seeds, targets, sources, rows, chance, slot = to_device(host, unit.device).unbind()
        start = self._training_images(local, step) if pool is None else pool[seeds]
        shape = (len(slots), *start.shape[1:])
        images, confident = self.generate(start, targets, sources, self._start_noise(shape, step, slot, noise))
        length = generation.norms(images - start)
        if self.options.insert == "seed":
            images = start
        elif self.options.insert == "noise":
            direction = torch.randn(shape, generator=self._random("control", step), device=unit.device)[slot]
            images = generation.move_by(start, direction, length)
        chance, confident = chance[:count].bool(), confident[:count]
        inserted, rows = accepted(confident, chance, self.options.rejection), rows[:count]
        mixed = unit.clone()
        mixed[rows] = torch.where(inserted.view(-1, 1, 1, 1), images[:count], unit[rows])
        counts = torch.stack([inserted.sum(), (~confident).sum(), (confident & ~chance).sum()]) / len(unit)
        return mixed, self._log_values(slots, step, counts, length[:count].mean())

    def _log_values(self, slots: Slots, step: Step, *values: Tensor) -> Tensor:
        """Return the values of `LOGS`, float32 [5], from the shares of accepted and rejected images [3] and a norm."""
        slot_share = torch.full((1,), slots.total / len(step.labels), device=self.device)
        parts = [value.view(-1).float() for value in values] or [slot_share.new_zeros(4)]
        return torch.cat([slot_share, *parts])

    def generate(
        self, start: Tensor, targets: Tensor, sources: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Move seeds towards their targets, and return them with whether g is confident in them.

        Args:
            start: seeds with pixels in [0, 1], [K, C, H, W].
            targets, sources: k and k0, int64 [K].
            noise: added to the seeds first, [K, C, H, W].

        Returns:
            Pixels in [0, 1], float32 [K, C, H, W], and bool [K]. The weights, gradients, BatchNorm statistics and modes
            of both networks are unchanged.
        """
        options, generator = self.options, self.generator
        lam = options["lam"] / getattr(self.head, "initial_scale", 1.0)
        objective = generation.towards_and_away(generator, self.forward, targets, sources, lam)
        first = start if noise is None else (start + noise).clamp_(0, 1)
        with generation.frozen(self.backbone, self.head):
            images = generation.translate(objective, first, steps=options["steps"], step_size=options["step_size"])
        return images, self.confident(images, targets)

    @torch.no_grad()
    def confident(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return whether g is confident that images are of their target classes, bool [K]."""
        with torch.autocast(images.device.type, enabled=False):
            loss = F.cross_entropy(self.generator(images), targets, reduction="none")
        return is_confident(loss, self.options.gamma, self.options.accept_on)

    def _start_noise(
        self, shape: tuple[int, ...], step: Step, slot: Tensor, noise: Tensor | None = None
    ) -> Tensor | None:
        """Return the noise for these slots [K'] among those of all processes; None without noise."""
        kind = self.options.noise
        if kind == "none":
            return None
        if noise is None:
            noise = torch.rand(shape, generator=self._random("noise", step), device=self.device) - 0.5
        return generation.limit_noise(noise, _NOISE_RADIUS, whole_batch=kind == "official")[slot]

    def _training_images(self, slots: Slots, step: Step) -> Tensor:
        """Return augmented seeds from the whole training set, pixels in [0, 1]."""
        data, positions = self._data, step.positions[slots.places]
        images = data.images.take(to_device(data.split.train[slots.seeds], self.device))
        seed = self._seed_of("augment")
        return self.to_unit(augment_images(data.augment, images, slots.sources, seed=seed, positions=positions))

    def _seed_of(self, purpose: str) -> int:
        return derive_seed(self.seed, self.role, f"m2m {purpose}", self.current_epoch)

    def _random(self, purpose: str, step: Step) -> torch.Generator:
        """Return the step's generator for a purpose, the same on all processes."""
        seed = derive_seed(self._seed_of(purpose), int(step.positions[0]))
        return torch.Generator(self.device).manual_seed(seed)

    # -- figures -------------------------------------------------------------------------------------------------

    def artifacts(self) -> dict[str, np.ndarray]:
        """Return the arrays of `ltr.methods.m2m.examples`."""
        return example_arrays(self, self._data)


def _padded(number: int, batch: int) -> int:
    """Return the next multiple of a sixteenth of the batch."""
    unit = max(batch // 16, 1)
    return -(-number // unit) * unit

"""Published classifiers as frozen teachers, which map pixels in [0, 1] to logits and features."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.configuration.ranges import PositiveInt, check_option
from ltr.errors import CheckpointError, ConfigError, first_line, nearest
from ltr.identity import named
from ltr.models.backbones import download_error
from ltr.models.probing import ignored_share, nearest_sides, probe
from ltr.models.state_file import State, read_state
from ltr.models.timm_backbone import needs_img_size
from ltr.models.weights import load_state, seeded_construction

Library = Literal["torchvision", "timm"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@named("backbone/teacher")
class Teacher(nn.Module):
    """Frozen classifier of torchvision or timm, in eval mode and without gradients.

    Args:
        library: ``timm`` or ``torchvision``.
        name: name of the model in the library.
        pretrained: True downloads the library's weights; otherwise nothing is downloaded.
        weights: local file with the whole classifier, instead of ``pretrained``.
        num_classes: number of outputs; None: as in the weights.
        image_size: side in pixels to which images are resized (bilinear, antialiased); None keeps their size.
        mean, std: normalisation of pixels in [0, 1], per channel; None: timm's values for the model, else ImageNet's.

    Raises:
        ConfigError: the name is unknown, neither or both of pretrained and weights are set, or num_classes differs
            from the weights.
        CheckpointError: the weights cannot be downloaded or belong to another network.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        *,
        library: Library,
        name: str,
        pretrained: bool = False,
        weights: str | None = None,
        num_classes: Annotated[int, "[2, inf)"] | None = None,
        image_size: PositiveInt | None = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if pretrained == (weights is not None):
            raise ConfigError(
                f"method.aux.teacher: pretrained={str(pretrained).lower()} and weights={weights}: a teacher needs one "
                "of them, pretrained=true (a download) or weights=FILE"
            )
        state = None if weights is None else read_state(weights)
        with seeded_construction(0):  # keeps the global generator unchanged; all initial values are replaced
            self.net = _create(library, name, pretrained, None, image_size)
            if state is not None:
                self._load_weights(library, name, state, str(weights), num_classes, image_size)
        self._last_name, self._last = last_layer(self.net)
        if num_classes is not None and self.num_classes != num_classes:
            raise ConfigError(_other_outputs(num_classes, self.num_classes, f"the published weights of {name}"))
        self.image_size = image_size
        published = getattr(self.net, "pretrained_cfg", None) or {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        for key, values in (("mean", mean or published["mean"]), ("std", std or published["std"])):
            self.register_buffer(f"_{key}", torch.tensor(list(values)).view(1, -1, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()
        self.name = name
        if image_size is not None:
            self.check_size((len(self._mean[0]), image_size, image_size))
        self.to(memory_format=torch.channels_last)

    def check_size(self, image_shape: tuple[int, int, int]) -> None:
        """Check that the teacher accepts images of shape (C, H, W) after its resizing, on meta tensors.

        Raises:
            ConfigError: the teacher does not accept such images; the message names accepted sides.
        """
        channels, size = self._mean.shape[1], self.image_size
        height, width = (size, size) if size is not None else image_shape[1:]

        def cut_at(side: tuple[int, int]) -> dict[str, int]:
            return probe(self.net, self.net, (channels, *side)).cut

        def takes(side: int) -> bool:
            try:
                return not cut_at((side, side))
            except Exception:  # libraries raise errors of any type
                return False

        try:
            cut = cut_at((height, width))
            if not cut or not ignored_share(self.net, (channels, height, width)):
                return
            reason = f"patches of {max(cut.values())} pixels do not divide them"
        except Exception as error:
            reason = first_line(error)
        sides = nearest_sides(height, takes)
        raise ConfigError(
            f"method.aux.teacher: {self.name} cannot take images of {height} x {width} pixels ({reason}). Set "
            f"method.aux.teacher.image_size={sides or 'the size that it was trained on'}"
        )

    @property
    def num_classes(self) -> int:
        """Number of outputs K."""
        return self._last.weight.shape[0]

    @property
    def num_features(self) -> int:
        """Width D of the input of the last layer."""
        return self._last.weight.shape[1]

    def last_layer(self) -> tuple[Tensor, Tensor]:
        """Return weight [K, D] and bias [K] of the last layer, which may be a 1x1 convolution."""
        weight = self._last.weight.detach().flatten(1)
        bias = self._last.bias
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()

    def preprocess(self, unit: Tensor) -> Tensor:
        """Resize and normalise pixels [B, C, H, W] in [0, 1] for the network; a grey channel is repeated."""
        channels = self._mean.shape[1]
        if unit.shape[1] == 1 and channels > 1:
            unit = unit.expand(-1, channels, -1, -1)
        if unit.shape[1] != channels:
            raise ConfigError(
                f"method.aux.teacher: the teacher takes {channels} channels and the images have {unit.shape[1]}. Set "
                "its mean and std for another number, or choose aux.partition=kmeans with aux.features=pixels"
            )
        size = self.image_size
        if size is not None and unit.shape[2:] != (size, size):
            unit = F.interpolate(unit, (size, size), mode="bilinear", antialias=True)
        return (unit - self._mean) / self._std

    def forward(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, K] and features [B, D] of images with pixels in [0, 1]."""
        last_inputs: list[Tensor] = []
        handle = self._last.register_forward_pre_hook(lambda module, inputs: last_inputs.append(inputs[0]))
        try:
            logits = self.net(self.preprocess(unit))
        finally:
            handle.remove()
        features = last_inputs[0]
        return logits, features.mean((2, 3)) if features.ndim == 4 else features

    def _load_weights(
        self, library: Library, name: str, state: State, source: str, num_classes: int | None, image_size: int | None
    ) -> None:
        """Load a file's weights, after rebuilding the network with the file's number of outputs."""
        path, last = last_layer(self.net)
        convert = getattr(sys.modules[type(self.net).__module__], "checkpoint_filter_fn", None)
        if f"{path}.weight" not in state and library == "timm" and convert is not None:
            state = convert(dict(state), self.net)
        weight = state.get(f"{path}.weight")
        if weight is None:
            raise CheckpointError(
                f"method.aux.teacher.weights={source}: the file has no {path}.weight, the last layer of {library}'s "
                f"{name}. Give the file of a whole classifier"
            )
        if num_classes is not None and len(weight) != num_classes:
            raise ConfigError(_other_outputs(num_classes, len(weight), source))
        if len(weight) != last.weight.shape[0]:
            self.net = _create(library, name, False, len(weight), image_size)
        # tensors of auxiliary classifiers are ignored
        load_state(self.net, state, source=source, classifier_names=("aux1", "aux2", "AuxLogits"))


def last_layer(net: nn.Module) -> tuple[str, Any]:
    """Return name and module of a classifier's last linear layer, or of SqueezeNet's convolution to the classes."""
    kinds = (nn.Conv2d,) if type(net).__name__ == "SqueezeNet" else (nn.Linear,)
    candidates = [(name, module) for name, module in net.named_modules() if isinstance(module, kinds)]
    getter = getattr(net, "get_classifier", None)  # timm's accessor, right even if other layers follow the classifier
    classifier = getter() if getter is not None else None
    if isinstance(classifier, nn.Linear | nn.Conv2d):
        candidates = [(name, module) for name, module in net.named_modules() if module is classifier]
    if not candidates:
        raise ConfigError(f"method.aux.teacher: {type(net).__name__} has no linear last layer; choose another network")
    return candidates[-1]


def _create(library: Library, name: str, pretrained: bool, num_classes: int | None, image_size: int | None) -> Any:
    check_option("method.aux.teacher.library", library, Library)
    outputs: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    try:
        if library == "timm":
            import timm

            if not timm.is_model(name):
                raise _unknown(library, name, timm.list_models())
            if image_size is not None and needs_img_size(name, (3, image_size, image_size)):
                outputs["img_size"] = image_size
            return timm.create_model(name, pretrained=pretrained, **outputs)
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            raise _unknown(library, name, known)
        if name in ("googlenet", "inception_v3") and not pretrained:
            outputs |= {"aux_logits": False, "init_weights": False}
        return models.get_model(name, weights="DEFAULT" if pretrained else None, **outputs)
    except ConfigError:
        raise
    except Exception as error:
        if not pretrained:
            raise
        raise download_error(f"{library}'s {name}", "method.aux.teacher", error) from error


def _unknown(library: Library, name: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"method.aux.teacher.name={name}: {library} has no such classification model{nearest(name, known) or '.'}"
    )


def _other_outputs(expected: int, outputs: int, where: str) -> ConfigError:
    return ConfigError(
        f"method.aux.teacher.num_classes={expected}, but {where} has {outputs} outputs. Set num_classes={outputs}, or "
        "null to take the number of the weights"
    )

"""Device and precision of a run: resolved once, printed, and part of a stage's key."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ltr.errors import ConfigError
from ltr.models.fused import fused_convolutions
from ltr.runs.processes.process_info import DDP

LIGHTNING_PRECISION = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


def resolve_device(accelerator: str) -> torch.device:
    """Return the torch device for ``auto | cpu | gpu``.

    Raises:
        ConfigError: ``gpu`` on a machine without a GPU.
    """
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise ConfigError("trainer.accelerator=gpu: no CUDA device is visible. Use trainer.accelerator=cpu, or auto")
    return (
        torch.device("cuda", torch.cuda.current_device()) if available and accelerator != "cpu" else torch.device("cpu")
    )


def check_strategy(config: Mapping[str, Any], device: torch.device) -> None:
    """Raise ConfigError if the config ``strategy`` needs GPUs and there is none."""
    if config["name"] == "fsdp" and device.type != "cuda":
        raise ConfigError(f"strategy=fsdp shares out the memory of GPUs, and no CUDA device is visible. {DDP}")


def device_name(device: torch.device) -> str:
    """Return a device's printed name: a GPU's product name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} {'thread' if threads == 1 else 'threads'}"


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a training step frees, for the next step.

    On a CPU, steps allocate and free their activations hundreds of times a second. By default glibc returns most of
    this memory to the system each time: some 30,000 minor faults a step for ResNet-32 at batch 128, a fifth of the
    training time. Without glibc this is a no-op.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 32 << 20)  # the largest value that glibc accepts
        mallopt(trim_threshold, 2**31 - 1)


def has_bf16_units(device: torch.device) -> bool:
    """Return whether bf16 is faster than fp32 here: GPUs from Ampere on, CPUs with AMX tiles or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # torch has no public names for these; a version without them trains in fp32
    probes = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("amx_tile", "avx512_bf16"))
    return any(probe is not None and probe() for probe in probes)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return ``bf16``, ``fp16`` or ``fp32`` for the configured ``auto | bf16 | fp16 | fp32``.

    Raises:
        ConfigError: fp16 on a CPU, which has neither a gradient scaler nor fp16 units.
    """
    if precision == "auto":
        return "bf16" if has_bf16_units(device) else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("trainer.precision=fp16 needs a GPU. On this CPU use bf16 or fp32 (auto chooses)")
    return precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of evaluation, the same as Lightning's in training."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


@contextmanager
def predicting(network: Any, device: torch.device, precision: str) -> Iterator[None]:
    """Compute predictions within the block: without gradients, in the run's precision, with fused convolutions.

    A network that reads stored features of a frozen backbone is not fused: from images it computes the same bits as
    the extraction of features does.

    Args:
        network: in eval mode; a module, or anything without modules.
    """
    with torch.inference_mode(), autocast(device, precision), ExitStack() as stack:
        if not trained_on_features(network):
            stack.enter_context(fused_convolutions(network))
        yield


def trained_on_features(network: Any) -> bool:
    """Return whether a network, or one inside it, was trained on stored features of a frozen backbone."""
    modules = network.modules() if isinstance(network, torch.nn.Module) else ()
    return any(getattr(getattr(module, "settings", None), "features", None) is not None for module in modules)

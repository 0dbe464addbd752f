"""Safe reading of weights files, with errors that name the type of files without weights."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ltr.errors import CheckpointError

_FETCH = "Fetch the file itself"
# (first bytes, type, advice) of files that are not weights; the first match applies
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer", "Fetch the file itself: git lfs pull"),
    (b"<!doctype", "a web page", _FETCH),
    (b"<html", "a web page", _FETCH),
    (b"<?xml", "an XML document", _FETCH),
    (b"<", "a web page or XML", _FETCH),
    (b"{", "JSON text", _FETCH),
    (b"[", "JSON text", _FETCH),
    (b"\x89hdf", "an HDF5 file", "Convert it to a state dict of torch"),
    (b"\x93numpy", "a NumPy array", "Convert it to a state dict of torch"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it"),
    (b"bzh", "a bzip2 archive", "Unpack it"),
    (b"\xfd7zxz", "an xz archive", "Unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it"),
    (b"rar!", "a RAR archive", "Unpack it"),
    (b"%pdf", "a PDF document", _FETCH),
    (b"\x89png", "an image", _FETCH),
    (b"\xff\xd8\xff", "an image", _FETCH),
    (b"gif8", "an image", _FETCH),
)
_PICKLED_CLASS = re.compile(r"(?:GLOBAL|class|global)\s+'?([A-Za-z_][\w.]{0,120})")


def refuse_other_files(path: Path) -> None:
    """Raise CheckpointError that names the type of a file, if its content contradicts its suffix."""
    if path.is_dir():
        raise CheckpointError(f"'{path}' is a directory, not a weights file. Name a file in it")
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be opened ({error.strerror}). Check its permissions") from error
    if not size:
        raise CheckpointError(f"'{path}' is an empty file, not weights. {_FETCH} again")
    is_safetensors = _is_safetensors(head, size)
    if is_safetensors and path.suffix != ".safetensors":
        raise CheckpointError(f"'{path}' is a safetensors file by its content. Rename it to end in .safetensors")
    if is_safetensors:
        return
    if path.suffix == ".safetensors" and _is_torch(path, head):
        raise CheckpointError(f"'{path}' is a torch file by its content, not safetensors. Rename it to end in .pth")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, kind, advice in _BEGINNINGS:
        if start.startswith(beginning):
            raise CheckpointError(f"'{path}' is {kind}, not weights. {advice}")
    if zipfile.is_zipfile(path) and not _is_torch(path, head):
        raise CheckpointError(f"'{path}' is a zip archive, not weights. Unpack it and name the weights file in it")
    if not _is_torch(path, head) and _is_text(head):
        raise CheckpointError(f"'{path}' is a text file, not weights. {_FETCH}")


def _is_safetensors(head: bytes, size: int) -> bool:
    header = int.from_bytes(head[:8], "little")
    return len(head) > 9 and 1 < header <= size - 8 and head[8:9] == b"{"


def _is_torch(path: Path, head: bytes) -> bool:
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.rpartition("/")[2] in ("data.pkl", "constants.pkl") for name in archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError):
            return True  # truncated: torch's reader reports the damage
    return head[:1] == b"\x80"  # a pickle


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def load_torch_file(path: Path) -> object:
    """Load tensors and plain values of a torch file to the CPU.

    Raises:
        CheckpointError: the file is of another kind, is damaged, or holds pickled objects.
    """
    refuse_other_files(path)
    try:
        if zipfile.is_zipfile(path):  # torch does not verify the checksums that it writes
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
                scripted = any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
            if damaged is not None:
                raise CheckpointError(
                    f"'{path}' is damaged: the checksum of {damaged[:100]!r} is wrong. {_FETCH} again"
                )
            if scripted:
                raise CheckpointError(
                    f"'{path}' is a TorchScript program, and running code from a weights file is refused. Open it "
                    "where you trust it and save `module.state_dict()` alone"
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch's message advises unsafe loading
        pickled = _PICKLED_CLASS.search(str(error)) if "weights_only" in str(error).lower() else None
        if pickled:
            raise CheckpointError(
                f"'{path}' holds a pickled object ({pickled[1]}), as `torch.save(network)` writes it, and running code "
                "from a weights file is refused. Open it where you trust it and save `module.state_dict()` alone"
            ) from None
        raise CheckpointError(
            f"'{path}' cannot be read as a torch file ({type(error).__name__}): it is damaged or incomplete, or holds "
            f"more than tensors and plain values, which is refused. {_FETCH} again, or save `module.state_dict()` alone"
        ) from None


def load_safetensors_file(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a safetensors file to the CPU.

    Raises:
        CheckpointError: the file is of another kind, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_other_files(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"'{path}' is damaged or incomplete: it cannot be read as safetensors ({type(error).__name__}). "
            f"{_FETCH} again"
        ) from None


def describe_unfit(name: object, value: object, expected: Tensor | None, *, finite: bool = False) -> str:
    """Describe the fault of an entry of a state dict; an empty text if there is none.

    Args:
        expected: the network's tensor with this name, if any; shapes are not compared.
        finite: True refuses NaN and infinity.
    """
    shown = repr(name) if isinstance(name, str) else repr(str(name)[:60])
    if not isinstance(name, str):
        return f"an entry is named by {_a(type(name).__name__)} ({shown}), not by text"
    if not isinstance(value, Tensor):
        return f"{shown} is {_a(type(value).__name__)}, not a tensor"
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        return f"{shown} is {_a('quantized' if value.is_quantized else 'sparse or nested')} tensor, not a dense one"
    if value.device.type == "meta":
        return f"{shown} has a shape and no numbers"
    if expected is None:
        return ""
    kind = str(value.dtype).removeprefix("torch.")
    if expected.is_floating_point() and not value.is_floating_point():
        return f"{shown} is of type {kind}, and the network's numbers are real (float32, say)"
    is_counter = name.endswith("num_batches_tracked")  # averaged networks have fractional counters
    if not expected.is_floating_point() and not is_counter and value.is_floating_point() | value.is_complex():
        return f"{shown} is of type {kind}, and the network's are whole numbers"
    if finite and value.is_floating_point() and not bool(value.float().isfinite().all()):
        lost = int((~value.float().isfinite()).sum())
        return f"{shown} has {lost} of {value.numel()} numbers that are NaN or infinite"
    return ""


def refuse_unfit(path: Path | str, state: Mapping, expected: Mapping[str, Tensor], finite: frozenset[str]) -> None:
    """Raise CheckpointError for the first entry of a state dict that is not a tensor of the network's type.

    Args:
        finite: names of the tensors that must be finite.
    """
    for name, value in state.items():
        fault = describe_unfit(
            name, value, expected.get(name) if isinstance(name, str) else None, finite=name in finite
        )
        if fault:
            raise CheckpointError(f"{path}: weights that cannot be used: {fault}. Use another file, or an earlier one")


def finite_names(network: torch.nn.Module) -> frozenset[str]:
    """Return names of tensors that must be finite: parameters, and the statistics of batch normalisation."""
    running = {name for name, _ in network.named_buffers() if name.endswith(("running_mean", "running_var"))}
    return frozenset(running | {name for name, _ in network.named_parameters()})


def _a(word: str) -> str:
    return f"{'an' if word[:1] in 'aeiou' else 'a'} {word}"

"""Fixtures of all tests: commands in-process in the folder of the test, and small stand-ins for the data sets."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import quick_hydra
import trees

torch.set_num_threads(1)  # small networks; and a busy machine does not make threads wait for each other


@pytest.fixture(scope="session", autouse=True)
def default_sighup_handler() -> None:
    """Restore the default handler of SIGHUP, which nohup replaces and commands respect."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def fast_hydra() -> Iterator[None]:
    """Let Hydra compose configurations faster, see `quick_hydra`; commands in new processes do not."""
    with pytest.MonkeyPatch.context() as patch:
        quick_hydra.speed_up(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """Replace fsync: only a loss of power shows that it is missing, and `test_atomic_files` says when it is called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def cached_entry_points() -> Iterator[None]:
    """Remember the entry points of installed packages, which Lightning looks up for each trainer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))
        yield


@dataclass(frozen=True)
class Finished:
    """Exit code, output and files of a command."""

    code: int
    out: str
    err: str
    outputs: Path

    @property
    def directories(self) -> list[Path]:
        """Run directories with a result."""
        return sorted(path.parent for path in self.outputs.glob("*/*/*/result.json"))

    @property
    def directory(self) -> Path:
        assert len(self.directories) == 1, (self.directories, self.out, self.err)
        return self.directories[0]

    @property
    def result(self) -> dict:
        return json.loads((self.directory / "result.json").read_text())

    @property
    def headline(self) -> dict:
        return next(row for row in self.result["rows"] if row["headline"])["metrics"]


@pytest.fixture
def ltr_train(tmp_path, capsys, monkeypatch):
    """Run ``ltr-train`` in-process with these overrides; outputs go to a folder of the test."""
    from ltr.cli import train_main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def command(*overrides: str, outputs: Path | None = None) -> Finished:
        outputs = outputs or tmp_path / "outputs"
        code = train_main([f"paths.outputs={outputs}", "figures=none", "callbacks.progress=none", *overrides])
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err, outputs)

    return command


@pytest.fixture
def plain(tmp_path, monkeypatch) -> tuple[str, ...]:
    """Overrides that choose a network without batch normalisation."""
    monkeypatch.setenv("LTR_ALLOW", "plain_network")
    config = tmp_path / "configs" / "backbone" / "plain.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("_target_: plain_network.PlainNet\ndropout: 0.0\n")
    return (f"--config-dir={tmp_path / 'configs'}", "backbone=plain")


@pytest.fixture
def run_command(capsys):
    """Run the main function of a command in-process; returns (exit code, standard output, standard error)."""
    from ltr.cli import run_guarded

    def run(main: Callable[[list[str]], None], *arguments: object) -> tuple[int, str, str]:
        code = run_guarded(lambda: main([str(argument) for argument in arguments]))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def ltr_eval(run_command, tmp_path, monkeypatch):
    """Run ``ltr-eval`` in-process, see `run_command`. It writes below the test."""
    from ltr.commands.evaluate import main

    monkeypatch.setenv("LTR_OUTPUTS", str(tmp_path / "outputs"))
    return functools.partial(run_command, main)


@pytest.fixture
def ltr_predict(run_command, tmp_path, monkeypatch):
    """Run ``ltr-predict`` in-process in the folder of the test, see `run_command`."""
    from ltr.commands.predict import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return lambda *arguments: run_command(main, *arguments, "--workers", "0")


@pytest.fixture(scope="session")
def cifar_root() -> Path:
    """A folder with the real CIFAR files; tests that need it are skipped where ``LTR_DATA`` does not point to one."""
    root = Path(os.environ.get("LTR_DATA", "data"))
    if not (root / "cifar-10-batches-py").is_dir():
        pytest.skip("LTR_DATA does not point to the CIFAR files")
    return root


@pytest.fixture(scope="session")
def official_trees(tmp_path_factory) -> Path:
    """A folder with a miniature of every data set that is read from files, in its official layout."""
    return trees.draw_all(tmp_path_factory.mktemp("data sets"))


@pytest.fixture
def small_sources(monkeypatch, put_small_sources):
    """Small data sets instead of the real ones, see `put_small_sources`."""
    put_small_sources(monkeypatch)


@pytest.fixture
def put_small_sources(official_trees) -> Callable[..., None]:
    """A function that replaces the real data sets with small ones.

    Random images in the shapes of CIFAR, MNIST and SVHN, 120 train (or ``train_images`` of CIFAR-100) and 4 test
    images per class; ``paths.data`` holds miniatures of what is read from files.
    """
    from ltr.data import source as source_module
    from ltr.data.sources import cifar, mnist, torchvision_sets

    def small(name: str, classes: int, shape: tuple[int, int, int], train_images: int = 120):
        def make(*, root: str, download: bool = False) -> source_module.Source:
            train, test = classes * train_images, classes * 4
            images, labels = _random_images(classes, shape, train, test)
            return source_module.Source(
                name,
                images,
                labels,
                tuple(f"class {c}" for c in range(classes)),
                {"train": range(train), "test": range(train, train + test)},
            )

        make.__module__ = "ltr.data.sources"
        return make

    def small_mnist(*, root: str, download: bool = False, rgb: bool = False) -> source_module.Source:
        return small("mnist", 10, (28, 28, 3 if rgb else 1))(root=root, download=download)

    small_mnist.__module__ = "ltr.data.sources"

    def put(patch: pytest.MonkeyPatch, train_images: int = 120) -> None:
        patch.setenv("LTR_DATA", str(official_trees))
        patch.setattr(cifar, "cifar10", small("cifar10", 10, (32, 32, 3)))
        patch.setattr(cifar, "cifar100", small("cifar100", 100, (32, 32, 3), train_images))
        patch.setattr(mnist, "mnist", small_mnist)
        patch.setattr(torchvision_sets, "svhn", small("svhn", 10, (32, 32, 3)))

    return put


@functools.cache
def _random_images(classes: int, shape: tuple[int, int, int], train: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images and labels, read-only, whose first channel tells the class."""
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(train) % classes, np.arange(test) % classes])
    images = random.integers(0, 256, (train + test, *shape), dtype=np.uint8)
    images[..., 0] = np.minimum(images[..., 0], (labels * 255 // classes)[:, None, None])  # something to learn
    images.flags.writeable = labels.flags.writeable = False
    return images, labels

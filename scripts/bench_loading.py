"""Images per second and core from JPEG files to random-resized crops, against torchvision; and `ltr-data check`.

    python scripts/bench_loading.py [--images 200] [--rounds 5] [--only loading|check|memory]

The JPEGs (800 x 600, quality 90) are drawn here: smooth colours, shapes and a little noise, so that their size in bytes
is that of photographs. One process and one thread decode them in turn: torchvision's ImageFolder with Pillow transforms
to normalised float32; ltr from the files (with decoding at reduced size, and without); ltr from a packed file of short
side 256 as JPEG and as raw pixels. ltr's crops are uint8: it normalises on the device. Medians of rounds, and of
each round's ratios. Aims: 1.4 times torchvision from files, 4 times packed, and 1.7 times faster checking on two cores.
Beside the ratio of the checks stands how many cores the faster one kept busy.

Memory is what a loading worker has for itself alone (USS) after some batches, in data sets of 1,000 and of 2,700,000
images whose files have the same size; aim: at most 20 MB more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from ltr.data.images.crop import ATTEMPTS, FileCrop
from ltr.data.loaders.files import FileLoader
from ltr.data.packed_images.reading import open_packed
from ltr.data.packed_images.writing import pack
from ltr.data.parallel import cores
from ltr.data.source import ImageFiles, Source
from ltr.randomness import uniforms

SIZE, PACKED = 224, 256
WIDTH, HEIGHT = 800, 600
SIZES, BATCHES = (1000, 2_700_000), 20  # of the memory of workers


def draw(folder: Path, images: int) -> list[str]:
    """Write JPEGs into one class folder and return their paths relative to ``folder``."""
    (folder / "a").mkdir(parents=True)
    paths = []
    for number in range(images):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        fine = Image.fromarray(random.integers(0, 256, (150, 200, 3), dtype=np.uint8))
        smooth = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        texture = fine.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
        mixed = np.asarray(Image.blend(smooth, texture, 0.3)).astype(np.int16)
        noisy = np.clip(mixed + random.normal(0, 4, mixed.shape), 0, 255).astype(np.uint8)
        paths.append(f"a/{number:05d}.jpg")
        Image.fromarray(noisy).save(folder / paths[-1], quality=90)
    return paths


def torchvision_loop(folder: Path) -> Callable[[], None]:
    """Load a crop as most training scripts do in a worker."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    data = ImageFolder(str(folder), transform)

    def loop() -> None:
        for number in range(len(data)):
            data[number]

    return loop


def our_loop(files: ImageFiles, crop: FileCrop) -> Callable[[], None]:
    """Load a batch of uint8 crops as ltr's workers do."""
    pixels = np.empty((len(files), SIZE, SIZE, 3), dtype=np.uint8)
    rounds = iter(range(1_000_000))

    def loop() -> None:
        draws = uniforms(next(rounds), np.arange(len(files)), 4 * ATTEMPTS)
        for number in range(len(files)):
            pixels[number] = crop.read(files.open(number), draws[number])

    return loop


def cpu_seconds(loops: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each loop in each round; loops alternate after a warm-up round for the file cache."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds + 1):
        for name, loop in loops.items():
            started = time.process_time()
            loop()
            if number:
                times[name].append(time.process_time() - started)
    return times


def check_seconds(root: Path, workers: int) -> tuple[float, float]:
    """Return wall and CPU seconds of a whole `ltr-data check` in ``workers`` processes."""
    overrides = ["check", "folder", f"dataset.root={root}", "--workers", str(workers)]
    command = [sys.executable, "-c", "from ltr.cli import data; data()", *overrides]
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu


def compare_checks(folder: Path, paths: list[str], images: int, rounds: int) -> None:
    if cores() < 2:
        print("checking on two cores: there is only one")
        return
    for number in range(images - len(paths)):
        os.link(folder / paths[number % len(paths)], folder / "a" / f"again-{number}.jpg")
    samples = [(check_seconds(folder, 1), check_seconds(folder, 2)) for _ in range(rounds)]
    ratio = statistics.median(one[0] / two[0] for one, two in samples)
    one, two = (statistics.median(pair[column][0] for pair in samples) for column in (0, 1))
    busy = statistics.median(cpu / wall for _, (wall, cpu) in samples)
    count = max(images, len(paths))
    print(
        f"checking {count:,} images: {one:.1f} s on one core, {two:.1f} s on two: {ratio:.2f} x; {busy:.2f} cores busy"
    )


def worker_megabytes(folder: Path, paths: list[str], count: int) -> float:
    """Return the peak private memory of a loading worker with a data set of ``count`` images."""
    files = ImageFiles.from_paths(folder, (paths[number % len(paths)] for number in range(count)))
    rng = np.random.Generator(np.random.Philox(key=0))
    loader = FileLoader(
        files,
        torch.zeros(count, dtype=torch.int64),
        crop=FileCrop(SIZE, random=True),
        device=torch.device("cpu"),
        order=lambda epoch: rng.permutation(count),
        batch_size=32,
        num_workers=2,
        train=True,
    )
    batches = iter(loader)
    for _ in range(BATCHES):
        next(batches)
    samples = [unique_megabytes(child.pid) for child in multiprocessing.active_children() if child.pid is not None]
    del batches
    return max(samples)


def unique_megabytes(process: int) -> float:
    """Return the memory that no other process shares (Linux), in 10^6 bytes."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def compare_memory(folder: Path) -> None:
    """Measure each size in its own process, without leftovers of the other."""
    samples = {}
    for count in SIZES:
        command = [sys.executable, __file__, "--worker-of", str(count), "--folder", str(folder)]
        samples[count] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"a loading worker's own memory at {count:>9,} images: {samples[count]:.1f} MB")
    print(f"more at the larger: {samples[SIZES[1]] - samples[SIZES[0]]:.1f} MB")


def compare_loading(scratch: Path, folder: Path, paths: list[str], rounds: int) -> None:
    files = ImageFiles.from_paths(folder, paths)
    source = Source("drawn", files, np.zeros(len(paths), dtype=np.int64), ("a",), {"train": range(len(paths))})
    loops = {
        "torchvision, files": torchvision_loop(folder),
        "ltr, files, whole": our_loop(files, FileCrop(SIZE, random=True, reduced=False)),
        "ltr, files": our_loop(files, FileCrop(SIZE, random=True)),
    }
    for format in ("jpeg", "raw"):
        to = scratch / f"packed.{format}"
        pack(source, {}, to, size=PACKED, format=format)
        images = open_packed(to).images
        assert isinstance(images, ImageFiles)
        loops[f"ltr, packed {format}"] = our_loop(images, FileCrop(SIZE, random=True))
    size = sum((folder / path).stat().st_size for path in paths) / len(paths)
    print(f"{len(paths)} JPEGs of {WIDTH} x {HEIGHT}, {size / 1e3:.0f} KB each; median of {rounds} rounds")
    samples = cpu_seconds(loops, rounds)
    for title, taken in samples.items():
        # of each round, so that what else runs on the machine strikes both sides
        ratio = statistics.median(reference / rate for reference, rate in zip(samples["torchvision, files"], taken))
        seconds = statistics.median(taken)
        print(f"{title:<22}{len(paths) / seconds:>8.0f} images/s/core{ratio:>7.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check-images", type=int, default=4000, help="number of images that the check decodes")
    parser.add_argument("--only", choices=("loading", "check", "memory"), help="run only one of the three parts")
    parser.add_argument("--worker-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker_of:
        paths = [f"a/{path.name}" for path in sorted((options.folder / "a").iterdir())]
        print(worker_megabytes(options.folder, paths, options.worker_of))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        paths = draw(folder, options.images)
        if options.only in (None, "loading"):
            compare_loading(Path(name), folder, paths, options.rounds)
        if options.only in (None, "memory"):
            compare_memory(folder)
        if options.only in (None, "check"):
            compare_checks(folder, paths, options.check_images, min(options.rounds, 3))


if __name__ == "__main__":
    main()

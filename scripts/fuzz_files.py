"""Damaged files for the commands that read them: results, configurations, checkpoints, packed stores, tables."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from fuzz_cases import Case, run_command

KINDS = ("result", "config", "checkpoint", "packed", "table")
# replacements for a value in a file
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        3.5,
        -1e308,
        1e308,
        10**30,
        2**63,
        "",
        "x",
        "nan",
        "../../x",
        "/etc",
        "\x1b[31m",
        "a\u202eb",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        {"a": {"b": []}},
        ["x"] * 3,
        "${seed}",
        "???",
        "=1+1",
        "<b>",
        "[red]",
        "é" * 200,
        float("nan"),
    ),
    *(
        float("inf"),
        {"_target_": "os.system"},
        {"_target_": "ltr.losses.classification.CrossEntropy"},
        "1e5",
        [1, 2, 3],
    ),
)
RUN = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.precision=fp32", "trainer.accelerator=cpu",
       "trainer.num_workers=0", "figures=none", "callbacks.progress=none")  # fmt: skip
OWN = ("backbone=digits_net", "dataset.image_size=16", "dataset.image_resize=18", "stages=plan", *RUN)
FORMATS = ("table", "markdown", "latex", "csv", "html")


def mutations(kind: str, draw: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """Generate cases of a kind: damage a file, then read it with a command."""
    files = folder / kind
    files.mkdir()
    yield from _MAKERS[kind](draw, files, count)


# -- damage -----------------------------------------------------------------------------------------------------------


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """Truncate, change, repeat or remove a file's bytes."""
    damaged = bytearray(content)
    position = draw.randrange(len(damaged) + 1)
    match draw.randrange(7):
        case 0:
            del damaged[position:]
        case 1 | 2:
            for _ in range(draw.choice((1, 1, 4, 50))):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        case 3:
            damaged[position:position] = draw.randbytes(draw.choice((1, 8, 300)))
        case 4:
            del damaged[position : position + draw.choice((1, 8, 300))]
        case 5:
            damaged[position : position + 200] = bytes(200)
        case _:
            return draw.choice(
                (b"", b"\0" * 64, content + content, b"{}", b"version https://git-lfs.github.com/spec/v1\n")
            )
    return bytes(damaged)


def damaged_values(plain: Any, draw: random.Random) -> Any:
    """Change one or two values of plain data: odd, missing or renamed."""
    changed = copy.deepcopy(plain)
    for _ in range(draw.choice((1, 1, 2))):
        if not isinstance(changed, (dict, list)) or not changed:
            return changed
        node: Any = changed
        while True:
            key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if isinstance(node[key], (dict, list)) and node[key] and draw.random() < 0.8:
                node = node[key]
                continue
            break
        match draw.randrange(6):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[draw.choice(("x", 3, "", "a.b", "name"))] = node.pop(key)
            case 2:
                node[key] = [node[key]]
            case _:
                node[key] = copy.deepcopy(draw.choice(ODD))
    return changed


def _damaged_text(content: bytes, draw: random.Random, read: Callable, write: Callable) -> bytes:
    if draw.random() < 0.25:
        return damaged_bytes(content, draw)
    return write(damaged_values(read(content), draw)).encode("utf-8", "surrogatepass")


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _finished_run(files: Path) -> Path:
    """Return a new copy of one finished run."""
    outputs = files.parent / "run"
    if not outputs.is_dir():
        code, err = run_command("ltr-train", [*RUN, f"paths.outputs={outputs}"])
        if code:
            raise SystemExit(f"the run whose files are to be damaged fails: {err}")
    shutil.copytree(outputs, files / "outputs")
    return next((files / "outputs").glob("*/*/*/result.json")).parent


# -- what reads it ----------------------------------------------------------------------------------------------------


def _results(draw: random.Random, files: Path, count: int) -> Iterator[Case]:
    run = _finished_run(files)
    twin = run.with_name(f"{run.name}-twin")
    shutil.copytree(run, twin)
    for name in ("result.json", "provenance.json", "status.json"):
        if not (run / name).is_file():
            continue
        content, times = (run / name).read_bytes(), count * 4 // 5 if name == "result.json" else count // 10
        for _ in range(times):
            damaged = _damaged_text(content, draw, json.loads, json.dumps)
            shape = draw.choice(FORMATS)
            out = ["--out", str(files / ("config" if shape == "html" else f"report.{shape}"))]
            words = [str(files / "outputs"), "--format", shape, *out]
            if draw.random() < 0.1:
                command, words = "ltr-train", [*RUN, f"paths.outputs={files / 'outputs'}"]
                yield Case(command, tuple(words), prepare=partial(_put, run / name, damaged))
                _put(run / name, content)
            else:
                yield Case("ltr-report", tuple(words), prepare=partial(_put, twin / name, damaged))
        _put(twin / name, content)


def _configs(draw: random.Random, files: Path, count: int) -> Iterator[Case]:
    run = _finished_run(files)
    content = (run / "config.yaml").read_bytes()
    for number in range(count):
        damaged = _damaged_text(content, draw, yaml.safe_load, partial(yaml.safe_dump, allow_unicode=True))
        words: Sequence[str] = ["--out", str(files / "evaluations")]
        words = [str(run), *words, *(["evaluation.top_k=1"] if draw.random() < 0.3 else [])]
        if number % 10 == 9:
            words = [str(run), "dataset=digits", *words[1:]]
        yield Case("ltr-eval", tuple(words), prepare=partial(_put, run / "config.yaml", damaged))


ODD_TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda t: t.to(torch.complex64),
    lambda t: t.to(torch.int8),
    lambda t: t.to(torch.bool),
    lambda t: t * float("nan"),
    lambda t: t.to(torch.float64) * 1e300,
    lambda t: t.to_sparse(),
    lambda t: t.reshape(-1),
    lambda t: t.reshape(-1)[:0],
    lambda t: t.unsqueeze(0),
    lambda t: t.to("meta"),
    lambda t: torch.empty(0),
    lambda t: t.to(torch.float16),
    lambda t: "x",
    lambda t: None,
    lambda t: [1, 2],
)


def _checkpoints(draw: random.Random, files: Path, count: int) -> Iterator[Case]:
    run = _finished_run(files)
    content = (run / "checkpoints" / "final.ckpt").read_bytes()
    whole = torch.load(run / "checkpoints" / "final.ckpt", weights_only=True)
    images = files / "images"
    images.mkdir()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(images / "a.png")
    path = files / "damaged.ckpt"

    def write(damaged: Any) -> None:
        if isinstance(damaged, bytes):
            path.write_bytes(damaged)
        else:
            torch.save(damaged, path)

    for _ in range(count):
        damaged: Any
        way = draw.random()
        if way < 0.2:
            damaged = damaged_bytes(content, draw)
        elif way < 0.5:
            tensors = dict(whole["state_dict"])
            name = draw.choice(sorted(tensors))
            tensors[name] = draw.choice(ODD_TENSORS)(tensors[name])
            if draw.random() < 0.3:
                tensors[draw.choice((5, "x", "", None))] = tensors.pop(draw.choice(sorted(tensors)))
            damaged = {**whole, "state_dict": tensors}
        else:
            described = {key: value for key, value in whole.items() if key != "state_dict"}
            changed = damaged_values(described, draw)
            damaged = {**changed, "state_dict": whole["state_dict"]} if isinstance(changed, dict) else changed
        words = ["ltr-eval", str(path), "--out", str(files / "evaluations")]
        if draw.random() < 0.5:
            words = ["ltr-predict", str(path), str(images), "--out", str(files / "predictions.csv"), "--workers", "0"]
        yield Case(words[0], tuple(words[1:]), prepare=partial(write, damaged))


def _images(files: Path) -> Path:
    random_pixels = np.random.default_rng(0)
    for label in "ab":
        (files / "images" / label).mkdir(parents=True)
        for number in range(10):
            pixels = random_pixels.integers(0, 255, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(files / "images" / label / f"{number}.jpg")
    return files / "images"


def _stores(draw: random.Random, files: Path, count: int) -> Iterator[Case]:
    images, store, damaged = _images(files), files / "store.arrow", files / "damaged.arrow"
    root = f"dataset.root={images}"
    words = ["pack", "folder", root, "--size", "18", "--to", str(store), "--workers", "1"]
    code, err = run_command("ltr-data", words)
    if code:
        raise SystemExit(f"a store cannot be made: {err}")
    content = store.read_bytes()
    numbers = np.frombuffer(content[: len(content) // 8 * 8], np.int64)
    small = np.flatnonzero((numbers >= 0) & (numbers < 2 * len(content)))
    for _ in range(count):
        if draw.random() < 0.4:  # offsets and lengths
            changed = numbers.copy()
            for _ in range(draw.choice((1, 1, 3))):
                changed[draw.choice(small)] = draw.choice((-1, 0, 1, 7, 2**31, 2**33, 2**62, -(2**62), len(content)))
            damaged_content = changed.tobytes() + content[len(changed) * 8 :]
        else:
            damaged_content = damaged_bytes(content, draw)
        packed = ["dataset=folder", root, f"dataset.packed={damaged}", *OWN, f"paths.outputs={files / 'outputs'}"]
        if draw.random() < 0.3:
            command, arguments = "ltr-data", ["check", "folder", root, f"dataset.packed={damaged}", "--workers", "1"]
        else:
            command, arguments = "ltr-train", packed if draw.random() < 0.8 else [*packed, "stages=auto"]
        yield Case(command, tuple(arguments), prepare=partial(_put, damaged, damaged_content))


CELLS = (
    *("", " ", "nan", "None", "a,b", '"', "../x.jpg", "/etc/passwd", "/dev/stdin", "a/0.jpg\0", "=1+1", "x" * 5000),
    *("\ufeff", "é", "e\u0301", "\u202e", "\x1b[31m", "a/", ".", "..", "~", "a//0.jpg", "./a/0.jpg", "a\\0.jpg"),
    *("train", "Test", "0", "-1", "1e9", "true"),
)
HEADERS = (
    *("path,label", "path, label", "Path,Label", "label", "path", "path,label,split", "path,path", "", "path;label"),
    *("path\tlabel", "\ufeffpath,label", "path,label,", "label,path", '"path","label"'),
)


def _tables(draw: random.Random, files: Path, count: int) -> Iterator[Case]:
    table = _images(files) / "table.csv"
    run = _finished_run(files)
    rows = [[f"{label}/{number}.jpg", label] for label in "ab" for number in range(10)]
    for _ in range(count):
        cells = [list(row) for row in rows]
        header = "path,label"
        for _ in range(draw.choice((0, 1, 1, 3))):
            match draw.randrange(6):
                case 0:
                    header = draw.choice(HEADERS)
                case 1:
                    cells.append(draw.choice(cells))
                case 2:
                    cells[draw.randrange(len(cells))].append(draw.choice(CELLS))
                case 3:
                    cells[draw.randrange(len(cells))] = draw.choice(([], [""], ["a/0.jpg"]))
                case _:
                    row = cells[draw.randrange(len(cells))]
                    row[:] = [draw.choice(CELLS), *row[1:]] if draw.random() < 0.5 else [*row[:1], draw.choice(CELLS)]
        content = ("\n".join([header, *(",".join(row) for row in cells)]) + "\n").encode("utf-8", "surrogatepass")
        if draw.random() < 0.3:
            content = damaged_bytes(content, draw)
        command, arguments = draw.choice((
            ("ltr-data", ["check", "table", f"dataset.file={table}", "--workers", "1"]),
            ("ltr-train", ["dataset=table", f"dataset.file={table}", *OWN, f"paths.outputs={files / 'outputs'}"]),
            ("ltr-predict", [str(run), str(table), "--out", str(files / "predictions.csv"), "--workers", "0"]),
        ))  # fmt: skip
        yield Case(command, tuple(arguments), prepare=partial(_put, table, content))


_MAKERS = {"result": _results, "config": _configs, "checkpoint": _checkpoints, "packed": _stores, "table": _tables}

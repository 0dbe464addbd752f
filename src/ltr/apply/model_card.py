"""Model card of an exported network: README.md with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ltr.escaping import markdown, one_line
from ltr.evaluation.metrics import METRICS
from ltr.names import counted

_LISTED = 20  # class names
_LICENCE = "Choose a licence before you publish the weights, one that the training images and initial weights permit."
CITED = "@software{ltr,"  # in every card
_CITATION = """@software{ltr,
  title = {ltr: experiments in long-tailed, open-set and fine-grained recognition},
  author = {{The ltr authors}},
  version = {VERSION}
}"""


def model_card(description: Mapping[str, Any], result: Mapping[str, Any] | None, name: str, limited: str = "") -> str:
    """Return the card in Markdown: metadata, use, data, results, training and citation.

    Args:
        description: description of the checkpoint, see `ltr.methods.core.checkpoint.describe`.
        result: content of the run's ``result.json``; None: the card has no results.
        name: name of the model.
        limited: reason why the run is limited, see `ltr.report.limits`; empty without one.
    """
    parts = [
        _metadata(description),
        f"# {markdown(name)}\n\n{_introduction(description)}",
        _use(description, name),
        _data(description, result),
        _results(result, limited),
        _training(description, result),
        f"## Licence\n\n{_LICENCE} Then set `license` at the top of this file.",
        _citation(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(description: Mapping[str, Any]) -> str:
    """Return the YAML at the top; the data set's name is quoted as in JSON, which is YAML."""
    dataset = json.dumps(one_line(description["dataset"].get("name", "unknown")))
    return f"""---
library_name: timm
pipeline_tag: image-classification
license: other  # choose one before publishing
license_name: not-chosen-yet
tags: [image-classification, timm, long-tailed-recognition, {dataset}]
---"""


def _introduction(description: Mapping[str, Any]) -> str:
    facts = description["facts"]
    channels, height, width = facts["image_shape"]
    backbone = description["settings"]["backbone"]
    return (
        f"A classifier of {counted(len(facts['class_names']), 'class', 'classes')}: timm's "
        f"{markdown(backbone.get('name', '?'))} with a linear classifier, for images of {height} x {width} pixels "
        f"and {counted(channels, 'channel')}. Trained with ltr."
    )


def _use(description: Mapping[str, Any], name: str) -> str:
    names = [markdown(class_name) for class_name in description["facts"]["class_names"]]
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    few = [count for count in description["facts"]["class_counts"] if count < 20]
    rare = f" {counted(len(few), 'class', 'classes')} had fewer than 20 training images." if few else ""
    published = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "NAME"  # characters that the hub allows
    return (
        "## Intended use\n\n"
        f"Images of these classes: {', '.join(names[:_LISTED])}{more}. The network assigns every image to one of them, "
        f"also an image of something else.{rare} On images of another source (camera, place, season) it may be less "
        "accurate than on the test images: measure it on your images before you rely on it.\n\n"
        "```python\nimport timm\n\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  '
        f"# published: hf-hub:OWNER/{published}\n"
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n```"
    )


def _data(description: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    counts = description["facts"]["class_counts"]
    text = (
        f"## Data\n\n{markdown(description['dataset'].get('name', 'unknown'))}: "
        f"{sum(counts):,} training images, {max(counts):,} of the most frequent and {min(counts):,} of the rarest class"
    )
    data = (result or {}).get("data") or {}
    if data:
        text += f"; split {markdown(data.get('split', 'unnamed'))} with {data.get('test_images', 0):,} test images"
    return f"{text}."


def _results(result: Mapping[str, Any] | None, limited: str) -> str:
    if result is None:
        return "## Results\n\nUnknown: the checkpoint was exported without its run's result.json."
    rows = [row for row in result["rows"] if row["headline"]] or result["rows"][:1]
    lines = ["| protocol | split | weights | metric | value |", "|---|---|---|---|---:|"]
    for row in rows:
        for metric in METRICS.columns("console", row["protocol"], row["metrics"]):
            value = row["metrics"][metric.name]
            shown = "–" if value is None else f"{100 * value:.1f} %" if metric.is_fraction else f"{value:.4g}"
            cells = (row["protocol"], row["split"], row["selection"], metric.title, shown)
            lines.append(f"| {' | '.join(markdown(cell) for cell in cells)} |")
    note = ["", f"**Limited run**: {markdown(limited)}."] if limited else []
    on_test = [] if rows[0]["selection"] != "best_test" else ["", "The weights were **selected on the test images**."]
    return "\n".join(
        ["## Results", "", *lines, *note, *on_test, "", f"One run, seed {result['config'].get('seed', '?')}."]
    )


def _training(description: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    settings = description["settings"]
    config = (result or {}).get("config") or {}
    backbone = settings["backbone"]
    start = "weights of a file" if backbone.get("weights") else "timm's pretrained weights"
    initial = start if backbone.get("weights") or backbone.get("pretrained") else "random weights"
    facts = {
        "method": config.get("method.name"),
        "loss": str(settings["loss"]["_target_"]).rpartition("/")[2].rpartition(".")[2],
        "sampler": str(settings["sampler"]["_target_"]).rpartition("/")[2].rpartition(".")[2],
        "initial weights": initial,
        "epochs of the last stage": settings["epochs"],
        "batch size": settings["batch_size"],
        "precision": settings["precision"],
        "run": (result or {}).get("run_hash"),
    }
    lines = [f"- {name}: {markdown(value)}" for name, value in facts.items() if value is not None]
    return "\n".join(["## Training", "", *lines])


def _citation() -> str:
    from ltr import __version__

    return (
        "## Citation\n\nCite the papers of the data set, of the method and of the initial weights, and ltr:\n\n"
        f"```bibtex\n{_CITATION.replace('VERSION', __version__)}\n```"
    )

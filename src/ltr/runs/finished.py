"""Look-up of the finished result of a command, which is valid if its data and files have not changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltr.configuration.targets import instantiate, locate
from ltr.data.packed_images.reading import read_source
from ltr.data.source import Source
from ltr.errors import ConfigError, DataError
from ltr.runs.keys import with_code
from ltr.runs.named_files import changed_files, named_files
from ltr.runs.processes.device import LIGHTNING_PRECISION, resolve_device, resolve_precision
from ltr.runs.result import PROVENANCE, Outcome, read_result, run_directory
from ltr.runs.store import RECORD
from ltr.runs.training.incidents import INCIDENTS, excess_of

# entries of a run's configuration that `find_result` adds or replaces
IDENTITIES = ("code", "data", "files", "trainer")


@dataclass(frozen=True)
class RunStatus:
    """State of a run before it begins.

    Attributes:
        config: configuration with the identity of code outside ltr, and with the fingerprint and metadata of the data
            or the digests of files if the usual directory holds the result of the same command on other ones, and with
            today's precision instead of ``auto`` if it holds that of another one.
        outcome: the result, if it is still valid.
        source: the data, if they had to be read.
    """

    config: dict[str, Any]
    outcome: Outcome | None = None
    source: Source | None = None


def find_result(
    config: Mapping[str, Any],
    print_line: Callable[[str], None],
    source: Source | None = None,
    read: Callable[[Mapping[str, Any]], Source] = instantiate,
) -> RunStatus:
    """Look for the run's result; with ``resume=never`` it is not valid, and stays until the new run begins.

    A result is valid if the data still have its fingerprint and metadata (such as a taxonomy), and the files that the
    configuration names, such as ``backbone.weights``, their content, if ``trainer.precision=auto`` is still the
    precision that it was computed in, and if its trainings replaced no more unreadable images and skipped no more steps
    than this command allows. For the comparison the source is read again (labels, paths and sizes of image files, or
    arrays), except data whose content is fixed by published digests. If data or files have changed, a message says so,
    and the run gets a separate directory, so that the earlier result is kept.

    Args:
        config: the checked, resolved, plain configuration.
        source: the data set of ``config``, if it has been read already.
        read: builds a source from its config.

    Raises:
        DataError: the result or the data cannot be read.
    """
    named = with_code(config)
    directory = run_directory(named)
    if config["stages"] == "plan" or (result := read_result(directory)) is None:
        return RunStatus(named, source=source)
    if (precision := _other_precision(config["trainer"], result, directory)) is not None:
        now = {**config, "trainer": {**config["trainer"], "precision": precision}}
        print_line(
            f"the run in {directory} was computed in another precision than trainer.precision=auto chooses here "
            f"({precision}): its result stays there; this run is that of trainer.precision={precision}"
        )
        return find_result(now, print_line, source, read)
    changed: dict[str, Any] = {}
    if "data" not in named:
        source = _current_source(named["dataset"], source, read, directory)
        if source is not None and (other := _changed_data(source, result, directory, config["paths"], print_line)):
            changed["data"] = other
    if "files" not in named and (differing := _changed_files(config, result, directory, print_line)):
        changed["files"] = differing
    if changed:
        named |= changed
        print_line(f"the result in {directory} stays there; today's run is {run_directory(named)}")
        directory = run_directory(named)
        result = read_result(directory)
    if config["resume"] == "never":
        return RunStatus(named, source=source)
    if result is None or excess_of_result(result, config["trainer"]):  # the run says so when it begins
        return RunStatus(named, source=source)
    return RunStatus(named, Outcome(directory, result, reused=True), source)


def _other_precision(trainer: Mapping[str, Any], result: Mapping[str, Any], directory: Path) -> str | None:
    """Return what ``trainer.precision=auto`` chooses today, if the result was computed in another precision."""
    if trainer["precision"] != "auto":
        return None
    used = result.get("precision")
    try:
        used = used or json.loads((directory / PROVENANCE).read_text(encoding="utf-8")).get("precision")
        now = resolve_precision("auto", resolve_device(trainer["accelerator"]))
    except (OSError, ValueError, AttributeError, ConfigError):  # without its GPU, the run could not be repeated here
        return None
    return now if used in LIGHTNING_PRECISION and now != used else None


def excess_of_result(result: Mapping[str, Any], trainer: Mapping[str, Any]) -> str | None:
    """Return which incidents of a result's trainings today's limits do not allow; None if there are none."""
    return excess_of({stage["name"]: stage.get(INCIDENTS) for stage in result.get("stages") or []}, trainer)


def _current_source(
    dataset: Mapping[str, Any],
    source: Source | None,
    read: Callable[[Mapping[str, Any]], Source],
    directory: Path,
) -> Source | None:
    """Return the current source; None if its content cannot have changed."""
    if source is not None:
        return source
    if dataset.get("packed") is None and getattr(locate(dataset["source"]["_target_"]), "fixed_content", False):
        return None
    try:
        return read_source(dataset, read)
    except DataError as error:
        raise DataError(
            f"{error}\nThe finished run of this command on the earlier data is kept in {directory}"
        ) from error


def _changed_data(
    source: Source,
    result: Mapping[str, Any],
    directory: Path,
    paths: Mapping[str, Any],
    print_line: Callable[[str], None],
) -> dict[str, Any]:
    """Return today's fingerprint and metadata of the data, as far as they differ from the result's, and say so."""
    changed: dict[str, Any] = {}
    fingerprint = fingerprint_of(result, Path(paths["stages"]))
    if fingerprint is None:
        print_line(f"the run in {directory} has no fingerprint of its data: its result is used without a comparison")
    elif fingerprint != source.fingerprint:
        changed["fingerprint"] = source.fingerprint
        print_line(
            f"the data have changed since the run in {directory} was finished (labels, classes or files; "
            f"fingerprint {fingerprint[:12]} then, {source.fingerprint[:12]} now)"
        )
    current, stored = source.metadata_digests(), (result.get("data") or {}).get("metadata")
    if stored is None:
        if current and fingerprint is not None:
            print_line(
                f"the run in {directory} has no digests of its data's {', '.join(current)}: its result is used without "
                "a comparison of these"
            )
        return changed
    differing = sorted(key for key in {*stored, *current} if stored.get(key) != current.get(key))
    if differing:
        changed["metadata"] = {key: current.get(key) for key in differing}
        print_line(
            f"the data have changed since the run in {directory} was finished ({', '.join(differing)}, which are not "
            "part of the fingerprint)"
        )
    return changed


def _changed_files(
    config: Mapping[str, Any], result: Mapping[str, Any], directory: Path, print_line: Callable[[str], None]
) -> dict[str, str]:
    """Return today's digests of the files that have changed since the result was written, and say so."""
    current = named_files(config)
    stored = (result.get("data") or {}).get("files")
    if stored is None:
        if current:
            print_line(
                f"the run in {directory} has no digests of its files ({', '.join(current)}): its result is used "
                "without a comparison"
            )
        return {}
    differing = changed_files(stored, current)
    for key in differing:
        print_line(
            f"{key}: the file has changed since the run in {directory} was finished (digest {stored[key][:12]} then, "
            f"{current[key][:12]} now)"
        )
    return {key: current[key] for key in differing}


def fingerprint_of(result: Mapping[str, Any], stages: Path) -> str | None:
    """Return the fingerprint of the data of a result; None if it was not stored.

    Args:
        result: content of ``result.json``.
        stages: the store, whose records hold the fingerprint for runs of older versions.
    """
    fingerprint = (result.get("data") or {}).get("fingerprint")
    if fingerprint is not None:
        return str(fingerprint)
    for stage in result.get("stages") or []:
        try:
            record = json.loads((stages / str(stage["key"]) / RECORD).read_text(encoding="utf-8"))
            return str(record["spec"]["source"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None

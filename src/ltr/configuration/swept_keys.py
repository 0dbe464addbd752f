"""Keys that only some configs of a sweep have: ``-m method=erm,crt method.classifier.epochs=1`` sets them where they
exist, and says where they do not.

A key that no job of the sweep has stays a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from omegaconf import DictConfig, OmegaConf

from ltr.configuration.parsing import Parsed, parse
from ltr.configuration.swept_configs import as_written, jobs_of

Compose = Callable[[list[str]], DictConfig]


def split_applicable(
    command: Sequence[str], job: Sequence[str], is_choice: Callable[[str], bool], compose: Compose
) -> tuple[list[str], list[str]]:
    """Return a job's overrides without those whose keys only other jobs of its sweep have, and a notice for each.

    Args:
        command: the overrides of the whole sweep.
        job: those of the job, which do not compose.
        is_choice: whether a key chooses a config.
        compose: returns the configuration of overrides; raises where there is none.

    Returns:
        The unchanged overrides and no notices if omitting some does not help.
    """
    swept = [one for one in parse(command)[0] if one.is_sweep and is_choice(one.key)]
    parsed = parse(job)[0]
    keys = {one.key for one in swept}
    values = [one for one in parsed if "." in one.key and one.key not in keys and _sets_a_value(one)]
    rest = [one for one in parsed if one not in values]
    missing = _missing([one.text for one in rest], values, compose)
    if not swept or not missing:
        return list(job), []
    fixed = [one.text for one in rest if one.key not in keys]
    chosen = [one.text for one in rest if one.key in keys]
    elsewhere: set[str] = set()
    for choices in jobs_of(swept):
        wanted = [one for one in missing if one.key not in elsewhere]
        if not wanted:
            break
        absent = {one.key for one in _missing([*fixed, *choices], values, compose)}
        elsewhere |= {one.key for one in wanted} - absent
    if any(one.key not in elsewhere for one in missing):
        return list(job), []
    lacking = " ".join(chosen)
    notices = [f"note: {as_written(one.text)} is left out with {lacking}, which has no such key" for one in missing]
    return [one.text for one in parsed if one not in missing], notices


def _sets_a_value(one: Parsed) -> bool:
    override = one.override
    return not (one.adds or override.is_delete() or override.is_hydra_override() or override.package is not None)


def _missing(base: list[str], values: Iterable[Parsed], compose: Compose) -> list[Parsed]:
    """Return the overrides whose keys a configuration lacks; a nested choice among them may bring keys of others."""
    left = list(values)
    texts = list(base)
    while True:
        config = compose(texts)
        present = [one for one in left if _has(config, one.key)]
        if not present:
            return left
        texts += [one.text for one in present]
        left = [one for one in left if one not in present]


def _has(config: DictConfig, key: str) -> bool:
    node, _, last = key.rpartition(".")
    parent = OmegaConf.select(config, node, throw_on_resolution_failure=False)
    return OmegaConf.is_dict(parent) and last in parent

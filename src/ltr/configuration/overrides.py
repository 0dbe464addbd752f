"""What is wrong with a command line: every mistake, not only the first that Hydra stops at.

Called only after Hydra has refused the command, so that a correct command pays nothing for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltr.configuration.allowed import check_values
from ltr.configuration.pages import conf_directory, leaves
from ltr.configuration.targets import check_targets
from ltr.errors import nearest

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


def explain(overrides: list[str], config_dir: str | None, config_name: str) -> list[str]:
    """One sentence for every override that cannot be applied, and for every value that is not allowed.

    Args:
        overrides: the command line without flags, e.g. ``["method=crt", "loss.betta=1"]``.
        config_dir: the user's own folder of pages (``--config-dir``), or None.
        config_name: the primary page.

    Returns:
        Sentences; empty when nothing is found to be wrong.
    """
    parser = OverridesParser.create()
    mistakes: list[str] = []
    parsed: list[tuple[str, Override]] = []
    for text in overrides:
        try:
            parsed.append((text, parser.parse_override(text)))
        except HydraException as error:
            first_line = str(error).strip().splitlines()[0]
            hint = "" if "=" in text else " (an override is written key=value)"
            mistakes.append(f"{text}: not an override{hint}: {first_line}")

    already = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            search = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
            mistakes += _explain_parsed(parsed, hydra.config_loader, search, config_name)
    finally:
        GlobalHydra.instance().clear()
        if already is not None:
            GlobalHydra.instance().initialize(already)
    return mistakes


def _explain_parsed(
    parsed: list[tuple[str, Override]], loader: ConfigLoader, search: list[str], config_name: str
) -> list[str]:
    mistakes: list[str] = []
    choices: list[str] = []
    values: list[tuple[str, Override]] = []
    groups = set(loader.list_groups(""))
    for text, override in parsed:
        key = override.key_or_group
        if override.is_hydra_override():
            continue
        if key in groups:
            option = override.value()
            options = loader.get_group_options(key, ObjectType.CONFIG)
            wanted = [str(value) for value in override.sweep_iterator()] if override.is_sweep_override() else [option]
            unknown = [value for value in wanted if value is not None and str(value) not in options]
            for value in unknown:
                mistakes.append(f"{text}: there is no {key} '{value}'; there are: {', '.join(options)}"
                                f"{nearest(str(value), options)}")  # fmt: skip
            if not unknown and not override.is_sweep_override():
                choices.append(text)
        else:
            values.append((text, override))
    try:
        composed = compose(config_name=config_name, overrides=search + choices)
    except (HydraException, OmegaConfBaseException) as error:
        return [*mistakes, str(error).strip()]
    return mistakes + _explain_values(values, composed, groups, search + choices, config_name)


def _explain_values(
    values: list[tuple[str, Override]], composed: DictConfig, groups: set[str], base: list[str], config_name: str
) -> list[str]:
    mistakes: list[str] = []
    good: list[str] = []
    known = [key for key, _ in leaves(OmegaConf.to_container(composed, resolve=False))]
    prefixes = {key.rsplit(".", depth)[0] for key in known for depth in range(1, key.count(".") + 1)}
    for text, override in values:
        key = override.key_or_group
        if key in known or key in prefixes:
            if override.is_add():
                mistakes.append(f"{text}: '{key}' exists already; write it without '+'")
            elif not override.is_sweep_override():
                good.append(text)
        elif override.is_add() or override.is_force_add():
            good.append(text)
        elif "=" not in text and not override.is_delete():
            mistakes.append(f"{text}: an override is written key=value")
        else:
            same_name = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
            hint = nearest(key, [*known, *groups]) or (f". Did you mean '{same_name[0]}'?" if same_name else "")
            mistakes.append(f"{text}: there is no key '{key}'{hint}")
    try:
        checked = compose(config_name=config_name, overrides=base + good)
        container = OmegaConf.to_container(checked, resolve=True)
        assert isinstance(container, dict)
        mistakes += check_values(container) + check_targets(container)
    except (HydraException, OmegaConfBaseException) as error:
        mistakes.append(str(error).strip().replace("\n", " "))
    return mistakes

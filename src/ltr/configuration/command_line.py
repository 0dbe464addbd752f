"""The command line of ``ltr-train``: flags and overrides, in any order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ltr.configuration.unknown_configs import MIXED_UP
from ltr.errors import nearest, nearest_name

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SWITCHES = {
    "--help": "-h",
    "--version": "",
    "--hydra-help": "",
    "--resolve": "",
    "--run": "-r",
    "--multirun": "-m",
    "--shell-completion": "-sc",
}
WITH_VALUE = {
    "--cfg": "-c",
    "--info": "-i",
    "--config-name": "-cn",
    "--config-path": "-cp",
    "--config-dir": "-cd",
    "--package": "-p",
    "--allow": "",
}
_CHOICES = {"--cfg": ("job", "hydra", "all"), "--info": _INFO}
_MODES = ("--cfg", "--info", "--multirun", "--run", "--shell-completion")
_PATHS = ("--config-dir", "--config-path")  # what follows other flags holds no "=": that is an override
_MULTIRUN, _SINGLE = "hydra.mode=MULTIRUN", "hydra.mode=RUN"
_PLACED = ("+sweep=", "+launcher=")  # groups that are null in the primary config
_COMPLETION = ("install=", "uninstall=", "query=")
# groups and keys that users of other programs write as flags
_KEYS = (*MIXED_UP, "trainer", "evaluation", "logger", "features", "tune", "debug", "seed", "name", "batch_size")
_LONG = {short: flag for flag, short in {**SWITCHES, **WITH_VALUE}.items() if short}


@dataclass
class CommandLine:
    """A command line as typed: flags and overrides.

    Attributes:
        flags: flags of Hydra in their long form, ``--flag`` or ``--flag=value``.
        overrides: all other arguments, usually ``key=value``.
        values: the flags that take a value.
        allowed: packages of ``--allow``.
        mistakes: one sentence for every flag that is unknown or misused.
    """

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    allowed: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    @property
    def for_hydra(self) -> list[str]:
        """Arguments with flags first, because Hydra ignores overrides between flags."""
        return [*self.flags, *(["--"] if any(o.startswith("-") for o in self.overrides) else []), *self.overrides]

    @property
    def sweep(self) -> bool:
        """Return whether the command is a sweep: by the flag, or by a config of the group sweep."""
        chosen = [o for o in self.overrides if o == _MULTIRUN or (is_sweep_config(o) and o != "sweep=null")]
        return "--multirun" in self.flags or bool(chosen)

    @property
    def config_dir(self) -> str | None:
        """The user's own folder of configs, if it exists."""
        folder = self.values.get("--config-dir")
        return folder if folder and os.path.isdir(folder) else None

    @property
    def config_name(self) -> str:
        """The primary config."""
        return self.values.get("--config-name", "train")


def is_sweep_config(override: str) -> bool:
    """Return whether an override chooses a config of the group sweep, ``sweep=CONFIG`` or ``+sweep=CONFIG``."""
    return override.removeprefix("+").startswith("sweep=")


def read(argv: Sequence[str]) -> CommandLine:
    """Parse a command line into flags and overrides; `CommandLine.mistakes` lists invalid flags."""
    line = _split_arguments(list(argv))
    if line.config_name == CommandLine().config_name:  # its defaults have a place for the config, a user's may not
        line.overrides = [one.removeprefix("+") if one.startswith(_PLACED) else one for one in line.overrides]
    modes = [flag for flag in _MODES if flag in {flag_text.partition("=")[0] for flag_text in line.flags}]
    if len(modes) > 1:
        line.mistakes.append(f"{' '.join(modes)}: only one of these flags can be carried out")
    if "--multirun" in line.flags and _SINGLE in line.overrides:
        line.mistakes.append(f"--multirun {_SINGLE}: a sweep and a single run at once; leave one out")
    if "--run" in line.flags and line.sweep:
        line.mistakes.append("--run: sweep=CONFIG and hydra.mode=MULTIRUN ask for a sweep; leave one out")
    if "--resolve" in line.flags and "--cfg" not in line.values and "--help" not in line.flags:
        line.mistakes.append("--resolve: goes with --cfg, e.g. --cfg job --resolve")
    if "--shell-completion" in line.flags and not any(one.startswith(_COMPLETION) for one in line.overrides):
        line.mistakes.append("--shell-completion: needs install=, uninstall= or query= and a shell, e.g. install=bash")
    if "--package" in line.values and "--cfg" not in line.values:
        line.mistakes.append("--package: goes with --cfg, e.g. --cfg job --package optimizer")
    folder = line.values.get("--config-dir")
    if folder and not os.path.isdir(folder):
        line.mistakes.append(f"--config-dir {folder}: there is no such folder")
    return line


def _split_arguments(rest: list[str]) -> CommandLine:
    line = CommandLine()
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            line.overrides += rest
            break
        if not argument.startswith("-") or argument == "-":
            line.overrides.append(argument)
            continue
        name, equals, value = argument.partition("=")
        flag = _LONG.get(name, name)
        if flag in SWITCHES:
            if equals:
                line.mistakes.append(f"{argument}: {flag} takes no value")
            else:
                line.flags.append(flag)
        elif flag in WITH_VALUE:
            if not equals:
                value = _next_value(flag, rest)
            _store_value(line, flag, value)
            if flag == "--allow" and (more := _further_packages(rest)):
                line.mistakes.append(_one_each(" ".join([value, *more]), [value, *more]))
        else:
            _note_unknown_flag(line, argument, rest)
    return line


def _note_unknown_flag(line: CommandLine, argument: str, rest: list[str]) -> None:
    """Note an unknown flag; one that is rather a key of the configuration becomes an override, for further mistakes."""
    name, equals, value = argument.partition("=")
    known = [*SWITCHES, *WITH_VALUE]
    key = name.lstrip("-").replace("-", "_")
    has_value = bool(equals) or bool(rest and "=" not in rest[0] and not rest[0].startswith("-"))
    is_key = "." in name or key in _KEYS
    is_guess = has_value and name.startswith("--") and nearest_name(name, known, cutoff=0.75) is None
    if not (is_key or is_guess):
        line.mistakes.append(f"{name}: there is no such flag; there are: {', '.join(known)}{nearest(name, known)}")
        return
    if has_value and not equals:
        value = rest.pop(0)
    written = f"{key}={value if has_value else 'VALUE'}"
    if has_value:
        line.overrides.append(written)
    advice = f"keys are written without dashes and with '=': {written}"
    if equals:
        advice += ". A sweep of Weights & Biases passes them so with ${args_no_hyphens} in its command"
    line.mistakes.append(f"{name}: {advice if is_key else f'there is no such flag; {advice}'}")


def _next_value(flag: str, rest: list[str]) -> str:
    """Return the value of a flag; ``--info`` without a value means ``all``."""
    if flag == "--info" and not (rest and rest[0] in _INFO):
        return "all"
    if not rest or rest[0].startswith("-") or (flag not in _PATHS and "=" in rest[0]):
        return ""
    return rest.pop(0)


def _further_packages(rest: list[str]) -> list[str]:
    """Take off what follows the value of ``--allow`` and is neither a flag nor an override."""
    packages = []
    while rest and all(part.isidentifier() for part in rest[0].split(".")):
        packages.append(rest.pop(0))
    return packages


def wrong_package(prefix: str) -> str | None:
    """Return the reason why a prefix is invalid for ``--allow``; None for the dotted name of a package."""
    names = [name.strip() for name in prefix.split(",")]
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        return f"--allow {prefix}: the dotted name of a package is needed, e.g. --allow my_project"
    return _one_each(prefix, names) if len(names) > 1 else None


def _one_each(prefix: str, names: Sequence[str]) -> str:
    """Return the message for several packages behind one ``--allow``."""
    typed = " ".join(f"--allow {name}" for name in names)
    return f"--allow {prefix}: one package is allowed at a time. Type {typed}, or set LTR_ALLOW={','.join(names)}"


def _store_value(line: CommandLine, flag: str, value: str) -> None:
    choices = _CHOICES.get(flag)
    if not value:
        example = f", one of {', '.join(choices)}" if choices else ", e.g. --allow my_project" * (flag == "--allow")
        line.mistakes.append(f"{flag}: needs a value{example}")
    elif choices and value not in choices:
        line.mistakes.append(f"{flag} {value}: allowed is one of: {', '.join(choices)}{nearest(value, choices)}")
    elif flag == "--allow":
        if mistake := wrong_package(value):
            line.mistakes.append(mistake)
        else:
            line.allowed.append(value)
    else:
        line.values[flag] = value
        line.flags.append(f"{flag}={value}")

"""Random overrides of known keys: right ones are carried out, wrong ones are named, and nothing ends in a traceback."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ltr.cli import train_main
from ltr.configuration.allowed import shown
from ltr.configuration.pages import conf_directory, leaves, mappings


def default_configuration() -> tuple[dict, dict]:
    """The default configuration, resolved, and the pages that it is made of."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        config = compose("train", return_hydra_config=True)
    pages = {group: page for group, page in config.hydra.runtime.choices.items() if page and "/" not in group}
    with_hydra_gone = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    return OmegaConf.to_container(with_hydra_gone, resolve=True), pages


CONFIG, PAGES = default_configuration()
FIXED = ("stages", "paths.outputs")  # so that a right command writes nothing
VALUES = {
    key: value for key, value in leaves(CONFIG) if key not in FIXED and re.fullmatch(r"[\w./\[\], -]+", shown(value))
}
RULES = {
    f"{path}.{key}".removeprefix("."): rule
    for path, node in mappings(CONFIG)
    for key, rule in node.get("_allowed_", {}).items()
    if key in node and key not in FIXED
}
GROUPS = sorted(group for group in PAGES if group not in ("debug", "experiment") and "@" not in group)


def wrong_value(key: str) -> st.SearchStrategy[str]:
    rule = RULES[key]
    values = ["nonsense", "[1,2]", "{a:1}", "-1e9", "nan"]
    if isinstance(rule, str):
        values += ["true", ""] + ["null"] * (not rule.endswith("or null")) + ["1.5"] * rule.startswith("int")
    return st.sampled_from(values)


right = st.sampled_from(sorted(VALUES)).map(lambda key: (key, f"{key}={shown(VALUES[key])}", True))
out_of_range = st.sampled_from(sorted(RULES)).flatmap(
    lambda key: wrong_value(key).map(lambda value: (key, f"{key}={value}", False))
)
misspelt = st.sampled_from(sorted(VALUES)).map(lambda key: (f"{key}x", f"{key}x=1", False))
unfinished = st.sampled_from(sorted(VALUES)).map(lambda key: (key, key, False))
unknown_page = st.sampled_from(GROUPS).map(lambda group: (group, f"{group}={PAGES[group]}x", False))
target = st.sampled_from(["loss", "backbone", "dataset.source"]).map(
    lambda group: (f"{group}._target_", f"{group}._target_=os.system", False)
)


def commands(*kinds: st.SearchStrategy, shortest: int) -> st.SearchStrategy[list]:
    return st.lists(st.one_of(*kinds), min_size=shortest, max_size=14, unique_by=lambda override: override[0])


def carried_out(command: list[tuple[str, str, bool]], folder: Path) -> tuple[int, str]:
    """(exit code, standard error) of a command that only plans; it must not end in a traceback, nor write anything."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = train_main([*(text for _, text, _ in command), f"paths.outputs={folder}", "stages=plan"])
    assert "Traceback" not in err.getvalue()
    assert "not a mistake that ltr foresees" not in err.getvalue()
    assert not folder.exists()
    return code, err.getvalue()


# a command takes a good part of a second: no search for a smaller failing one
few = settings(
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@settings(few, max_examples=7)
@given(commands(right, out_of_range, misspelt, unfinished, unknown_page, target, shortest=7))
def test_every_wrong_override_is_named(tmp_path_factory, command):
    code, err = carried_out(command, tmp_path_factory.getbasetemp() / "random")
    wrong = [text for _, text, is_right in command if not is_right]
    assert code == (2 if wrong else 0)
    named = [line.strip() for line in err.splitlines()]
    for text in wrong:
        assert any(line.startswith(text.partition("=")[0]) for line in named), (text, err)


@pytest.mark.slow
@settings(few, max_examples=2)
@given(commands(right, shortest=10))
def test_a_command_that_repeats_what_holds_anyway_is_carried_out(tmp_path_factory, command):
    assert carried_out(command, tmp_path_factory.getbasetemp() / "random") == (0, "")

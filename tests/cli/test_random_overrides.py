"""Random overrides: right ones are carried out, wrong ones are named, and nothing ends in a traceback or hangs.

Commands stop where training would begin: they plan. The long tests are 2,000 overrides, others in every run.
"""

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
from ltr.configuration.allowed import as_text
from ltr.configuration.configs import conf_directory, config_names, leaves, mappings, read_config
from ltr.configuration.nested import nested_choices
from ltr.configuration.resolvers import register
from ltr.configuration.rules import read_rules


def default_configuration() -> tuple[dict, dict]:
    """The default configuration, resolved, and the configs that it is made of."""
    GlobalHydra.instance().clear()
    with nested_choices(), initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        config = compose("train", return_hydra_config=True)
    configs = {group: node for group, node in config.hydra.runtime.choices.items() if node and "/" not in group}
    with_hydra_gone = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    return OmegaConf.to_container(with_hydra_gone, resolve=True), configs


register()
CONFIG, CHOICES = default_configuration()
FIXED = ("stages", "paths.outputs")  # so that a right command writes nothing
VALUES = {
    key: value for key, value in leaves(CONFIG) if key not in FIXED and re.fullmatch(r"[\w./\[\], -]+", as_text(value))
}
RULES = {
    f"{path}.{key}".removeprefix("."): rule
    for path, node in mappings(CONFIG)
    for key, rule in read_rules(path, node, CONFIG).items()
    if key in node and key not in FIXED
}
GROUPS = sorted(group for group in CHOICES if group not in ("debug", "experiment") and "@" not in group)


def wrong_value(key: str) -> st.SearchStrategy[str]:
    rule = RULES[key]
    values = ["nonsense", "{a:1}", "-1e9", "nan"] + ["[1,2]"] * (not str(rule).startswith("list of"))
    if isinstance(rule, str):
        values += ["true", ""] + ["null"] * (not rule.endswith("or null")) + ["1.5"] * rule.startswith("int")
    return st.sampled_from(values)


right = st.sampled_from(sorted(VALUES)).map(lambda key: (key, f"{key}={as_text(VALUES[key])}", True))
out_of_range = st.sampled_from(sorted(RULES)).flatmap(
    lambda key: wrong_value(key).map(lambda value: (key, f"{key}={value}", False))
)
misspelt = st.sampled_from(sorted(VALUES)).map(lambda key: (f"{key}x", f"{key}x=1", False))
unfinished = st.sampled_from(sorted(VALUES)).map(lambda key: (key, key, False))
unknown_config = st.sampled_from(GROUPS).map(lambda group: (group, f"{group}={CHOICES[group]}x", False))
target = st.sampled_from(["loss", "backbone", "dataset.source"]).map(
    lambda group: (f"{group}._target_", f"{group}._target_=os.system", False)
)


def commands(*kinds: st.SearchStrategy, shortest: int) -> st.SearchStrategy[list]:
    return st.lists(st.one_of(*kinds), min_size=shortest, max_size=14, unique_by=lambda override: override[0])


# what a person, a shell or a script may leave in the place of a value
ODD_VALUES = [
    *("", "null", "nan", "inf", "-1", "0", "1e400", "1e3", "007", "0x10", "1_000", "true", "True", "on", "9" * 30),
    *(
        "[]",
        "{}",
        "[1,[2]]",
        "[null]",
        "{a: {b: 1}}",
        "{a}",
        "'a b'",
        '"',
        "'",
        "(",
        ")",
        "]",
        "}",
        "[1",
        ":",
        "=",
        "@",
    ),
    *("${", "${}", "${nope}", "${.nope}", "${loss}", "${oc.env:NO_SUCH}", "${oc.env:HOME}", "${now:}", "${a:b:c}"),
    *(
        "${oc.select:seed,1}",
        "${oc.decode:x}",
        "${hydra:runtime.cwd}",
        "???",
        "1,2",
        "range(3)",
        "choice(1,2)",
        "sort(3)",
    ),
    *("interval(0,1)", "glob(*)", "int(1)", "float(x)", "str(1)", "nope(1)", "shuffle(1,2)", "extend_list(1)"),
    *("../x", "/", "/dev/null", "/proc/1/x", "~", "a/../../b", "-", "--", "\\", "\\,", "%s", "{0}", "<b>", "x" * 3000),
    *("é", "\u202e", "\U0001f642", "a\nb", "\t", " ", "\udcff", "\x1b[31m"),
]
PATHS = ("paths.outputs", "paths.stages", "paths.data")  # their values are folders of the test
ALL_CHOICES = sorted(
    (group, config)
    for group in [*GROUPS, "debug"]
    for config in config_names(group)
    if not config.startswith(("inat", "gpu"))
)
KEYS_OF_CONFIGS = sorted(
    {
        f"{group}.{key}"
        for group, config in ALL_CHOICES
        for key, _ in leaves({k: v for k, v in read_config(f"{group}/{config}").items() if k != "defaults"})
        if key.rpartition(".")[2] not in ("download", "pretrained") and f"{group}.{key}" not in PATHS
    }
)
BAD_FLAGS = ["--sed", "-x", "--cfg", "--cfg=nope", "--config-dir=/nope", "--config-name=nope", "--allow", "--allow=a b",
             "--resolve", "-", "--run=1", "--info=nope", "--package", "---"]  # fmt: skip

chosen = st.sampled_from(ALL_CHOICES).map(lambda choice: (choice[0], f"{choice[0]}={choice[1]}", True))
odd = st.tuples(st.sampled_from(sorted({*VALUES, *KEYS_OF_CONFIGS, *GROUPS})), st.sampled_from(ODD_VALUES)).map(
    lambda pair: (pair[0], f"{pair[0]}={pair[1]}", True)
)
removed = st.sampled_from(sorted({*VALUES, *GROUPS})).map(lambda key: (key, f"~{key}", True))
added = st.tuples(st.sampled_from(["+", "++"]), st.sampled_from(sorted(VALUES)), st.sampled_from(ODD_VALUES)).map(
    lambda part: (part[1], f"{part[0]}{part[1]}={part[2]}", True)
)
of_hydra = st.tuples(
    st.sampled_from(
        ["hydra.run.dir", "hydra.verbose", "hydra.mode", "hydra/launcher", "hydra/sweeper", "hydra.job.id"]
    ),
    st.sampled_from(ODD_VALUES),
).map(lambda pair: (pair[0], f"{pair[0]}={pair[1]}", True))
letters = st.text("abcdelnorstu_.=[]{}(),:/@~+$*'\"\\ 0123456789-é", min_size=1, max_size=14)
# no key of ours has such a name
babble = letters.filter(lambda text: text[0] not in "-").map(lambda text: (text, f"zz{text}", False))
flag = st.sampled_from(BAD_FLAGS).map(lambda text: (text, text, False))


def run_and_capture(arguments: list[str]) -> tuple[int, str]:
    """Return (exit code, standard error) of a command that writes UTF-8 bytes as to a terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = train_main(arguments)
        out.flush()
    err.flush()
    message = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "Traceback" not in message
    assert "not a mistake that ltr foresees" not in message
    return code, message


def planned(command: list[tuple[str, str, bool]], folder: Path) -> tuple[int, str]:
    """Return (exit code, standard error) of a command that only plans, without a traceback and without files."""
    code, err = run_and_capture([*(text for _, text, _ in command), f"paths.outputs={folder}", "stages=plan"])
    assert not folder.exists()
    return code, err


# a command takes a good part of a second: no search for a smaller failing one
few = settings(
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


ALL_KINDS = commands(right, out_of_range, misspelt, unfinished, unknown_config, target, shortest=7)


def check_that_wrong_ones_are_named(folder: Path, command: list[tuple[str, str, bool]]) -> None:
    code, err = planned(command, folder)
    wrong = [text for _, text, is_right in command if not is_right]
    assert code == (2 if wrong else 0)
    named = [line.strip() for line in err.splitlines()]
    for text in wrong:
        assert any(line.startswith(text.partition("=")[0]) for line in named), (text, err)


@pytest.mark.slow
@settings(few, max_examples=7)
@given(ALL_KINDS)
def test_every_wrong_override_is_named(tmp_path_factory, command):
    check_that_wrong_ones_are_named(tmp_path_factory.getbasetemp() / "random", command)


@pytest.mark.slow
@settings(few, max_examples=2)
@given(commands(right, shortest=10))
def test_overrides_that_repeat_defaults_are_accepted(tmp_path_factory, command):
    assert planned(command, tmp_path_factory.getbasetemp() / "random") == (0, "")


# few at a time: what is found late shows only where nothing is wrong before
ANYTHING = st.lists(
    st.one_of(chosen, chosen, odd, odd, odd, removed, added, of_hydra, babble, flag),
    min_size=1,
    max_size=6,
    unique_by=lambda override: override[0],
)


def check_that_it_is_explained(folder: Path, command: list[tuple[str, str, bool]]) -> None:
    # a flag that lacks its value takes the word behind it, which may be a right one
    command = sorted(command, key=lambda one: one[1] in ("--allow", "--cfg"))
    # first, so that an override of the same key comes after it
    code, err = run_and_capture(
        ["stages=plan", f"paths.outputs={folder}", f"paths.data={folder / 'data'}", *(text for _, text, _ in command)]
    )
    assert code in (0, 1, 2), (code, err)
    if any(not is_right for _, _, is_right in command):
        assert code == 2, err
    if code:
        assert "error: " in err
        assert len(err) < 20_000
    else:
        assert "error" not in err


@pytest.mark.slow
@settings(few, max_examples=16)
@given(ANYTHING)
def test_random_overrides_are_executed_or_explained(tmp_path_factory, command):
    check_that_it_is_explained(tmp_path_factory.getbasetemp() / "anything", command)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("commands_of_a_kind", "check"),
    [(ALL_KINDS, check_that_wrong_ones_are_named), (ANYTHING, check_that_it_is_explained)],
    ids=["every wrong one is named", "each is carried out or explained"],
)
def test_a_thousand_random_overrides_are_executed_or_explained(tmp_path_factory, commands_of_a_kind, check):
    seen: list[str] = []

    @settings(few, max_examples=20, derandomize=False, print_blob=True)
    @given(commands_of_a_kind)
    def some(command):
        seen.extend(text for _, text, _ in command)
        check(tmp_path_factory.getbasetemp() / "many", command)

    while len(seen) < 1000:
        some()

"""Random command lines of ``ltr-train``: valid, invalid and improbable ones."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ltr.configuration.allowed import as_text
from ltr.configuration.configs import conf_directory, config_names, leaves, mappings
from ltr.configuration.nested import NestedLoader
from ltr.configuration.resolvers import register
from ltr.configuration.rules import read_rules

METHODS = ("erm", "crt", "lws", "rkd_classification", "m2m", "sla", "background_splitting", "ncm", "tau_norm")
# of the harness, or so that nothing is trained, downloaded or started
FIXED = ("stages", "paths", "download", "pretrained", "devices", "resume")
# values that a person, a shell or a script may leave by mistake
ODD = (
    *("", "null", "nan", "inf", "-inf", "-1", "0", "1e400", "1e3", "1e-320", "007", "0x10", "1_000", "true", "on"),
    *("9" * 30, "[]", "{}", "[1,[2]]", "[null]", "{a: {b: 1}}", "{a}", "'a b'", '"', "'", "(", "]", "}", "[1", ":"),
    *("=", "@", "${", "${}", "${nope}", "${.nope}", "${loss}", "${seed}", "${oc.env:NO_SUCH}", "${now:}", "${a:b:c}"),
    *("${oc.select:seed,1}", "${oc.decode:x}", "${hydra:runtime.cwd}", "???", "1,2", "range(3)", "choice(1,2)"),
    *("interval(0,1)", "glob(*)", "int(1)", "float(x)", "nope(1)", "shuffle(1,2)", "extend_list(1)", "../x", "/"),
    *("/dev/null", "/dev/stdin", "/proc/1/x", "~", "a/../../b", "-", "--", "\\", "\\,", "%s", "{0}", "<b>", "[red]"),
    *("é", "\u202e", "\U0001f642", "a\nb", "\t", " ", "\udcff", "\x1b[31m", "x" * 3000, "ldam", "adamw", "resnet20"),
)
FLAGS = ("--sed", "-x", "--cfg", "--cfg=nope", "--config-dir=/nope", "--config-name=nope", "--allow", "--allow=a b",
         "--resolve", "-", "--run=1", "--info=nope", "--package", "---")  # fmt: skip
OF_HYDRA = ("hydra.run.dir", "hydra.verbose", "hydra.mode", "hydra/launcher", "hydra/sweeper", "hydra.job.id",
            "hydra.launcher", "hydra.sweeper", "hydra.job.name", "hydra.output_subdir", "hydra.sweep.subdir",
            "hydra.job.chdir", "hydra.callbacks", "hydra.searchpath", "hydra.job_logging", "hydra.help.template",
            "hydra.callbacks.x._target_", "hydra.launcher._target_", "hydra.job.env_set.A")  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One argument of a command line: its key, its text, and whether it is certainly invalid."""

    key: str
    text: str
    is_nonsense: bool = False


@dataclass(frozen=True)
class Known:
    """Keys and choices of a method's configuration.

    Attributes:
        values: of its keys, as they are written on a command line.
        rules: of its keys, see `ltr.configuration.rules`.
        nodes: its nested choices, and the groups that they are of.
        groups: its groups, with the config that is chosen.
    """

    values: dict[str, str]
    rules: dict[str, Any]
    nodes: dict[str, str]
    groups: dict[str, str]


def known_of(method: str) -> Known:
    """Return the keys and choices of a method's composed configuration."""
    GlobalHydra.instance().clear()
    data = {"background_splitting": "digits_bg"}.get(method, "digits_lt")
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        loader = NestedLoader(hydra.config_loader.get_search_path())
        config = loader.load_configuration("train", [f"method={method}", f"dataset={data}"], RunMode.RUN)
    choices = {group: name for group, name in config.hydra.runtime.choices.items() if name}
    plain = _without_hydra(config)
    values = {
        key: as_text(value)
        for key, value in leaves(plain)
        if not set(key.split(".")) & set(FIXED) and re.fullmatch(r"[\w./\[\], -]+", as_text(value))
    }
    rules = {
        f"{path}.{key}".removeprefix("."): rule
        for path, node in mappings(plain)
        for key, rule in read_rules(path, node, plain).items()
        if key in node and not {*path.split("."), key} & set(FIXED)
    }
    nodes = {node: key.partition("@")[0] for node, key in loader.nodes.items() if not node.startswith("hydra")}
    groups = {group: name for group, name in choices.items() if not re.search("[@/]", group) and group != "recipe"}
    return Known(values, rules, nodes, groups)


def _without_hydra(config: DictConfig) -> dict[str, Any]:
    register()  # a data set's values may refer to those of pretrained weights
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return OmegaConf.to_container(plain, resolve=True)  # type: ignore[return-value]


class CommandLines:
    """Generator of random command lines.

    Args:
        draw: of everything that is random here.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.known = {method: known_of(method) for method in METHODS}
        self.kinds: dict[str, tuple[int, Callable[[Known], Part]]] = {
            "right": (3, self.right),
            "chosen": (2, self.chosen),
            "odd": (4, self.odd),
            "out of range": (2, self.out_of_range),
            "misspelt": (2, self.misspelt),
            "removed": (3, self.removed),
            "added": (4, self.added),
            "package": (3, self.package),
            "nested": (4, self.nested),
            "rules": (2, self.rules),
            "hydra": (2, self.of_hydra),
            "swept": (2, self.swept),
            "flag": (1, self.flag),
            "babble": (1, self.babble),
        }

    def next(self) -> tuple[list[Part], bool]:
        """Return a command line, and whether it is a sweep."""
        method = self.draw.choice(METHODS)
        known = self.known[method]
        parts = [Part("method", f"method={method}"), Part("dataset", f"dataset={known.groups['dataset']}")]
        weights = [weight for weight, _ in self.kinds.values()]
        makers = [maker for _, maker in self.kinds.values()]
        for _ in range(self.draw.choice((1, 1, 1, 2, 2, 3, 5))):
            part = self.draw.choices(makers, weights)[0](known)
            if part.key not in {one.key for one in parts} and part.key.partition(".")[0] not in FIXED:
                parts.append(part)
        return parts, self.draw.random() < 0.08

    def _key(self, known: Known) -> str:
        return self.draw.choice(sorted(known.values))

    def right(self, known: Known) -> Part:
        key = self._key(known)
        return Part(key, f"{key}={known.values[key]}")

    def chosen(self, known: Known) -> Part:
        group = self.draw.choice(sorted(set(known.groups) - {"method", "dataset", "paths"}))
        names = [name for name in config_names(group) if not name.startswith(("gpu", "wandb"))]
        return Part(group, f"{group}={self.draw.choice(names)}")

    def odd(self, known: Known) -> Part:
        key = self.draw.choice([self._key(known), self.draw.choice(sorted({*known.groups, *known.nodes, "debug"}))])
        return Part(key, f"{key}={self.draw.choice(ODD)}")

    def out_of_range(self, known: Known) -> Part:
        key = self.draw.choice(sorted(known.rules))
        rule = known.rules[key]
        values = ["nonsense", "{a:1}", "-1e9", "nan", "[[x]]"]
        if isinstance(rule, str):
            values += ["true"] + ["null"] * (not rule.endswith("or null")) + ["1.5"] * rule.startswith("int")
        return Part(key, f"{key}={self.draw.choice(values)}", is_nonsense=True)

    def misspelt(self, known: Known) -> Part:
        key = f"{self._key(known)}{self.draw.choice('xyz_')}"
        return Part(key, f"{key}=1", is_nonsense=True)

    def removed(self, known: Known) -> Part:
        nodes = {key.rpartition(".")[0] for key in known.values} - {""}
        key = self.draw.choice(sorted({*known.values, *known.groups, *nodes}))
        if self.draw.random() < 0.2:
            return Part(key, f"~{key}x", is_nonsense=True)
        return Part(key, f"~{key}" + ("=nonsense" if self.draw.random() < 0.2 else ""))

    def added(self, known: Known) -> Part:
        plus, value = self.draw.choice(("+", "++")), self.draw.choice(ODD)
        if self.draw.random() < 0.4:
            key = f"{self.draw.choice(('zz', 'b.c', 'a.b.loss', 'trainer.zz', 'evaluation.zz', 'loss.zz', 'zz.loss'))}"
            return Part(key, f"{plus}{key}=1", is_nonsense=True)
        key = self._key(known)
        return Part(key, f"{plus}{key}={value}")

    def package(self, known: Known) -> Part:
        group = self.draw.choice(("loss", "optimizer", "sampler", "strategy", "augment", "head", "method", "trainer"))
        name = self.draw.choice([*config_names(group), "nonsense"])
        package = self.draw.choice(("b.c", "nowhere", "method.nothing", "method", "_global_", "", *sorted(known.nodes)))
        nowhere = package in ("b.c", "nowhere")
        text = f"{self.draw.choice(('', '+', '++', '~'))}{group}@{package}={name}"
        return Part(f"{group}@{package}", text, is_nonsense=nowhere or name == "nonsense")

    def nested(self, known: Known) -> Part:
        if not known.nodes or self.draw.random() < 0.2:
            key = self.draw.choice(("method.classifier.optimizer", "method.teacher", "dataset.source", "dataset.split"))
            return Part(key, f"{key}={self.draw.choice(('adamw', 'digits', '3', 'null', '[]'))}")
        node = self.draw.choice(sorted(known.nodes))
        plus, names = self.draw.choice(("", "", "+", "++")), config_names(known.nodes[node])
        if self.draw.random() < 0.3:
            return Part(node, f"{plus}{node}={self.draw.choice(names)}x", is_nonsense=True)
        return Part(node, f"{plus}{node}={self.draw.choice(names)}")

    def rules(self, known: Known) -> Part:
        key = self.draw.choice(sorted(known.rules))
        node, _, last = key.rpartition(".")
        path = f"{node}._allowed_".removeprefix(".")
        value = self.draw.choice(("[1]", "x", "null", "'(-inf, inf)'", "{}"))
        text = self.draw.choice((f"~{path}", f"~{path}.{last}", f"++{path}.{last}={value}", f"{path}.{last}={value}",
                                 f"{path}={value}", f"++{path}={value}"))  # fmt: skip
        return Part(path, text, is_nonsense=True)

    def of_hydra(self, known: Known) -> Part:
        key = self.draw.choice(OF_HYDRA)
        return Part(key, f"{self.draw.choice(('', '', '+', '++', '~'))}{key}={self.draw.choice(ODD)}")

    def swept(self, known: Known) -> Part:
        key = self.draw.choice([*sorted(known.rules), *sorted(known.nodes)])
        value = known.values.get(key, "sgd")
        return Part(
            key, f"{key}={self.draw.choice((f'{value},{value}', f'{value},x', 'choice(x)', 'x,y', 'range(1,3)'))}"
        )

    def flag(self, known: Known) -> Part:
        text = self.draw.choice(FLAGS)
        return Part(text, text, is_nonsense=True)

    def babble(self, known: Known) -> Part:
        letters = "abcdelnorstu_.=[]{}(),:/@~+$*'\"\\ 0123456789-é"
        text = "zz" + "".join(self.draw.choices(letters, k=self.draw.randrange(1, 14)))
        return Part(text, text, is_nonsense=True)

"""Options of the classes and functions that configs name: default, rule and meaning, read from the source.

An option is a keyword-only argument of the constructor (or function) in a ``_target_``. Its type gives the rule, its
signature the default, and the ``Args`` of the docstring the meaning. A method declares its options in a class of its
own, ``Options = <Name>Options``, with a docstring under each field. Nothing is imported, so that configurations are
checked and explained without torch.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ltr.configuration.annotations import in_words, rule_of
from ltr.identity import path_of

_ROOT = Path(__file__).parents[1]
_TYPES = {"Annotated": Annotated, "Any": Any, "Callable": Callable, "Collection": Collection, "Literal": Literal,
          "Mapping": Mapping, "Sequence": Sequence, "bool": bool, "dict": dict, "float": float, "int": int,
          "list": list, "str": str, "tuple": tuple}  # fmt: skip
# parsing is the larger part of reading options, so modules are cut into statements beforehand
_TOP_LEVEL = re.compile(r"^[A-Za-z_@]", re.MULTILINE)
_DEFINES = re.compile(r"(?:class|def) (?P<defined>\w+)|(?P<assigned>\w+) = |from (?P<module>[\w.]+) import ")
_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*): (?P<meaning>.*)$")
_ELSEWHERE = re.compile(r"^see `([\w.]+)`\.?$")
_OTHERS = re.compile(r"See `([\w.]+)` for the other arguments")


class Required:
    """Default of a required option."""


@dataclass(frozen=True)
class Option:
    """One option of a class or function that a config names.

    Attributes:
        default: default value; `Required` if a config must set the option.
        rule: rule in the grammar of `ltr.configuration.allowed`; None: any value of the type.
        kind: type in words.
        meaning: one line of text; '' without documentation.
        nested: options of a mapping whose keys are declared, by name.
    """

    name: str
    default: Any
    rule: str | list | None
    kind: str
    meaning: str
    nested: Mapping[str, Option] | None = None

    @property
    def value(self) -> Any:
        """The default as a config holds it: a list instead of a tuple."""
        return list(self.default) if isinstance(self.default, tuple) else self.default

    @property
    def takes_config(self) -> bool:
        """True if its value is a group of keys, such as a config that the defaults list of another one chooses."""
        return "a group of keys" in self.kind


@functools.cache
def options_of(target: str) -> Mapping[str, Option]:
    """Return the options of a ``_target_`` of ltr by name; {} for code outside ltr and for an unknown target."""
    module, _, name = path_of(target).rpartition(".")
    source = _source(module)
    return {} if source is None else source.options(name)


@functools.cache
def fields_of(path: str) -> Mapping[str, Option]:
    """Return the fields of a declaration of ltr, a class with a docstring under each field, by name.

    Args:
        path: import path of the class.
    """
    module, _, name = path.rpartition(".")
    source = _source(module)
    return {} if source is None else source.fields(name)


def rules_of_target(target: Any) -> dict[str, str | list]:
    """Return the rules of the options of a ``_target_`` by name."""
    options = options_of(target) if isinstance(target, str) else {}
    return {name: option.rule for name, option in options.items() if option.rule is not None}


@functools.cache
def _source(module: str) -> _Source | None:
    if not f"{module}.".startswith("ltr."):
        return None
    path = _ROOT.joinpath(*module.split(".")[1:])
    file = next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)
    return None if file is None else _Source(module, file.read_text(encoding="utf-8"))


class _Source:
    """A module's source: its classes, functions, assignments and what it imports from ltr."""

    def __init__(self, module: str, text: str) -> None:
        self.module = module
        self._text = text
        self._parts: dict[str, str] = {}  # name -> the source that defines it, parsed when first used
        self._statements: dict[str, ast.stmt] = {}
        self._imports: dict[str, tuple[str, str]] = {}
        starts = [match.start() for match in _TOP_LEVEL.finditer(text)]
        for start, end in zip(starts, [*starts[1:], len(text)]):
            match = _DEFINES.match(text, start)
            if match is None:
                continue
            if match["module"] is None:
                self._parts[match["defined"] or match["assigned"]] = text[start:end]
                continue
            for statement in _parsed(text[start:end]):
                if isinstance(statement, ast.ImportFrom) and statement.module:
                    names = {alias.asname or alias.name: (statement.module, alias.name) for alias in statement.names}
                    self._imports |= names

    def statement(self, name: str) -> ast.stmt | None:
        """Return the class, function or assignment of a name."""
        if name in self._parts and name not in self._statements:
            # a part that ends inside a string cannot be parsed alone
            for statement in _parsed(self._parts[name]) or ast.parse(self._text).body:
                assigned = statement.targets[0] if isinstance(statement, ast.Assign) else None
                if getattr(statement, "name", None) == name or (isinstance(assigned, ast.Name) and assigned.id == name):
                    self._statements[name] = statement
        return self._statements.get(name)

    def where(self, name: str) -> tuple[_Source, str] | None:
        """Return the source that defines a name, and the name there; None for what ltr does not define."""
        if name in self._parts:
            return self, name
        module, _, last = name.rpartition(".")
        imported, imported_name = self._imports.get(name, (module, last))
        source = _source(imported)
        return None if source is None else source.where(imported_name)

    def bases(self, name: str) -> Iterator[tuple[_Source, ast.ClassDef]]:
        """Yield a class and its base classes in ltr, the nearest first."""
        defined = self.where(name)
        statement = None if defined is None else defined[0].statement(defined[1])
        if defined is None or not isinstance(statement, ast.ClassDef):
            return
        yield defined[0], statement
        for base in statement.bases:
            yield from defined[0].bases(ast.unparse(base))

    def options(self, name: str) -> dict[str, Option]:
        """Return the options of a class or function: the fields of its declaration, or its arguments."""
        for source, base in self.bases(name):
            for member in base.body:
                if isinstance(member, ast.Assign) and ast.unparse(member.targets[0]) == "Options":
                    declared = source.where(ast.unparse(member.value))
                    return {} if declared is None else declared[0].fields(declared[1])
                if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                    return self.arguments(name)
        return self.arguments(name)

    def arguments(self, name: str) -> dict[str, Option]:
        """Return the keyword-only arguments of a function or of a class's constructor."""
        statement = self.statement(name)
        if isinstance(statement, ast.FunctionDef):
            return self._of_function(statement, [(self, ast.get_docstring(statement) or "")])
        bases = list(self.bases(name))
        documents = [(source, ast.get_docstring(base) or "") for source, base in bases]
        for source, base in bases:
            for member in base.body:
                if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                    return source._of_function(member, documents)
        return {}

    def fields(self, name: str) -> dict[str, Option]:
        """Return the fields of a declaration, with those of its base classes; a field's docstring stands under it."""
        options: dict[str, Option] = {}
        for source, declared in reversed(list(self.bases(name))):
            for field, below in zip(declared.body, [*declared.body[1:], None]):
                if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                    continue
                if ast.unparse(field.annotation).startswith("ClassVar"):  # no field of a dataclass
                    continue
                is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                meaning = " ".join(str(below.value.value).split()) if is_text else ""  # type: ignore[union-attr]
                option = source._option(field.target.id, field.annotation, field.value, meaning)
                options[option.name] = option
        return options

    def _of_function(self, function: ast.FunctionDef, documents: list[tuple[_Source, str]]) -> dict[str, Option]:
        arguments = zip(function.args.kwonlyargs, function.args.kw_defaults)
        options = {
            argument.arg: self._option(argument.arg, argument.annotation, default, _meaning(argument.arg, documents))
            for argument, default in arguments
        }
        for names in _OTHERS.findall(documents[0][1]):
            defined = documents[0][0].where(names)
            further = {} if defined is None else defined[0].arguments(defined[1])
            # an option that both declare may be documented in one of them only
            options = {
                name: replace(option, meaning=further[name].meaning)
                if not option.meaning and name in further
                else option
                for name, option in options.items()
            }
            options |= {name: option for name, option in further.items() if name not in options}
        return options

    def _option(self, name: str, annotation: ast.expr | None, default: ast.expr | None, meaning: str) -> Option:
        nested = None
        if isinstance(annotation, ast.Name):
            bases = [base.name for _, base in self.bases(annotation.id)]
            defined = self.where(annotation.id)
            if defined is not None and "Options" in bases[1:]:
                nested = defined[0].fields(defined[1])
        hint = self._evaluated(annotation) if annotation is not None else Any
        value = Required if default is None else self._evaluated(default)
        return Option(name, value, rule_of(hint), in_words(hint), meaning, nested)

    def _evaluated(self, expression: ast.expr) -> Any:
        """Return the value of an annotation or a default; Any for what cannot be known without an import."""
        try:
            return eval(ast.unparse(expression), {"__builtins__": {}}, _Names(self))
        except Exception:
            return Any


def _parsed(text: str) -> list[ast.stmt]:
    """Return the statements of a part of a module; [] if it cannot be parsed alone."""
    try:
        return ast.parse(text).body
    except SyntaxError:
        return []


class _Names(dict):
    """Names in an annotation or a default of a module: types, and constants that ltr assigns."""

    def __init__(self, source: _Source) -> None:
        super().__init__(_TYPES)
        self.source = source

    def __missing__(self, name: str) -> Any:
        defined = self.source.where(name)
        statement = None if defined is None else defined[0].statement(defined[1])
        if defined is None or not isinstance(statement, ast.Assign):
            return Any
        return defined[0]._evaluated(statement.value)


def _meaning(name: str, documents: Sequence[tuple[_Source, str]]) -> str:
    """Return the description of an argument in the first docstring that has one."""
    for source, document in documents:
        meaning = args_of(document).get(name)
        if meaning is None:
            continue
        elsewhere = _ELSEWHERE.match(meaning)
        defined = source.where(elsewhere[1]) if elsewhere else None
        if defined is None:
            return meaning
        statement = defined[0].statement(defined[1])
        text = (ast.get_docstring(statement) or "") if isinstance(statement, ast.ClassDef | ast.FunctionDef) else ""
        return _meaning(name, [(defined[0], text)]) or meaning
    return ""


@functools.cache
def args_of(docstring: str) -> Mapping[str, str]:
    """Return the entries of a docstring's ``Args`` by name, each in one line."""
    entries: dict[str, str] = {}
    is_inside = False
    names: list[str] = []
    for line in docstring.splitlines():
        if not line.startswith(" "):
            is_inside = line == "Args:" or (is_inside and not line)
            continue
        if not is_inside:
            continue
        match = _ENTRY.match(line[4:])
        if match is not None:
            names = match["names"].split(", ")
            entries |= dict.fromkeys(names, match["meaning"].strip())
        else:
            entries |= {name: f"{entries[name]} {line.strip()}" for name in names}
    return entries

"""Methods that a base class leaves to its subclasses, so that a class of the user's that lacks one is refused early."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

_MARK = "__left_to_subclasses__"
_Function = TypeVar("_Function", bound=Callable)


def left_to_subclasses(*unless: str) -> Callable[[_Function], _Function]:
    """Mark a method of a base class that subclasses must define.

    Args:
        unless: methods of the base class that call it; a subclass that replaces one of them need not define it.
    """

    def mark(function: _Function) -> _Function:
        setattr(function, _MARK, unless)
        return function

    return mark


@functools.lru_cache(maxsize=1024)
def unwritten_methods(kind: type) -> str | None:
    """Return a sentence that names the methods that a class lacks; None for a complete class."""
    names, bases = [], []
    for name in dir(kind):
        callers = getattr(getattr(kind, name, None), _MARK, None)
        if callers is None:
            continue
        base = next(one for one in kind.__mro__ if name in one.__dict__)
        if all(getattr(kind, caller) is getattr(base, caller) for caller in callers):
            names.append(f"{name}()")
            bases.append(base.__name__)
    if not names:
        return None
    return (
        f"{kind.__module__}.{kind.__qualname__} does not define {' and '.join(names)}, which {bases[0]} leaves to its "
        f"subclasses. Write {'it' if len(names) == 1 else 'them'}; {bases[0]} documents arguments and result"
    )

r"""Declared parents as formulas in plain text: ``p(z_t | x_{1:t-1}, z_{1:t-1})``.

A formula is derived at the middle frame of an unrolled network (`models.structure.parents`): ranges that begin at its
first frame are written as "from 1", ranges that end at its last frame as "to T".
"""

from __future__ import annotations

from collections.abc import Iterable

from models.structure.parents import FRAMES, Node, Parents, frames_of

__all__ = ["conditional", "factorisation", "outside_time", "ranges", "symbols"]

_LONG = 101
"""Frames of the network in which declared parents are expanded: more than any of them reaches back."""


def ranges(nodes: Iterable[Node], frames: int = FRAMES) -> list[str]:
    """Symbols of variables around the middle frame t, with consecutive frames combined to one symbol.

    Example:
        >>> ranges([("x", s) for s in range(7)] + [("z", 2), ("v", -1)])
        ['x_{1:T}', 'z_{t-1}', 'v']
        >>> ranges([("x", 3), ("z", 0), ("z", 1), ("z", 4), ("z", 5), ("z", 6)])
        ['x_t', 'z_{1:t-2}', 'z_{t+1:T}']
    """
    variables = list(nodes)
    listed = []
    for name in dict.fromkeys(name for name, _ in variables):
        for first, last in _runs(sorted(s for other, s in variables if other == name)):
            listed.append(name if first < 0 else f"{name}_{_subscript(first, last, frames)}")
    return listed


def symbols(parents: Iterable[str]) -> list[str]:
    """Declared parents as symbols of a formula.

    Example:
        >>> symbols(("x[:t]", "z[t-1]", "x[t:]", "v"))
        ['x_{1:t-1}', 'z_{t-1}', 'x_{t:T}', 'v']
    """
    return [symbol for parent in parents for symbol in ranges(frames_of(parent, _LONG // 2, _LONG), _LONG)]


def conditional(letter: str, name: str, given: Iterable[str], *, in_time: bool = True) -> str:
    """The formula of one conditional.

    Args:
        letter: p or q.
        name: the site.
        given: the variables that it depends on, as symbols.
        in_time: whether the site has a value in each frame.

    Example:
        >>> conditional("q", "z", ["z_{t-1}", "x_{t:T}"]), conditional("p", "v", [], in_time=False)
        ('q(z_t | z_{t-1}, x_{t:T})', 'p(v)')
    """
    site = f"{name}_t" if in_time else name
    bar = ", ".join(given)
    return f"{letter}({site} | {bar})" if bar else f"{letter}({site})"


def outside_time(*declared: Parents) -> set[str]:
    """The sites with one value per sequence, which are declared as parents without brackets."""
    return {parent for parents in declared for listed in parents.values() for parent in listed if "[" not in parent}


def factorisation(letter: str, parents: Parents, outside: set[str], given: str = "") -> str:
    """The formula of the joint density as the product of its conditionals.

    Args:
        letter: p or q.
        parents: the declared parents of each site.
        outside: the sites with one value per sequence.
        given: a symbol that the joint density is conditioned on.

    Example:
        >>> factorisation("p", {"v": (), "z": ("z[:t]",), "x": ("z[t]", "v")}, {"v"})
        'p(x_{1:T}, z_{1:T}, v) = p(v) prod_t p(z_t | z_{1:t-1}) p(x_t | z_t, v)'
    """
    joint = ", ".join(name if name in outside else f"{name}_{{1:T}}" for name in reversed(list(parents)))
    factors = {name: conditional(letter, name, symbols(parents[name]), in_time=name not in outside) for name in parents}
    once = [factors[name] for name in parents if name in outside]
    each = [factors[name] for name in parents if name not in outside]
    left = f"{letter}({joint} | {given})" if given else f"{letter}({joint})"
    return " ".join([left, "=", *once, *(["prod_t", *each] if each else [])])


def _runs(frames: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    starts = [s for s in frames if s - 1 not in frames]
    ends = [s for s in frames if s + 1 not in frames]
    return list(zip(starts, ends, strict=True))


def _subscript(first: int, last: int, frames: int) -> str:
    def at(s: int) -> str:
        offset = s - frames // 2
        return f"t{offset:+d}" if offset else "t"

    left, right = "1" if first == 0 else at(first), "T" if last == frames - 1 else at(last)
    if left != right:
        return f"{{{left}:{right}}}"
    return left if left == "t" else f"{{{left}}}"

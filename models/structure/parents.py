r"""Declared parents of sites, and the parents of the exact posterior by d-separation.

Models and guides declare the parents of each site as slices of time (`models.dvae.DVAE.parents`). Unrolled over a few
frames, a model's declaration is a Bayesian network. The exact factor of the posterior,

.. math:: p(z_t \mid z_{1:t-1}, x_{1:T}),

depends only on those of its conditioning variables that the others do not d-separate from z_t (Girin et al., 2021,
section 4.2; Geiger, Verma & Pearl, 1990).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Parents", "Verdict", "frames_of", "posterior_parents", "verdict"]

Node = tuple[str, int]
Parents = Mapping[str, tuple[str, ...]]

FRAMES = 7
"""Frames of the unrolled network: three on either side of the middle distinguish one, two and all frames."""


def frames_of(parent: str, t: int, frames: int) -> list[Node]:
    """The variables of a declared parent at frame t, counted from 0: ``"z[:t]"`` at 2 is z_0, z_1.

    A name without brackets is a sequence-level variable, represented as frame -1.

    Example:
        >>> frames_of("z[:t]", 2, 5), frames_of("z[t-1]", 0, 5), frames_of("v", 3, 5)
        ([('z', 0), ('z', 1)], [], [('v', -1)])
    """
    match = re.fullmatch(
        r"(\w+)(?:\[(?:(?P<at>t(?:[+-]\d+)?)|(?P<from>t(?:[+-]\d+)?)?:(?P<to>t(?:[+-]\d+)?)?)\])?", parent
    )
    if match is None:
        raise ValueError(
            f"parent '{parent}': expected a name, or name[t], name[t-1], name[:t], name[:t+1], name[t:] or name[:]"
        )
    name = match[1]
    if "[" not in parent:
        return [(name, -1)]

    def index(text: str | None, default: int) -> int:
        return default if text is None else t + int(text[1:] or 0)

    if match["at"] is not None:
        span = range(index(match["at"], 0), index(match["at"], 0) + 1)
    else:
        span = range(index(match["from"], 0), index(match["to"], frames))
    return [(name, s) for s in span if 0 <= s < frames]


def _unrolled(parents: Parents) -> dict[Node, set[Node]]:
    """The parents of every variable of the network over `FRAMES` frames."""
    named = {parent for listed in parents.values() for parent in listed if "[" not in parent}
    network: dict[Node, set[Node]] = {(name, -1): set() for name in named}
    for name, listed in parents.items():
        for t in [-1] if name in named else range(FRAMES):
            network[(name, t)] = {node for parent in listed for node in frames_of(parent, t, FRAMES)}
    return network


def _connected(network: Mapping[Node, set[Node]], source: Node, conditioned: set[Node]) -> set[Node]:
    """The variables that `source` is not d-separated from by `conditioned` (Shachter's "Bayes ball")."""
    children: dict[Node, set[Node]] = {node: set() for node in network}
    for node, above in network.items():
        for parent in above:
            children[parent].add(node)
    reached: set[Node] = set()
    visited: set[tuple[Node, bool]] = set()
    balls = [(source, True)]  # (node of the ball, whether it came from a child)
    while balls:
        node, from_child = balls.pop()
        if (node, from_child) in visited:
            continue
        visited.add((node, from_child))
        if node not in conditioned or node == source:
            reached.add(node)
            if from_child:
                balls += [(parent, True) for parent in network[node]]
            balls += [(child, False) for child in children[node]]
        elif not from_child:
            balls += [(parent, True) for parent in network[node]]
        if node in conditioned:
            reached.add(node)
    return reached - {source}


def posterior_parents(parents: Parents, latent: str = "z", order: tuple[str, ...] = ("z",)) -> set[Node]:
    """The variables that the exact posterior factor of a latent depends on, at the middle frame: those of z_{1:t-1}, v,
    x_{1:T} that are not d-separated from z_t by the others.

    Args:
        parents: the declared parents of the model's sites.
        latent: name of the latent.
        order: the latents in the order of the posterior's factors; sequence-level latents come first.
    """
    network = _unrolled(parents)
    middle = FRAMES // 2
    t = middle if (latent, middle) in network else -1

    def rank(node: Node) -> tuple[bool, int]:
        return node[1] != -1, order.index(node[0])

    conditioned = {
        node
        for node in network
        if node[0] not in order or (node[0] == latent and node[1] < t) or rank(node) < rank((latent, t))
    } - {(latent, t)}
    return {node for node in conditioned if node in _connected(network, (latent, t), conditioned - {node})}


@dataclass(frozen=True)
class Verdict:
    """The comparison of a guide's conditional with the exact posterior factor.

    Attributes:
        missing: variables of the exact factor that the guide does not condition on.
        extra: variables that the guide conditions on and the exact factor does not.
    """

    missing: tuple[Node, ...]
    extra: tuple[Node, ...]

    @property
    def word(self) -> str:
        """Whether the guide conditions on the ``"same"`` variables as the exact posterior factor, on ``"fewer"`` (some
        are missing, whatever is extra) or on ``"more"``.
        """
        return "fewer" if self.missing else "more" if self.extra else "same"


def verdict(model: Parents, guide: Parents, latent: str = "z", order: tuple[str, ...] = ("z",)) -> Verdict:
    """Compare a guide's declared parents with those of the model's exact posterior factor, at the middle frame."""
    exact = posterior_parents(model, latent, order)
    t = FRAMES // 2
    seen = {node for parent in guide[latent] for node in frames_of(parent, t, FRAMES)}
    return Verdict(tuple(sorted(exact - seen)), tuple(sorted(seen - exact)))

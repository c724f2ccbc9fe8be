"""The data that all sections of the page share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from markupsafe import Markup, escape

from evaluation.compare.table import Entry
from evaluation.report.collect import RunFolder
from evaluation.report.decoding import Chosen, Decoded
from evaluation.report.media import Budget
from evaluation.report.missing import Missing, missing

__all__ = ["Page", "Source", "formula"]

PLAIN = {"prod_t": "\u220f_t", "mu1": "\u03bc_1", "mu2": "\u03bc_2", "z1": "z_1", "z2": "z_2", "-": "\u2212"}


class Source(NamedTuple):
    """A row of the tables: a run, evaluated in one way.

    Attributes:
        name: its name on the page.
        run: the run folder.
        entry: its report of resynthesis; None if there is none.
        colour: number of its colour.
    """

    name: str
    run: RunFolder
    entry: Entry | None
    colour: int


@dataclass
class Page:
    """The data of the page.

    Attributes:
        runs: the run folders.
        sources: the runs, once for each report of resynthesis.
        chosen: utterances to listen to.
        others: further utterances that all runs were evaluated on.
        decoded: resyntheses and latents, by the name of the source.
        budget: bytes that media may take.
        failed: commands that failed.
    """

    runs: Sequence[RunFolder]
    sources: Sequence[Source]
    chosen: Sequence[Chosen]
    others: Sequence[str]
    decoded: Mapping[str, Decoded]
    budget: Budget
    failed: Sequence[str] = ()
    missing: Mapping[str, Sequence[Missing]] = field(init=False)

    def __post_init__(self) -> None:
        self.missing = {run.name: missing(run) for run in self.runs}

    @property
    def entries(self) -> list[Entry]:
        """The reports of resynthesis."""
        return [source.entry for source in self.sources if source.entry is not None]

    @property
    def files(self) -> list[str]:
        """All utterances of the page; the place of each is its number."""
        return [*(chosen.file for chosen in self.chosen), *self.others]

    def colour(self, run: RunFolder) -> int:
        """The colour of a run: that of its first source."""
        return next(source.colour for source in self.sources if source.run is run)

    def commands(self, *evaluations: str) -> list[str]:
        """The commands that write the missing reports of these evaluations."""
        return [item.command for run in self.runs for item in self.missing[run.name] if item.evaluation in evaluations]


def formula(text: str) -> Markup:
    """A formula in plain text as HTML with subscripts.

    Example:
        >>> str(formula("p(z_t | x_{1:t-1}, mu2)"))
        'p(z<sub>t</sub> | x<sub>1:t\u22121</sub>, \u03bc<sub>2</sub>)'
    """
    for plain, printed in PLAIN.items():
        text = text.replace(plain, printed)
    return Markup(re.sub(r"_(?:\{([^}]*)\}|(\w))", lambda m: f"<sub>{m[1] or m[2]}</sub>", str(escape(text))))

"""Systems of speaker verification: what embeds the utterances of a run's corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from corpora.types import Corpus
from dvae_pyro.errors import UserError
from evaluation.disentanglement.embeddings import Embeddings, embed
from evaluation.loading.splits import corpus_of, read_split
from evaluation.reporting.command_line import Request, read_run, say
from evaluation.verification.ivector.pipeline import IVectorOptions, IVectors
from inference.runs import Run
from inference.settings.resolve import load_run_settings
from inference.settings.tree import Settings

__all__ = ["SYSTEMS", "Source", "System", "s_vectors"]

MODELS = ("fhvae", "beta_vae")
"""Models with embeddings of utterances."""

Source = Callable[[str, int], Embeddings]
"""Embeddings of a split whose utterances are each divided into a number of parts."""


class System(NamedTuple):
    """A system for a run: the run's settings, its corpus, the source of embeddings, and the system's report entry."""

    settings: Settings
    corpus: Corpus
    source: Source
    description: dict[str, Any]


def open_fhvae(request: Request, sizes: Mapping[str, Any]) -> System:
    """The s-vectors of a run.

    Raises:
        UserError: The model of the run has no s-vectors.
    """
    run = read_run(request)
    if run.settings.model.name not in MODELS:
        raise UserError(
            f"{request.run} is a run of model '{run.settings.model.name}', which has no s-vectors.\n"
            f"Give a run of {' or '.join(MODELS)}, or --system ivector for the baseline on this run's corpus."
        )
    corpus = corpus_of(run.settings, "train", request.split)
    description = {"checkpoint": run.checkpoint_path.name, "step": run.state["step"]}
    return System(run.settings, corpus, s_vectors(run, corpus), description)


def s_vectors(run: Run, corpus: Corpus) -> Source:
    """The s-vectors of a corpus."""

    def source(split: str, parts: int) -> Embeddings:
        utterances = read_split(run, corpus, split)
        return embed(run, [item._replace(x=x) for item in utterances for x in item.x.tensor_split(parts)])

    return source


def open_ivector(request: Request, sizes: Mapping[str, Any]) -> System:
    """i-vectors trained on the corpus of a run, whose checkpoint is not read.

    Args:
        request: The command line.
        sizes: Fields of `IVectorOptions` that differ from the defaults.
    """
    settings = load_run_settings(request.run, request.overrides)
    options = IVectorOptions(**sizes, seed=settings.seed)
    options.check()
    corpus = corpus_of(settings, "train", request.split)
    source = IVectors(corpus, settings.data, options, report=say, progress=True)
    for note in source.extractor.notes:
        say(note)
    return System(settings, corpus, source, {k: v for k, v in options._asdict().items() if k != "dim"})


SYSTEMS: dict[str, Callable[[Request, Mapping[str, Any]], System]] = {"fhvae": open_fhvae, "ivector": open_ivector}
"""Systems by their name on the command line."""

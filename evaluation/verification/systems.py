"""What can be verified: systems that turn the utterances of a run's corpus into vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, open_run, say

if TYPE_CHECKING:
    from corpora.types import Corpus
    from evaluation.verification.trials import Embedded
    from inference.runs import Run
    from inference.settings.tree import Settings

__all__ = ["SYSTEMS", "Opened", "Source", "s_vectors"]

#: Models that have s-vectors.
OF_SEGMENTS = ("fhvae", "beta_vae")

#: Embeddings of a split whose utterances are each cut into so many parts.
Source = Callable[[str, int], "Embedded"]


class Opened(NamedTuple):
    """A system ready to embed: the run's settings, split train and the one asked for, what the report says of it."""

    settings: Settings
    corpus: Corpus
    source: Source
    described: dict[str, Any]


def open_fhvae(request: Request, sizes: Mapping[str, Any]) -> Opened:
    """The s-vectors of a run.

    Raises:
        UserError: The run is of a model without them.
    """
    run = open_run(request)
    if run.settings.model.name not in OF_SEGMENTS:
        raise UserError(
            f"{request.run} is a run of model '{run.settings.model.name}', which has no s-vectors.\n"
            f"Give a run of {' or '.join(OF_SEGMENTS)}, or --system ivector for the baseline on this run's corpus."
        )
    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    corpus = _open_corpus(run.settings, request)
    described = {"checkpoint": run.checkpoint_path.name, "step": run.state["step"]}
    return Opened(run.settings, corpus, s_vectors(run, corpus), described)


def s_vectors(run: Run, corpus: Corpus) -> Source:
    """The s-vectors of the splits of a corpus, of each utterance cut into so many parts of one length."""
    from corpora.frontends.registry import open_frontend
    from corpora.loading.sequences import load_split
    from evaluation.disentanglement.embeddings import embed
    from evaluation.verification.trials import Embedded

    data = run.settings.data
    frontend = open_frontend(data, run.settings.model.bins)

    def source(split: str, parts: int) -> Embedded:
        whole = load_split(corpus, split, frontend, data, say)
        return Embedded(*embed(run, [item._replace(x=x) for item in whole for x in item.x.tensor_split(parts)]))

    return source


def open_ivector(request: Request, sizes: Mapping[str, Any]) -> Opened:
    """i-vectors trained on the corpus of a run, whose checkpoint is not needed.

    Args:
        request: What was asked for.
        sizes: Those of `evaluation.verification.ivector.pipeline.Options` that differ from the defaults.
    """
    from evaluation.verification.ivector.pipeline import IVectors, Options
    from inference.settings.resolve import load_run_settings

    settings = load_run_settings(request.run, request.overrides)
    options = Options(**sizes, seed=settings.seed)
    options.check()
    corpus = _open_corpus(settings, request)
    source = IVectors(corpus, settings.data, options, report=say, progress=True)
    for note in source.extractor.notes:
        say(note)
    return Opened(settings, corpus, source, {k: v for k, v in options._asdict().items() if k != "dim"})


#: Systems by the name that ``--system`` gives.
SYSTEMS: dict[str, Callable[[Request, Mapping[str, Any]], Opened]] = {"fhvae": open_fhvae, "ivector": open_ivector}


def _open_corpus(settings: Settings, request: Request) -> Corpus:
    from corpora.registry import open_corpus

    return open_corpus(settings.data, settings.data.seed, needed=list(dict.fromkeys(["train", request.split])))

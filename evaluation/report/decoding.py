"""Computations for the page: resyntheses of selected utterances, and figures of the latents."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyro
import torch
from numpy.typing import NDArray

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_split
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from evaluation.compare.spectrograms import reopen
from evaluation.compare.table import Entry
from evaluation.loading.splits import corpus_of, spread
from evaluation.report.collect import RunFolder, rows_of
from evaluation.reporting.command_line import Request, open_run
from evaluation.resynthesis.decoding import Resynthesis, resynthesise
from inference.prediction.reconstruction import infer, kl_by_dimension
from inference.runs import Run, pick_dtype

__all__ = ["ACTIVE", "Chosen", "Decoded", "Latent", "choose", "decode"]

RANKED_BY = ("si_sdr", "is_per_frame")
"""Metrics that rank utterances: the first that exists."""
LATENTS_OF = 40
"""Utterances that figures of latents are computed on."""
ACTIVE = 0.01
"""Variance over frames of the posterior mean above which a dimension is active (Burda et al., 2016, section 5.1)."""

Array = NDArray[np.float64]


class Chosen(NamedTuple):
    """An utterance with a player, and the reason for its selection."""

    file: str
    why: str


class Latent(NamedTuple):
    """Figures of a latent.

    Attributes:
        kl: KL of each dimension in nats per frame (L,); None where it has no closed form.
        variance: variance of each dimension of the posterior mean over frames (L,).
        per_frame: draws of the latent per frame: 1, or less for latents of several frames.
    """

    kl: Array | None
    variance: Array
    per_frame: float

    @property
    def active(self) -> int:
        """Number of active dimensions."""
        return int((self.variance > ACTIVE).sum())


class Decoded(NamedTuple):
    """Resyntheses and latents of utterances by a run.

    Attributes:
        sounds: resyntheses, by file.
        latents: figures of each latent, by site.
        trajectories: posterior means (T, L) by file, then by site; latents of the whole sequence are left out.
        utterances: number of utterances that the figures of latents are of.
        frames: their number of frames.
        problem: the reason why nothing could be decoded; empty otherwise.
    """

    sounds: Mapping[str, Resynthesis] = {}
    latents: Mapping[str, Latent] = {}
    trajectories: Mapping[str, Mapping[str, Array]] = {}
    utterances: int = 0
    frames: int = 0
    problem: str = ""


def choose(entries: Sequence[Entry], seed: int = 0) -> tuple[list[Chosen], list[str]]:
    """Utterances to listen to: best, median and worst on average over runs, and two by chance.

    Args:
        entries: the reports of resynthesis, whose CSV files rank the utterances.
        seed: seed of the two.

    Returns:
        The chosen utterances, and all others that every run was evaluated on, in an order by chance.
    """
    tables = [rows_of(entry.file) for entry in entries]
    common = [file for file in tables[0] if all(file in table for table in tables)] if tables else []
    if not common:
        return [], []
    for metric in RANKED_BY:
        means = {f: float(np.mean([float(t[f].get(metric) or math.nan) for t in tables])) for f in common}
        ranked = sorted((f for f in common if math.isfinite(means[f])), key=lambda f: means[f])
        if ranked:
            break
    ranked = ranked or common
    worst, best = (ranked[-1], ranked[0]) if metric == "is_per_frame" else (ranked[0], ranked[-1])
    by_role = {"best": best, "median": ranked[len(ranked) // 2], "worst": worst}
    roles = {file: why for why, file in reversed(by_role.items())}
    shuffled = random.Random(seed).sample(common, len(common))
    others = [file for file in shuffled if file not in roles]
    chosen = [Chosen(file, roles[file]) for file in dict.fromkeys(by_role.values())]
    return [*chosen, *(Chosen(file, "by chance") for file in others[:2])], others[2:]


def decode(run: RunFolder, entry: Entry | None, files: Sequence[str], listened: Sequence[str], device: str) -> Decoded:
    """Resynthesise utterances, and infer the latents of them and of others of the split.

    Args:
        run: the run folder.
        entry: its report of resynthesis, whose conditions are kept; None takes those of the run, and a few files.
        files: the utterances to resynthesise.
        listened: those whose latents are drawn over time.
        device: device to compute on.
    """
    try:
        if entry is None:
            request = Request(run=run.path, device=device)
            opened = open_run(request)
        else:
            opened, request = reopen(entry, device)
        corpus = corpus_of(opened.settings, request.split)
        by_file = {utterance.file: utterance for utterance in corpus.splits[request.split]}
        wanted = [by_file[file] for file in files if file in by_file]
        sounds: dict[str, Resynthesis] = {}
        with progress_bar(f"decoding {run.name}", len(wanted), "file", leave=False) as bar:
            for item in resynthesise(opened, wanted, mode=request.mode, latents=request.latents) if wanted else ():
                sounds[item.file] = item
                bar.update()
        some = {u.file: u for u in spread(list(by_file.values()), LATENTS_OF)}
        some |= {file: by_file[file] for file in listened if file in by_file}
        return _latents(opened, request, corpus, list(some.values()), listened)._replace(sounds=sounds)
    except UserError as error:
        return Decoded(problem=str(error))


def _latents(
    run: Run, request: Request, corpus: Corpus, utterances: Sequence[Utterance], listened: Sequence[str]
) -> Decoded:
    """Figures of the latents, of one utterance after another."""
    data = replace(run.settings.data, cache=None)
    frontend = open_frontend(data, run.settings.model.bins)
    chosen = replace(corpus, splits={request.split: list(utterances)})
    items = load_split(chosen, request.split, frontend, data, lambda _: None)
    mode = request.mode or run.settings.evaluation.mode
    kl: dict[str, list[Array]] = {}
    means: dict[str, list[Array]] = {}
    trajectories: dict[str, dict[str, Array]] = {}
    with progress_bar(f"latents of {request.run.name}", len(items), "file", leave=False) as bar:
        for item in items:
            x = item.x[:, None].to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
            lengths = torch.tensor([len(item.x)])
            with pyro.validation_enabled(False):
                of_utterance = infer(run.model, run.guide, x, lengths)
                divergences = kl_by_dimension(run.model, run.guide, x, lengths, mode=mode)
            values = {n: v.flatten(0, -2).double().cpu().numpy() for n, v in of_utterance.items() if n != "x"}
            for name, value in values.items():
                means.setdefault(name, []).append(value)
            for name, divergence in divergences.items():
                kl.setdefault(name, []).append(divergence.double().cpu().numpy())
            if item.file in listened:
                trajectories[item.file] = {name: value for name, value in values.items() if len(value) > 1}
            bar.update()
    frames = sum(len(item.x) for item in items)
    figures = {
        name: Latent(
            kl=np.sum(kl[name], axis=0) / frames if name in kl else None,
            variance=np.concatenate(of_site).var(axis=0),
            per_frame=sum(map(len, of_site)) / frames,
        )
        for name, of_site in means.items()
    }
    return Decoded({}, figures, trajectories, len(items), frames)

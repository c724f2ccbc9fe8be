"""Vectors of utterances against their formula, utterance by utterance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpora.loading.sequences import Prepared
from corpora.registry import open_corpus
from dvae_pyro.errors import UserError
from evaluation.disentanglement.embeddings import embed, embeddings
from inference.runs import Run, create
from tests.pairs import BINS, small_pair


def run_of(model: Any, guide: Any, name: str = "fhvae") -> Run:
    from inference.settings.resolve import resolve

    settings = resolve(name, None, None, ["dtype=float64", "device=cpu"])
    return Run(Path("nowhere"), settings, model.eval(), guide.eval(), Path("nowhere/best.pt"), {})


def test_vectors_are_sums_over_full_segments() -> None:
    pair = small_pair("fhvae", segment=4, z_dim=3)
    guide: Any = pair.guide
    generator = torch.Generator().manual_seed(4)
    lengths = [9, 3, 4, 13]
    utterances = [
        Prepared(torch.randn(n, BINS, generator=generator, dtype=torch.float64), f"file{n}", f"speaker{n % 2}", 0)
        for n in lengths
    ]
    found = embed(run_of(pair.model, guide), utterances)
    assert found.files == [f"file{n}" for n in lengths] and found.speakers == [f"speaker{n % 2}" for n in lengths]
    for place, utterance in enumerate(utterances):
        pieces = [utterance.x[s : s + 4] for s in range(0, max(1, len(utterance.x) - 3), 4)]
        for kind, latent, ratio in (("mu2", "z2", 0.25), ("mu1", "z1", 1.0)):
            total = sum(
                guide.posteriors(piece[:, None], torch.tensor([len(piece)]))[latent].mean[0] for piece in pieces
            )
            expected = (total / (len(pieces) + ratio)).detach().numpy()
            np.testing.assert_allclose(found.vectors[kind][place], expected, rtol=1e-10)


def test_beta_vae_has_mu1_alone_and_other_models_nothing() -> None:
    pair = small_pair("beta_vae")
    utterance = [Prepared(torch.randn(25, 6, dtype=torch.float64), "file", "speaker", 0)]
    assert set(embed(run_of(pair.model, pair.guide, "beta_vae"), utterance).vectors) == {"mu1"}
    other = small_pair("dkf")
    with pytest.raises(UserError, match="'dkf'"):
        embed(run_of(other.model, other.guide, "dkf"), utterance)


def test_every_utterance_of_a_split_has_its_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    from inference.settings.resolve import resolve

    settings = resolve(
        "fhvae", None, None, ["model.h_dim=4", "guide.h_dim=4", "model.z_dim=2", "model.z2_dim=3", "device=cpu"]
    )
    model, guide = create(settings)
    found = embeddings(Run(Path("nowhere"), settings, model, guide, Path("nowhere/best.pt"), {}), "test")
    utterances = open_corpus(settings.data, settings.data.seed, ["test"]).splits["test"]
    assert found.files == [u.file for u in utterances] and found.speakers == [u.speaker for u in utterances]
    assert found.vectors["mu2"].shape == (len(utterances), 3) and found.vectors["mu1"].shape == (len(utterances), 2)
    assert np.isfinite(found.vectors["mu2"]).all() and "test: 9 sequences" in capsys.readouterr().err

"""Vectors of utterances against their formula, utterance by utterance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpora.sequences import Prepared
from evaluation.embeddings import embed
from inference.errors import UserError
from inference.runs import Run
from tests.models.test_fhvae import BINS, small
from tests.pairs import small_pair


def run_of(model: Any, guide: Any, name: str = "fhvae") -> Run:
    from inference.settings import resolve

    settings = resolve(name, None, None, ["dtype=float64"])
    return Run(Path("nowhere"), settings, model.eval(), guide.eval(), Path("nowhere/best.pt"), {})


def test_vectors_are_sums_over_full_segments() -> None:
    model, guide = small(table=None)
    generator = torch.Generator().manual_seed(4)
    lengths = [9, 3, 4, 13]
    utterances = [
        Prepared(torch.randn(n, BINS, generator=generator, dtype=torch.float64), f"file{n}", f"speaker{n % 2}", 0)
        for n in lengths
    ]
    found = embed(run_of(model, guide), utterances)
    assert found.files == [f"file{n}" for n in lengths] and found.speakers == [f"speaker{n % 2}" for n in lengths]
    for place, utterance in enumerate(utterances):
        pieces = [utterance.x[s : s + 4] for s in range(0, max(1, len(utterance.x) - 3), 4)]
        for kind, latent, ratio in (("mu2", "z2", 0.25), ("mu1", "z1", 1.0)):
            total = sum(
                guide.posteriors(piece[:, None], torch.tensor([len(piece)]))[latent].mean[0] for piece in pieces
            )
            expected = (total / (len(pieces) + ratio)).detach().numpy()  # type: ignore[union-attr]  # a total that started as None
            np.testing.assert_allclose(found.vectors[kind][place], expected, rtol=1e-10)


def test_beta_vae_has_mu1_alone_and_other_models_nothing() -> None:
    pair = small_pair("beta_vae")
    utterance = [Prepared(torch.randn(25, 6, dtype=torch.float64), "file", "speaker", 0)]
    assert set(embed(run_of(pair.model, pair.guide, "beta_vae"), utterance).vectors) == {"mu1"}
    other = small_pair("dkf")
    with pytest.raises(UserError, match="no latents of segments"):
        embed(run_of(other.model, other.guide, "dkf"), utterance)

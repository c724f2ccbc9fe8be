"""Runs from Python: train or load one, read its latents, resynthesise, generate, estimate likelihoods.

    import dvae_pyro as dvae

    run = dvae.load("runs/dkf")
    z = run.latents("test")
    y = run.resynthesise("a.wav")

The functions are those that the commands call: `load` reads a run as every ``python -m evaluation.X RUN`` does. Tensors
are time-major: x is (T, N, D), T frames, N sequences, D values per frame. `dvae_pyro` imports this module, and with it
torch, at the first use of a name.
"""

from __future__ import annotations

from dvae_pyro.api.entry import load, train
from dvae_pyro.api.run import Run
from dvae_pyro.api.waveform import Waveform
from evaluation.loading.latents import Latents

__all__ = ["Latents", "Run", "Waveform", "load", "train"]

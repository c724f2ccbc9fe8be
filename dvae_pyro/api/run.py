"""A trained run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import Prepared
from dvae_pyro.api.waveform import SoundLike, Waveform, as_sound
from dvae_pyro.errors import UserError, nearest
from evaluation.generate.sampling import num_frames, to_sounds
from evaluation.likelihood.estimation import ESTIMATORS, Plan, estimate_all
from evaluation.likelihood.reliability import warnings_of
from evaluation.loading.latents import Latents, infer_latents
from evaluation.loading.splits import read_utterances
from evaluation.loading.waveforms import sound_frontend
from evaluation.resynthesis.decoding import resynthesise_recording
from inference.prediction.generation import Generated, generate
from inference.prediction.reconstruction import decode, infer
from inference.runs import Run as LoadedRun
from inference.runs import pick_dtype

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from inference.settings.tree import Settings
    from models.dvae import DVAE

__all__ = ["Run"]


class Run:
    """A trained run; model and guide are in eval mode on its device.

    Args:
        loaded: the run, from `inference.runs.load_run`.

    Examples:
        >>> import tempfile
        >>> import dvae_pyro as dvae
        >>> small = ["model.bins=65", "model.z_dim=4", "model.z_x=[8]", "data.rate=8000"]
        >>> folder = tempfile.TemporaryDirectory()
        >>> run = dvae.train("dkf", *small, steps=2, run=f"{folder.name}/dkf", verbose=False)

        Latents of the utterances of a split:

        >>> z = run.latents("test")
        >>> len(z), z[0].file, z[0]["z"].shape == (z[0].frames, 4)
        (9, 'test/s023/s023-000.wav', True)

        Sound in, sound out, of the same length and rate; and sound from the prior:

        >>> y = run.resynthesise(np.random.RandomState(0).randn(8000), rate=8000)
        >>> y.samples.shape, y.rate
        ((8000,), 8000)
        >>> [sound.samples.shape for sound in run.generate(2, seconds=0.5)]
        [(3968,), (3968,)]

        On tensors x (T, N, D):

        >>> utterance = run.utterances("test", 1)[0]
        >>> x = utterance.x[:50, None]
        >>> latents = run.encode(x)
        >>> latents["z"].shape, run.decode(latents).shape
        (torch.Size([50, 1, 4]), torch.Size([50, 1, 65]))
        >>> run.likelihood(x, "elbo", particles=10).shape
        torch.Size([1])
        >>> folder.cleanup()
    """

    def __init__(self, loaded: LoadedRun) -> None:
        self.loaded = loaded

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.loaded.path

    @property
    def settings(self) -> Settings:
        """All settings, those changed by `load` included."""
        return self.loaded.settings

    @property
    def model(self) -> DVAE:
        """The generative model, a Pyro program and torch module."""
        return self.loaded.model

    @property
    def guide(self) -> Guide:
        """The inference model, a Pyro guide and torch module."""
        return self.loaded.guide

    @property
    def step(self) -> int:
        """Training step of the weights."""
        return int(self.loaded.state["step"])

    @property
    def rate(self) -> int:
        """Sampling rate of the front end in Hz; 0 without sound."""
        return open_frontend(self.settings.data, self.settings.model.bins).rate

    def __repr__(self) -> str:
        names = f"{self.settings.model.name}, guide {self.settings.guide.name}"
        checkpoint = f"{self.loaded.checkpoint_path.name} at step {self.step}"
        return f"Run('{self.path}': {names}, {checkpoint}, {self.settings.device})"

    def utterances(self, split: str = "test", limit: int | None = None) -> list[Prepared]:
        """Frames of whole utterances of the run's corpus, each with `x` (T, D), `file` and `speaker`.

        Args:
            split: "train", "valid" or "test".
            limit: read at most so many, spread evenly over the split.
        """
        return read_utterances(self.loaded, split, limit)

    def features(self, sound: SoundLike, rate: int | None = None) -> Tensor:
        """Frames (T, D) of a recording, prepared as for training: resampled, trimmed and normalised.

        Args:
            sound: path of a sound file, or samples (n,).
            rate: sampling rate of samples in Hz; None is the run's.
        """
        frontend = open_frontend(self.settings.data, self.settings.model.bins)
        read = as_sound(sound, rate or frontend.rate)
        return torch.from_numpy(frontend.features(frontend.prepare(read)))

    def latents(
        self, data: str | Sequence[Prepared] = "test", *, draws: int | None = None, limit: int | None = None
    ) -> list[Latents]:
        """Infer the latents of whole utterances, each with its file, speaker and number of frames.

        Args:
            data: a split of the run's corpus, or utterances from `utterances`.
            draws: S samples of the guide, (S, T, L); None takes the mean of each conditional, (T, L).
            limit: of a split, at most so many utterances, spread evenly.
        """
        sequences = self.utterances(data, limit) if isinstance(data, str) else data
        return infer_latents(self.loaded, sequences, draws)

    def encode(self, x: Tensor, lengths: Tensor | None = None, *, latents: str = "mean") -> dict[str, Tensor]:
        """Infer the latents of frames: values (T, N, L), or (N, L) outside time, by site name.

        Args:
            x: data (T, N, D), zero beyond each length.
            lengths: frames of each sequence (N,); None: all T.
            latents: the "mean" of each conditional of the guide, or a "sample".
        """
        batch, lengths = self._batch(x, lengths)
        return infer(self.model, self.guide, batch, lengths, latents=latents)

    def decode(
        self,
        latents: Mapping[str, Tensor] | Tensor,
        x: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        mode: str | None = None,
    ) -> Tensor:
        """The expected data (T, N, D) given latents; for power spectra the variance.

        Args:
            latents: values of all latents by site name, as from `encode`; of a model with one latent also its values.
            x: data (T, N, D) that the model is given as its past in mode "gt".
            lengths: frames of each sequence (N,); None: all T.
            mode: "gt", the model is given the true past, or "gen", its own output; None is "gen" without `x`, else the
                run's `evaluation.mode`.
        """
        names = self.model.latents_of(self.settings.model)
        if isinstance(latents, Tensor) and len(names) == 1:
            latents = {names[0]: latents}
        given = () if isinstance(latents, Tensor) else tuple(latents)
        if isinstance(latents, Tensor) or not set(names) <= set(given):
            got = "a tensor" if isinstance(latents, Tensor) else f"a mapping with {', '.join(given) or 'nothing'}"
            raise UserError(f"latents: expected a mapping with {', '.join(names)}, as from encode, got {got}.")
        if mode == "gt" and x is None:
            raise UserError("mode='gt' gives the model the true past of the data: pass x.")
        if x is None:
            frames = [len(value) for value in latents.values() if value.dim() == 3]
            sequences = next(iter(latents.values())).shape[-2] if lengths is None else len(lengths)
            if lengths is None and (self.model.segment is not None or not frames):
                raise UserError("the latents do not determine the number of frames: pass lengths or x.")
            total = max(frames) if lengths is None else int(lengths.max())
            x, mode = torch.zeros(total, sequences, self.model.x_dim), "gen"
        batch, lengths = self._batch(x, lengths)
        values = {name: value.to(batch) for name, value in latents.items()}
        return decode(self.model, values, batch, lengths, mode=mode or self.settings.evaluation.mode)

    def resynthesise(
        self,
        sound: SoundLike,
        rate: int | None = None,
        *,
        mode: str | None = None,
        latents: str | None = None,
    ) -> Waveform:
        """Encode a recording and decode it again, with the phase of the recording.

        The whole recording is used, without trimming; the result has its length, sampling rate and level. Several
        channels are mixed.

        Args:
            sound: path of a sound file, or samples (n,).
            rate: sampling rate of samples in Hz; None is the run's.
            mode: "gt", the decoder is given the true past, or "gen", its own output; None is the run's
                `evaluation.mode`.
            latents: "mean" or "sample" of the posterior; None is the run's `evaluation.latents`.
        """
        read = as_sound(sound, rate or self.rate)
        return Waveform(resynthesise_recording(self.loaded, read, mode=mode, latents=latents), read.rate)

    def sample(self, n: int, frames: int, *, x: str = "mean", seed: int | None = None) -> Generated:
        """Sample sequences from the model: data x (T, N, D) and latents by site name.

        Args:
            n: number of sequences.
            frames: T.
            x: take the "mean" of each conditional of x or a "sample" of it, also as the past that the model is given.
            seed: None is the run's.
        """
        seed = self.settings.seed if seed is None else seed
        return Generated(*generate(self.model, n, frames, x=x, seed=seed))

    def generate(
        self, n: int = 1, seconds: float = 1.6, *, x: str = "mean", seed: int | None = None, iterations: int = 32
    ) -> list[Waveform]:
        """Sample sounds from the model, with phases by the algorithm of Griffin and Lim; see `sample`.

        A sequence that diverged to values that are not finite has samples NaN, with a warning.
        """
        frontend = sound_frontend(self.loaded)
        frames = self.sample(n, num_frames(frontend, seconds), x=x, seed=seed).x.transpose(0, 1)
        samples = to_sounds(frames, frontend, iterations)
        if diverged := int(np.isnan(samples[:, 0]).sum()):
            warnings.warn(f"{diverged} of {n} sequences diverged to values that are not finite", stacklevel=2)
        return [Waveform(each, frontend.rate) for each in samples]

    def likelihood(
        self,
        x: Tensor | Sequence[Prepared],
        estimator: str = "elbo",
        *,
        particles: int = 100,
        lengths: Tensor | None = None,
        mode: str | None = None,
    ) -> Tensor:
        """Estimate log p(x) of each sequence, (N,), in nats.

        Warns where the diagnostics call an estimate unreliable (`evaluation.likelihood.reliability`).

        Args:
            x: data (T, N, D), or utterances from `utterances`.
            estimator: "elbo", "iwae", the importance-weighted bound, or "smc", the particle filter.
            particles: K.
            lengths: frames of each sequence (N,); None: all T.
            mode: "gt" or "gen"; None is the run's `evaluation.mode`.
        """
        if estimator not in ESTIMATORS:
            known = ", ".join(ESTIMATORS)
            raise UserError(
                f"unknown estimator '{estimator}', expected one of {known}.{nearest(estimator, ESTIMATORS)}"
            )
        if isinstance(x, Tensor):
            batch, lengths = self._batch(x, lengths)
            ends = enumerate(lengths.tolist())
            x = [Prepared(batch[:end, n].cpu(), f"sequence {n}", "", 0) for n, end in ends]
        mode, seed = mode or self.settings.evaluation.mode, self.settings.seed
        plan = Plan((estimator,), particles, mode=mode, seed=seed)
        figures = estimate_all(self.loaded, x, plan)
        for warning in warnings_of(figures, plan).get(estimator, []):
            warnings.warn(warning, stacklevel=2)
        return torch.from_numpy(figures[estimator][0])

    def _batch(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Data on the run's device, and lengths on the CPU."""
        if x.dim() != 3 or x.shape[-1] != self.model.x_dim:
            remedy = " For one sequence (T, D) pass x[:, None]." if x.dim() == 2 else ""
            raise UserError(f"x of shape {tuple(x.shape)}: expected (T, N, D) with D = {self.model.x_dim}.{remedy}")
        lengths = torch.full(x.shape[1:2], len(x)) if lengths is None else lengths.cpu()
        if lengths.shape != x.shape[1:2] or not bool(((lengths >= 1) & (lengths <= len(x))).all()):
            raise UserError(f"lengths {lengths.tolist()}: expected {x.shape[1]} numbers from 1 to {len(x)}.")
        return x.to(device=self.settings.device, dtype=pick_dtype(self.settings.dtype)), lengths

"""Reconstructions of fixed validation sequences as sounds and spectrograms, at each new best (`train.examples`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.frontends.griffin_lim import griffin_lim
from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft
from corpora.loading.sequences import Batch, collate
from corpora.registry import holds_frames
from inference.prediction.reconstruction import reconstruct

if TYPE_CHECKING:
    from inference.training.job import Job
    from inference.training.monitor.logs import MetricsLog

__all__ = ["Examples", "pixels"]

ITERATIONS = 16
"""Iterations of the algorithm of Griffin and Lim: recording and reconstruction both have the phase that it finds."""
RANGE_DB = 80.0
SHARE = 0.02
"""Largest share of the time of training that examples take; a best that comes too early has none."""

Array = NDArray[np.float64]


class Examples:
    """The first validation sequences of different utterances, reconstructed whenever `show` is called.

    Nothing is computed before the first call, and nothing at all without writers, for `train.examples=0` and for data
    that are no spectra of sounds.

    Args:
        job: the training.
        log: gets sounds and pictures; None in processes that write nothing.
    """

    def __init__(self, job: Job, log: MetricsLog | None) -> None:
        self.job, self.log = job, log
        data = job.settings.data
        spectra = not holds_frames(data) and data.frontend != "waveform"
        count = job.settings.train.examples if spectra and log is not None and log.writers else 0
        by_file = {item.file: item for item in reversed(job.valid.sequences)} if count else {}
        self._chosen = [by_file[file] for file in sorted(by_file)[:count]]
        self._frontend = open_frontend(data, job.settings.model.bins) if self._chosen else None
        self._batch: Batch | None = None
        self._started, self._spent = time.perf_counter(), 0.0

    def show(self, step: int) -> None:
        """Log the reconstructions with the present weights, and with the first ones the recordings.

        The random state of training must be kept by the caller.
        """
        now = time.perf_counter()
        log = self.log
        if not self._chosen or log is None or self._spent > SHARE * (now - self._started):
            return
        first = self._batch is None
        batch = self._batch = self._batch or collate(self._chosen)
        job = self.job
        x = batch.x.to(device=job.device, dtype=job.dtype)
        mode, hop = job.settings.evaluation.mode, job.settings.evaluation.segment_hop
        mean = reconstruct(job.model, job.guide, x, batch.lengths, mode=mode, hop=hop).mean
        shown = {**({"recording": batch.x} if first else {}), "reconstruction": mean}
        for kind, values in shown.items():
            for number, frames in enumerate(values.transpose(0, 1).double().cpu()):
                self._write(log, f"examples/{number + 1}-{kind}", frames[: int(batch.lengths[number])].numpy(), step)
        self._spent += time.perf_counter() - now

    def _write(self, log: MetricsLog, name: str, frames: Array, step: int) -> None:
        """One sequence (T, D): its sound, if its features can be inverted, and its picture."""
        if not isinstance(self._frontend, Stft):
            log.picture(name, pixels(frames, float(frames.min()), float(frames.max())), step)
            return
        power = self._frontend.power(np.ascontiguousarray(frames))
        samples = griffin_lim(torch.from_numpy(power)[None], self._frontend, ITERATIONS)[0].numpy()
        loudest = max(1.0, float(np.abs(samples).max(initial=0.0)))
        log.sound(name, (samples / loudest).astype(np.float32), self._frontend.rate, step)
        decibels = 10.0 * np.log10(np.maximum(power, 1e-12))
        top = float(decibels.max())
        log.picture(name, pixels(decibels, top - RANGE_DB, top), step)


def pixels(frames: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Frames (T, D) as a picture (D, T, 3): time to the right, the last feature on top.

    Example:
        >>> picture = pixels(np.array([[0.0, 1.0]]), 0.0, 1.0)
        >>> picture.shape, bool(picture[0].sum() > picture[1].sum())
        ((2, 1, 3), True)
    """
    from matplotlib import colormaps  # only where pictures are logged

    shares = (frames.T[::-1] - low) / ((high - low) or 1.0)
    return np.asarray(np.round(255.0 * colormaps["magma"](np.clip(shares, 0.0, 1.0))[..., :3]), dtype=np.uint8)

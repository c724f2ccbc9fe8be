"""The settings tree of a run, as typed dataclasses; `inference.settings.resolve` fills it.

The sections `model` and `guide` hold the settings classes of the named model and guide. This module imports neither
torch nor a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from corpora.settings import DataSettings
from dvae_pyro.fields import bounded

__all__ = [
    "DataSettings",
    "EvaluationSettings",
    "OptimSettings",
    "ScheduledSamplingSettings",
    "Settings",
    "TrainSettings",
]

LARGEST_SEED = 2**62
"""Torch accepts seeds of 64 bits; evaluations add an offset to the seed."""


@dataclass
class OptimSettings:
    """The optimiser and its learning rate over steps; `inference.training.schedules` gives the formulas.

    `decay_steps` null means all steps after the warm-up; `clip` bounds the norm of the gradient per real frame.
    `weight_decay` applies to all parameters except tables, or, with `weight_decay_on` "hidden", only to the weight
    matrices of hidden fully connected layers.
    """

    name: Literal["adam", "adamw"] = "adam"
    lr: float = bounded(1e-3, at_least=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = bounded(1e-8, at_least=0)
    weight_decay: float = bounded(0.0, at_least=0)
    weight_decay_on: Literal["all", "hidden"] = "all"
    clip: float | None = bounded(None, above=0)
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    warmup_steps: int = bounded(0, at_least=0)
    decay_steps: int | None = bounded(None, at_least=1)
    gamma: float = bounded(0.1, above=0)
    min_lr: float = bounded(0.0, at_least=0)


@dataclass
class ScheduledSamplingSettings:
    """Scheduled sampling: the probability over epochs that a frame is given the model's own output as its past.

    `schedule` null is teacher forcing. Epochs count from 0. `probability` is the final value of each schedule, and the
    value throughout for constant. Linear: 0 until `start_epoch`, then equal steps per epoch, final value at
    `end_epoch`. Staircase: a tenth more every `epochs_per_step`, the first tenth at `start_epoch`.
    `inference.handlers.scheduled_sampling` defines `mix` and `coin`; the public SRNN code uses mix h with coin batch.
    """

    schedule: Literal["constant", "linear", "staircase"] | None = None
    probability: float = bounded(1.0, at_least=0, at_most=1)
    start_epoch: int = bounded(0, at_least=0)
    end_epoch: int = 50
    epochs_per_step: int = bounded(5, at_least=1)
    mix: Literal["x", "h"] = "x"
    coin: Literal["sequence", "batch"] = "sequence"


@dataclass
class FreeBitsSettings:
    """Free bits (`inference.handlers.free_bits`); `threshold` null disables them. The threshold halves every
    `halve_every` steps, if set.
    """

    threshold: float | None = bounded(None, at_least=0)
    mode: Literal["linear", "constant"] = "linear"
    grouping: Literal["element", "channel", "sequence", "layer"] = "element"
    halve_every: int | None = bounded(None, at_least=1)


@dataclass
class DiscriminativeSettings:
    """FHVAE's alpha log p(i | z2), the utterance i being one of `sequences` candidates at a time; null: one of all."""

    alpha: float = bounded(0.0, at_least=0)
    latents: Literal["mean", "sample"] = "mean"
    sequences: int | None = bounded(None, at_least=1)


@dataclass
class TrainSettings:
    """The training: objective, batches and stopping; it ends at `steps`, `epochs` or `patience`, whichever is first.

    `patience` is the number of epochs without a better validation bound after which training stops; null never stops
    early. `beta` weights the KL of every latent; `beta_sites` replaces it for single latents, by name. `objective` is
    the bound that is trained (`inference.objectives.elbo`), with `particles` draws of the guide for each sequence.
    `model_from` is a run whose model is used unchanged: only the guide is trained. Training batches are padded to a
    multiple of `pad_frames`, at most `data.sequence_frames`; `cuda_graph` records a step for each shape of batch and
    replays it (`inference.training.recorded_step`). `autocast` is the precision of networks in training.
    `initialisation` is PyTorch's, or "glorot", TensorFlow's (`models.nn.initialisation`).
    """

    steps: int | None = bounded(None, at_least=1)
    epochs: int | None = bounded(100, at_least=1)
    batch_size: int = bounded(32, at_least=1)
    objective: str = "elbo"
    particles: int = bounded(1, at_least=1)
    beta: float = bounded(1.0, at_least=0)
    beta_sites: dict[str, float] = field(default_factory=dict)
    kl_warmup_steps: int = bounded(0, at_least=0)
    patience: int | None = bounded(20, at_least=1)
    log_every: int = bounded(1, at_least=1)
    checkpoint_every: int = bounded(200, at_least=1)
    bucket: bool = True
    pad_frames: int = bounded(1, at_least=1)
    cuda_graph: bool = False
    autocast: Literal["bf16"] | None = None
    tensorboard: bool = True
    model_from: str | None = None
    initialisation: Literal["torch", "glorot"] = "torch"
    free_bits: FreeBitsSettings = field(default_factory=FreeBitsSettings)
    scheduled_sampling: ScheduledSamplingSettings = field(default_factory=ScheduledSamplingSettings)
    discriminative: DiscriminativeSettings = field(default_factory=DiscriminativeSettings)


@dataclass
class EvaluationSettings:
    """Defaults of the evaluation commands.

    `mode` defaults to "gen" for a run with scheduled sampling. `segment_hop` applies to models of segments: frames
    from one segment of a whole utterance to the next; segments overlap if it is below their length, null is their
    length.
    """

    mode: Literal["gt", "gen"] = "gt"
    latents: Literal["mean", "sample"] = "mean"
    segment_hop: int | None = None


@dataclass
class Settings:
    """Everything that defines a run; `model` and `guide` are the settings classes of the named model and guide."""

    seed: int = bounded(0, at_least=0, at_most=LARGEST_SEED)
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    run: str | None = None
    model: Any = None
    guide: Any = None
    data: DataSettings = field(default_factory=DataSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

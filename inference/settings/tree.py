"""The settings tree of a run, as typed dataclasses; `inference.settings.resolve` fills it.

The sections `model` and `guide` hold the settings classes of the named model and guide. This module imports neither
torch nor a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from corpora.settings import DataSettings
from dvae_pyro.fields import bounded, one_of

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

    Attributes:
        name: The optimiser, of `torch.optim`; "adamw" decouples the weight decay from the gradient.
        lr: Learning rate after the warm-up.
        betas: Decay rates of Adam's running means of the gradient and of its square.
        eps: Term added to the root of the second moment in Adam's denominator.
        weight_decay: Weight decay (L2 penalty) per update.
        weight_decay_on: What it applies to: "all" parameters except tables, or only the weight matrices of "hidden"
            fully connected layers.
        clip: Largest norm of the gradient, per real frame; null does not clip.
        schedule: Learning rate after the warm-up: "constant", "exponential" or "cosine" decay, or "plateau": a decay
            each time that the validation bound has not improved for `plateau_epochs`.
        warmup_steps: Steps over which the learning rate rises linearly to `lr`.
        decay_steps: Steps of the cosine decay, or steps in which the exponential decay reaches `gamma`; null: all steps
            after the warm-up.
        plateau_epochs: Epochs without a better validation bound after which the learning rate is multiplied by `gamma`;
            again after as many more.
        gamma: Factor on the learning rate after `decay_steps` of exponential decay, or at a plateau.
        min_lr: Least learning rate of a decay.
    """

    name: str = one_of("adam", "adamw")
    lr: float = bounded(1e-3, at_least=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = bounded(1e-8, at_least=0)
    weight_decay: float = bounded(0.0, at_least=0)
    weight_decay_on: str = one_of("all", "hidden")
    clip: float | None = bounded(None, above=0)
    schedule: str = one_of("constant", "exponential", "cosine", "plateau")
    warmup_steps: int = bounded(0, at_least=0)
    decay_steps: int | None = bounded(None, at_least=1)
    plateau_epochs: int = bounded(10, at_least=1)
    gamma: float = bounded(0.5, above=0)
    min_lr: float = bounded(0.0, at_least=0)


@dataclass
class ScheduledSamplingSettings:
    """Scheduled sampling: the probability over epochs that a frame is given the model's own output as its past.

    Epochs count from 0. The public SRNN code uses mix "h" with coin "batch".

    Attributes:
        schedule: Probability over epochs: "constant"; "linear" from 0 at `start_epoch` to its final value at
            `end_epoch`; "staircase", a tenth more every `epochs_per_step`, the first tenth at `start_epoch`. Null is
            teacher forcing.
        probability: Final value of the probability; the value throughout for "constant".
        start_epoch: Last epoch at which "linear" is 0; epoch of the first tenth of "staircase".
        end_epoch: Epoch at which "linear" reaches its final value.
        epochs_per_step: Epochs between two steps of "staircase".
        mix: What is mixed: "x", the data and the model's output, or "h", the recurrent states that have seen either
            (`inference.handlers.scheduled_sampling`).
        coin: Whether a frame of each "sequence" draws for itself, or one draw per frame holds for the whole "batch".
    """

    schedule: str | None = one_of(None, "constant", "linear", "staircase")
    probability: float = bounded(1.0, at_least=0, at_most=1)
    start_epoch: int = bounded(0, at_least=0)
    end_epoch: int = 50
    epochs_per_step: int = bounded(5, at_least=1)
    mix: str = one_of("x", "h")
    coin: str = one_of("sequence", "batch")


@dataclass
class FreeBitsSettings:
    """Free bits (`inference.handlers.free_bits`).

    Attributes:
        threshold: KL in nats per group below which a latent is penalised less; null disables free bits.
        mode: Penalty below the threshold: "linear", the KL weighted by its ratio to the threshold; "constant", none.
        grouping: What the KL is summed over before it is compared: nothing ("element"), the values of a latent
            ("channel"), frames ("sequence"), or both ("layer").
        halve_every: Steps in which the threshold falls to half its value, exponentially; null keeps it.
    """

    threshold: float | None = bounded(None, at_least=0)
    mode: str = one_of("linear", "constant")
    grouping: str = one_of("element", "channel", "sequence", "layer")
    halve_every: int | None = bounded(None, at_least=1)


@dataclass
class DiscriminativeSettings:
    """The discriminative objective of the FHVAE, alpha log p(i | z2), i the index of the utterance.

    Attributes:
        alpha: Weight of the term; 0 leaves it out.
        latents: Whether z2 is the "mean" or a "sample" of the guide.
        sequences: Utterances that are candidates for i at a time (hierarchical sampling); null: all of the training
            set.
    """

    alpha: float = bounded(0.0, at_least=0)
    latents: str = one_of("mean", "sample")
    sequences: int | None = bounded(None, at_least=1)


@dataclass
class TrainSettings:
    """The training: objective, batches and stopping; it ends at `steps`, `epochs` or `patience`, whichever is first.

    Attributes:
        steps: Updates of the weights after which training ends; null sets no limit.
        epochs: Epochs after which training ends; null sets no limit.
        batch_size: Sequences per batch, over all processes.
        objective: Lower bound that is trained: "elbo", "analytic", "iwae", "dreg" or "fivo"
            (`inference.objectives.elbo`).
        particles: Draws of the guide for each sequence.
        beta: Weight of the KL of every latent in the objective.
        beta_sites: Weights of the KL of single latents by name, which replace `beta`.
        kl_warmup_epochs: Epochs over which the weight of the KL rises linearly from 0, at most a quarter of the
            training.
        kl_warmup_steps: The same in steps, which replaces `kl_warmup_epochs`; null takes the epochs.
        patience: Epochs without a better validation bound after which training stops; null never stops early.
        log_every: Steps between two training lines of metrics.jsonl.
        checkpoint_every: Steps between two checkpoints last.pt; one is written where training ends or is stopped, too.
        bucket: Whether sequences of similar length share a batch, which saves padding.
        pad_frames: Batches are padded to a multiple of this number of frames, at most `data.sequence_frames`.
        cuda_graph: Whether a step is recorded for each shape of batch as a CUDA graph and replayed
            (`inference.training.recorded_step`).
        autocast: Precision of the networks in training: "bf16", or null for that of `dtype`.
        tensorboard: Whether anything is written for TensorBoard.
        logger: What gets metrics and examples beside metrics.jsonl: "tensorboard", "wandb" and "mlflow", separated by
            commas, or "none". The packages of the last two are installed separately.
        examples: Validation sequences whose recording and reconstruction are logged as sounds and spectrograms at a new
            best, in at most a fiftieth of the time of training (a best that comes too early has none); 0 logs none.
        model_from: Run folder whose model is used unchanged: only the guide is trained.
        initialisation: Initial weights: "torch", PyTorch's defaults, or "glorot", those of TensorFlow
            (`models.nn.initialisation`).
    """

    steps: int | None = bounded(None, at_least=1)
    epochs: int | None = bounded(100, at_least=1)
    batch_size: int = bounded(32, at_least=1)
    objective: str = "elbo"
    particles: int = bounded(1, at_least=1)
    beta: float = bounded(1.0, at_least=0)
    beta_sites: dict[str, float] = field(default_factory=dict)
    kl_warmup_epochs: float = bounded(0.0, at_least=0)
    kl_warmup_steps: int | None = bounded(None, at_least=0)
    patience: int | None = bounded(20, at_least=1)
    log_every: int = bounded(1, at_least=1)
    checkpoint_every: int = bounded(200, at_least=1)
    bucket: bool = True
    pad_frames: int = bounded(1, at_least=1)
    cuda_graph: bool = False
    autocast: str | None = one_of(None, "bf16")
    tensorboard: bool = True
    logger: str = "tensorboard"
    examples: int = bounded(3, at_least=0)
    model_from: str | None = None
    initialisation: str = one_of("torch", "glorot")
    free_bits: FreeBitsSettings = field(default_factory=FreeBitsSettings)
    scheduled_sampling: ScheduledSamplingSettings = field(default_factory=ScheduledSamplingSettings)
    discriminative: DiscriminativeSettings = field(default_factory=DiscriminativeSettings)


@dataclass
class EvaluationSettings:
    """Defaults of the evaluation commands.

    Attributes:
        mode: What the decoder is given as the past of the data: the true one ("gt") or its own output ("gen"); "gen" is
            the default for a run with scheduled sampling.
        latents: Whether the "mean" of the guide is decoded or a "sample".
        segment_hop: Frames from one segment of a whole utterance to the next, for models of segments; segments overlap
            if it is below their length. Null is their length.
    """

    mode: str = one_of("gt", "gen")
    latents: str = one_of("mean", "sample")
    segment_hop: int | None = None


@dataclass
class Settings:
    """Everything that defines a run.

    Attributes:
        seed: Seed of initial weights, order of sequences and noise.
        dtype: Floating-point type of weights and data.
        device: Where tensors are: "auto" (cuda where there is one, else cpu), "cpu", "cuda" or "cuda:N".
        run: Run folder; null makes one under runs/.
        model: The settings class of the named model.
        guide: The settings class of the named guide.
    """

    seed: int = bounded(0, at_least=0, at_most=LARGEST_SEED)
    dtype: str = one_of("float32", "float64")
    device: str = "auto"
    run: str | None = None
    model: Any = None
    guide: Any = None
    data: DataSettings = field(default_factory=DataSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

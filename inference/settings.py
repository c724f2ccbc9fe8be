"""The settings tree of a run, as typed dataclasses, and how it is filled.

Model defaults < what front end and corpus imply < YAML config < key=value. The sections `model` and `guide` come from
the classes that the names stand for, so a wrong key or type is refused by name whatever the model is. Neither torch nor
a model is imported before `resolve` is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inference.errors import UserError
from inference.files import write_atomically
from inference.layers import absent, apply_layer, first_line, parse_overrides, read_config
from inference.limits import check_limits, refuse_idle
from inference.scheduled_sampling import ScheduledSamplingSettings, check

__all__ = [
    "DataSettings",
    "EvaluationSettings",
    "OptimSettings",
    "Settings",
    "TrainSettings",
    "load_run_settings",
    "resolve",
    "save_settings",
    "to_yaml",
]

_SCHEDULE = "train.scheduled_sampling.schedule"
_SHORT = {
    "train.scheduled_sampling": _SCHEDULE,
    "train.free_bits": "train.free_bits.threshold",
    "train.discriminative": "train.discriminative.alpha",
}


@dataclass
class DataSettings:
    """The corpus and its frames; `corpora.corpus.CORPUS_DEFAULTS` says what a corpus implies.

    `layout` (null: recognised) and `speaker_level` say how a folder is read (`corpora.recipes.layouts`);
    `window` null is 2 (bins - 1) samples (fbank: 25 ms, log_magnitude: 2 bins), `hop` null 16 ms (these two: 10 ms);
    `domains` is of `corpora.domains`, `noise` of `corpora.strokes`, `frame_width` is for data.frontend=waveform alone
    (`corpora.waveforms`); `short` drops or keeps utterances shorter than `sequence_frames`; `cache` is a folder to keep
    features in (`corpora.cache`).
    """

    corpus: str = "synthetic"
    root: str | None = None
    layout: str | None = None
    speaker_level: int | None = None
    set: str | None = None
    domains: str | None = None
    seed: int = 0
    rate: int = 16000
    channel: int | None = None
    frontend: str = "stft"
    window: int | None = None
    hop: int | None = None
    frame_width: int | None = None
    trim_db: float | None = 30.0
    sequence_frames: int | None = 150
    short: Literal["drop", "keep"] = "drop"
    noise: Literal["all", "train"] | None = None
    on_error: Literal["error", "skip"] = "error"
    cache: str | None = None


@dataclass
class OptimSettings:
    """The optimiser and its learning rate over steps; `inference.schedules` gives the formulas.

    `decay_steps` null is all steps after the warm-up; `clip` bounds the norm of the gradient per real frame.
    `weight_decay` is of all parameters but tables, or, with `weight_decay_on` "hidden", of the matrices of hidden fully
    connected layers alone.
    """

    name: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    weight_decay_on: Literal["all", "hidden"] = "all"
    clip: float | None = None
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    warmup_steps: int = 0
    decay_steps: int | None = None
    gamma: float = 0.1
    min_lr: float = 0.0


@dataclass
class FreeBitsSettings:
    """Free bits (`inference.free_bits`); `threshold` null is without. It halves every `halve_every` steps, if set."""

    threshold: float | None = None
    mode: Literal["linear", "constant"] = "linear"
    grouping: Literal["element", "channel", "sequence", "layer"] = "element"
    halve_every: int | None = None


@dataclass
class DiscriminativeSettings:
    """FHVAE's alpha log p(i | z2), and `sequences`, from how many utterances at a time i is told; null: from all."""

    alpha: float = 0.0
    latents: Literal["mean", "sample"] = "mean"
    sequences: int | None = None


@dataclass
class TrainSettings:
    """How long and on what training runs: to `steps`, `epochs` or lost `patience`, whichever comes first.

    `patience` counts epochs in which the validation bound did not improve; null never stops early. `beta` weighs the KL
    of every latent, `beta_sites` that of single latents, by their names, in its place. `objective` is the bound that is
    trained (`inference.objectives`), with `particles` draws of the guide for each sequence. `model_from` is a run whose
    model is taken as it is: only the guide is trained. Batches of training are padded to a multiple of `pad_frames`, at
    most `data.sequence_frames`; `capture` records a step for each shape of them and replays it (`inference.captured`).
    With `autocast` networks compute in that precision in training.
    """

    steps: int | None = None
    epochs: int | None = 100
    batch_size: int = 32
    objective: str = "elbo"
    particles: int = 1
    beta: float = 1.0
    beta_sites: dict[str, float] = field(default_factory=dict)
    kl_warmup_steps: int = 0
    patience: int | None = 20
    log_every: int = 1
    checkpoint_every: int = 200
    bucket: bool = True
    pad_frames: int = 1
    capture: bool = False
    autocast: Literal["bf16"] | None = None
    tensorboard: bool = True
    model_from: str | None = None
    free_bits: FreeBitsSettings = field(default_factory=FreeBitsSettings)
    scheduled_sampling: ScheduledSamplingSettings = field(default_factory=ScheduledSamplingSettings)
    discriminative: DiscriminativeSettings = field(default_factory=DiscriminativeSettings)


@dataclass
class EvaluationSettings:
    """What evaluations assume when their command line says nothing.

    `mode` is "gen" by default for a run with scheduled sampling. `segment_hop` is of a model of segments: frames from
    one segment of a whole utterance to the next, which overlap where these are fewer than a segment has; null is all.
    """

    mode: Literal["gt", "gen"] = "gt"
    latents: Literal["mean", "sample"] = "mean"
    segment_hop: int | None = None


@dataclass
class Settings:
    """Everything that defines a run; `model` and `guide` hold the settings classes of what they name."""

    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    run: str | None = None
    model: Any = None
    guide: Any = None
    data: DataSettings = field(default_factory=DataSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


def resolve(
    model: str | None = None,
    guide: str | None = None,
    config_path: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Settings:
    """Fill the settings tree: model defaults < what front end and corpus imply < YAML config < key=value.

    Args:
        model: name of the model; null takes `model.name` of the overrides or the config.
        guide: name of the guide; null takes `guide.name` of the overrides or the config, else "own".
        config_path: path of a YAML file, or the name of a packaged config such as "benchmark/dkf".
        overrides: `key=value` strings with dotted keys.
    """
    config = read_config(config_path) if config_path is not None else {}
    return _resolve(model, guide, config, "config" if config_path is None else str(config_path), overrides)


def _resolve(
    model: str | None,
    guide: str | None,
    config: Mapping[str, Any],
    where: str,
    overrides: Sequence[str],
    *,
    of_run: bool = False,
) -> Settings:
    """`resolve` with the config read; one of a run folder may be older than a setting."""
    config = _spelled_out(config)
    given = _spelled_out(parse_overrides(overrides))
    model_name = _choose("model", model, given, config)
    guide_name = _choose("guide", guide, given, config) or "own"
    from models.registry import model_class, model_names

    if model_name is None:
        raise UserError(f"No model is named. Add --model NAME; models are: {', '.join(model_names())}.")
    tree = OmegaConf.structured(Settings)
    cls = model_class(model_name)
    tree.model = OmegaConf.structured(cls.Settings)
    tree.model.name = model_name
    from guides.registry import guide_class

    tree.guide = OmegaConf.structured(guide_class(model_name, guide_name).Settings)
    tree.guide.name = guide_name
    scheduled = given.get(_SCHEDULE, config.get(_SCHEDULE)) is not None
    implied: dict[str, Any] = {"evaluation.mode": "gen"} if scheduled else {}
    if given.get("train.model_from", config.get("train.model_from")) is not None:
        implied["train.kl_warmup_steps"] = 0  # it keeps a model from neglecting its latents; this one is trained
    defaults = {**cls.defaults, **implied}
    from corpora.corpus import CORPUS_DEFAULTS
    from corpora.waveforms import waveform_defaults

    corpus = str(given.get("data.corpus", config.get("data.corpus", tree.data.corpus)))
    of_corpus = CORPUS_DEFAULTS.get(corpus, {})
    said = {**defaults, **of_corpus, **config, **given}
    of_waveform = waveform_defaults(said)
    for layer, source in (
        (defaults, f"defaults of {model_name}"),
        (of_waveform, "defaults of waveforms"),
        (cls.waveform_defaults(of_waveform["model.bins"]) if of_waveform else {}, f"{model_name} of waveforms"),
        (of_corpus, f"defaults of {corpus}"),
        (absent(tree, config) if of_run else {}, where),
        (config, where),
        (given, ""),
    ):
        apply_layer(tree, layer, source)
    refuse_idle(given if "optim.schedule" in {**given, **config} else {**config, **given}, tree.optim.schedule)
    idle = [key for key in given if key.startswith("train.scheduled_sampling.") and key != _SCHEDULE]
    if idle and not scheduled:
        raise UserError(f"{idle[0]} says nothing without a schedule. Add {_SCHEDULE}=constant, linear or staircase.")
    settings = _finish(tree)
    check(settings.train.scheduled_sampling, cls.parents(settings.model), model_name)
    return settings


def load_run_settings(run: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a run, changed by `overrides`; `settings.run` is where the run lies now."""
    path = Path(run) / "config.yaml"
    if not Path(run).is_dir():
        raise UserError(f"No run folder at {run}. Train one with: python -m inference.svi --model dkf --run {run}")
    if not path.is_file():
        raise UserError(f"{run} is no run folder: it holds no config.yaml. Give the folder that --run named.")
    trained, given = read_config(path), _spelled_out(parse_overrides(overrides))
    for key in ("model.name", "guide.name"):
        if key in given and given[key] != trained.get(key):
            raise UserError(
                f"{key}={given[key]} contradicts the run {run}, which is of {key}={trained.get(key)}.\n"
                "Leave it away, or train another run."
            )
    scheduled, was_scheduled = given.get(_SCHEDULE, trained.get(_SCHEDULE)), trained.get(_SCHEDULE)
    if bool(scheduled) != bool(was_scheduled) and "evaluation.mode" not in given:
        overrides = [*overrides, f"evaluation.mode={'gen' if scheduled else 'gt'}"]  # the run's is the other default
    settings = _resolve(None, None, trained, str(path), overrides, of_run=True)
    settings.run = str(run)
    return settings


def to_yaml(settings: Settings) -> str:
    """The whole tree as YAML, ready to be a --config."""
    return OmegaConf.to_yaml(OmegaConf.structured(settings))


def save_settings(settings: Settings, path: Path) -> None:
    """Write the resolved tree; the file is whole or not there."""
    write_atomically(path, to_yaml(settings).encode())


def _spelled_out(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer with what may be said for short, train.scheduled_sampling=linear, under its full key."""
    return {_SHORT.get(key, key): value for key, value in layer.items()}


def _choose(part: str, flag: str | None, given: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The model's or guide's name: the command line's, else the config's."""
    key = f"{part}.name"
    if flag is not None and str(given.get(key, flag)) != flag:
        raise UserError(f"--{part} {flag} contradicts {key}={given[key]}. Give one of them.")
    name = flag or given.get(key) or config.get(key)
    return None if name is None else str(name)


def _finish(tree: DictConfig) -> Settings:
    try:
        settings = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise UserError(f"The settings do not resolve: {first_line(error)}") from error
    assert isinstance(settings, Settings)
    check_limits(settings)
    from corpora.corpus import check_data

    check_data(settings.data)
    return settings

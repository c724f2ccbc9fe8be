"""Schedules of learning rate, KL weight and free bits, as pure functions: they have no state to resume.

Steps count from 1: step k is the k-th update of the parameters.
"""

from __future__ import annotations

import math

from inference.settings.tree import FreeBitsSettings, OptimSettings, TrainSettings

__all__ = ["free_bits_threshold", "is_plateau", "kl_warmup", "kl_weight", "learning_rate", "total_steps"]


def total_steps(train: TrainSettings, batches: int) -> int:
    """Steps until `train.steps` or `train.epochs` is reached, with `batches` steps per epoch."""
    limits = [train.steps, None if train.epochs is None else train.epochs * batches]
    return min(limit for limit in limits if limit is not None)


def learning_rate(optim: OptimSettings, step: int, total: int, plateaus: int = 0) -> float:
    r"""The learning rate at step k of `total`: a linear warm-up over W steps, then one of

    - constant: \eta
    - exponential: max(\eta_min, \eta \gamma^{(k - W) / D})
    - cosine: \eta_min + (\eta - \eta_min) (1 + \cos(\pi (k - W) / D)) / 2, and \eta_min after k = W + D
    - plateau: max(\eta_min, \eta \gamma^P), P = `plateaus`, the plateaus of the validation bound so far (`is_plateau`)

    with D = `decay_steps`, or all steps after the warm-up. Exponential and cosine decay from the first step after the
    warm-up; \eta is the rate of step W (of a hypothetical step 0 if W = 0).

    Example:
        >>> optim = OptimSettings(lr=1.0, schedule="cosine", warmup_steps=2)
        >>> [round(learning_rate(optim, k, 6), 3) for k in range(1, 7)]
        [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
        >>> optim = OptimSettings(lr=1.0, schedule="plateau")
        >>> [learning_rate(optim, 9, 100, plateaus) for plateaus in range(3)]
        [1.0, 0.5, 0.25]
    """
    warmup = optim.warmup_steps
    if step < warmup:
        return optim.lr * step / warmup
    decay = optim.decay_steps if optim.decay_steps is not None else max(1, total - warmup)
    elapsed = (step - warmup) / decay
    if optim.schedule == "exponential":
        return max(optim.min_lr, optim.lr * math.pow(optim.gamma, elapsed))
    if optim.schedule == "plateau":
        return max(optim.min_lr, optim.lr * math.pow(optim.gamma, plateaus))
    if optim.schedule == "cosine":
        return optim.min_lr + (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * min(1.0, elapsed))) / 2
    return optim.lr


def is_plateau(optim: OptimSettings, stale_epochs: int) -> bool:
    """Whether a plateau of the validation bound ends with this epoch, the `stale_epochs`-th since its best.

    Example:
        >>> optim = OptimSettings(plateau_epochs=2)
        >>> [is_plateau(optim, stale) for stale in range(5)]
        [False, False, True, False, True]
    """
    return stale_epochs > 0 and stale_epochs % optim.plateau_epochs == 0


def kl_warmup(train: TrainSettings, batches: int) -> int:
    """The steps over which the weight of the KL rises, with `batches` steps per epoch: `kl_warmup_steps`, or else
    `kl_warmup_epochs`, at most a quarter of all steps, so that a short training ends with the whole KL.

    Example:
        >>> [kl_warmup(TrainSettings(kl_warmup_epochs=10, steps=n), batches=20) for n in (10_000, 400)]
        [200, 100]
    """
    if train.kl_warmup_steps is not None:
        return train.kl_warmup_steps
    return min(math.ceil(train.kl_warmup_epochs * batches), total_steps(train, batches) // 4)


def kl_weight(train: TrainSettings, step: int, site: str | None = None) -> float:
    """The weight of the KL at a step: a linear rise to `beta` over `kl_warmup_steps` (`kl_warmup` computes them).

    Args:
        train: the settings.
        step: the step.
        site: name of a latent, whose weight in `beta_sites` replaces `beta`.

    Example:
        >>> [kl_weight(TrainSettings(beta=2.0, kl_warmup_steps=4), k) for k in (1, 2, 4, 9)]
        [0.5, 1.0, 2.0, 2.0]
    """
    beta = train.beta if site is None else train.beta_sites.get(site, train.beta)
    if not train.kl_warmup_steps:
        return beta
    return beta * min(1.0, step / train.kl_warmup_steps)


def free_bits_threshold(settings: FreeBitsSettings, step: int) -> float | None:
    r"""The threshold of free bits at step k: \lambda 2^{-k / H}, H = `halve_every`; None if disabled.

    Example:
        >>> [free_bits_threshold(FreeBitsSettings(0.5, halve_every=10), k) for k in (0, 10, 20)]
        [0.5, 0.25, 0.125]
    """
    if settings.threshold is None or settings.halve_every is None:
        return settings.threshold
    return settings.threshold * math.pow(0.5, step / settings.halve_every)

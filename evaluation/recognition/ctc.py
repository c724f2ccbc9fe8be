"""The recogniser of `evaluation.recognition`: LSTMs over features, trained by connectionist temporal
classification (CTC; Graves et al., 2006), and decoded greedily.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from corpora.loading.sequences import Batches, Prepared, collate
from dvae_pyro.errors import UserError
from models.nn.layers import Context

__all__ = [
    "Errors",
    "Options",
    "Recogniser",
    "count_errors",
    "greedy",
    "needed",
    "recognise",
    "share",
    "train",
]

Transcript = Sequence[str]


class Options(NamedTuple):
    """Of recogniser and training.

    Attributes:
        width: H of the LSTM in each direction.
        steps: Updates of the weights.
        batch: Utterances in each.
        lr: Learning rate (Adam), which falls to 0 along a cosine.
        every: Updates between two looks at the validation utterances.
    """

    width: int = 128
    steps: int = 600
    batch: int = 32
    lr: float = 4e-3
    every: int = 60

    def check(self) -> None:
        """Refuse sizes that nothing can be built from."""
        for name in ("width", "steps", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: got {getattr(self, name)}, expected 1 or more.")


class Recogniser(nn.Module):
    """p(token or blank | features) at each frame: an LSTM in each direction over standardised features, an affine map.

    Args:
        tokens: What it knows; index 0 of its output is the blank, then these.
        like: Training features (T, D), whose statistics standardise.
        options: Sizes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, tokens: Sequence[str], like: Sequence[Tensor], options: Options) -> None:
        super().__init__()
        self.tokens = tuple(tokens)
        every = torch.cat(list(like))
        self.register_buffer("mean", every.mean(0))
        self.register_buffer("scale", every.std(0).clamp_min(1e-6))
        self.context = Context(every.shape[1], options.width)
        self.head = nn.Linear(self.context.out_dim, len(self.tokens) + 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """From x (T, N, D) to log-probabilities (T, N, 1 + V)."""
        h = self.context((x - self.mean) / self.scale, lengths)
        log_probabilities: Tensor = self.head(h).log_softmax(-1)
        return log_probabilities


def greedy(log_probabilities: Tensor, lengths: Tensor) -> list[list[int]]:
    """The likeliest symbol of each frame, repetitions merged, then blanks (0) left out: (T, N, V) to N lists.

    Example:
        >>> frames = torch.tensor([1, 1, 0, 1, 2, 2, 0])
        >>> greedy(nn.functional.one_hot(frames)[:, None].float(), torch.tensor([6]))
        [[1, 1, 2]]
    """
    best = [column[:length] for column, length in zip(log_probabilities.argmax(-1).T, lengths.tolist(), strict=True)]
    merged = [torch.unique_consecutive(column) for column in best]
    return [column[column > 0].tolist() for column in merged]


def needed(transcript: Transcript) -> int:
    """Frames that CTC needs to say a transcript: one for each token, and a blank between two that are alike.

    Example:
        >>> needed(["1", "1", "2"])
        4
    """
    return len(transcript) + sum(a == b for a, b in pairwise(transcript))


class Errors(NamedTuple):
    """Of one utterance: substitutions, deletions and insertions together, and tokens said."""

    errors: int
    tokens: int


def count_errors(said: Transcript, heard: Transcript) -> Errors:
    """Errors of the alignment with the fewest (jiwer's).

    Example:
        >>> count_errors(["1", "2", "3"], ["1", "3", "3", "4"])
        Errors(errors=2, tokens=3)
    """
    import jiwer

    found = jiwer.process_words(" ".join(said), " ".join(heard))
    return Errors(found.substitutions + found.deletions + found.insertions, len(said))


def share(counts: Sequence[Errors]) -> float:
    """Errors per token said."""
    return sum(count.errors for count in counts) / sum(count.tokens for count in counts)


def recognise(recogniser: Recogniser, features: Sequence[Prepared], batch: int = 64) -> list[list[str]]:
    """What is heard in each utterance's features, in their order."""
    heard: list[list[str]] = [[] for _ in features]
    device = recogniser.mean.device
    recogniser.eval()
    with torch.no_grad():
        for index in Batches(features, batch, shuffle=False).epoch(0):
            given = collate([features[n] for n in index])
            for n, symbols in zip(
                index, greedy(recogniser(given.x.to(device), given.lengths), given.lengths), strict=True
            ):
                heard[n] = [recogniser.tokens[symbol - 1] for symbol in symbols]
    return heard


def train(
    data: Sequence[Prepared],
    said: Sequence[Transcript],
    valid: Sequence[Prepared],
    valid_said: Sequence[Transcript],
    options: Options,
    *,
    seed: int = 0,
    device: str = "cpu",
    label: str = "recogniser",
    progress: bool = False,
) -> tuple[Recogniser, int]:
    """Train a recogniser, and keep the weights that make the fewest errors on the validation utterances.

    Args:
        data: Features of the training utterances, each with as many frames as `needed`.
        said: Their transcripts.
        valid: Features of the validation utterances.
        valid_said: Their transcripts.
        options: Sizes.
        seed: Of weights and order.
        device: Where to compute.
        label: Printed before the progress bar.
        progress: Draw it, on standard error.

    Returns:
        The recogniser, and the step that its weights are of.
    """
    from tqdm import tqdm

    tokens = sorted({token for transcript in said for token in transcript})
    number = {token: n for n, token in enumerate(tokens, start=1)}
    targets = [torch.tensor([number[token] for token in transcript]) for transcript in said]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        recogniser = Recogniser(tokens, [item.x for item in data], options).to(device)
    optimiser = torch.optim.Adam(recogniser.parameters(), options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    batches = Batches(data, options.batch, seed)
    best, best_step, best_weights = math.inf, 0, copy.deepcopy(recogniser.state_dict())
    seldom = 0.2 if sys.stderr.isatty() else 30.0
    bar = tqdm(total=options.steps, desc=label, unit="step", disable=not progress, leave=False, mininterval=seldom)
    step = epoch = 0
    with bar:
        while step < options.steps:
            for index in batches.epoch(epoch)[: options.steps - step]:
                batch = collate([data[n] for n in index])
                recogniser.train()
                log_probabilities = recogniser(batch.x.to(device), batch.lengths)
                loss = nn.functional.ctc_loss(
                    log_probabilities,
                    torch.cat([targets[n] for n in index]).to(device),
                    batch.lengths,
                    torch.tensor([len(targets[n]) for n in index]),
                    reduction="sum",
                ) / len(index)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(recogniser.parameters(), 5.0)
                optimiser.step()
                schedule.step()
                step += 1
                bar.update()
                if step % options.every == 0 or step == options.steps:
                    heard = recognise(recogniser, valid)
                    wrong = share([count_errors(*pair) for pair in zip(valid_said, heard, strict=True)])
                    bar.set_postfix_str(f"loss {loss.item():.3g}, valid {100 * wrong:.1f} %")
                    if wrong <= best:
                        best, best_step, best_weights = wrong, step, copy.deepcopy(recogniser.state_dict())
            epoch += 1
    recogniser.load_state_dict(best_weights)
    return recogniser, best_step

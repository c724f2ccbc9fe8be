"""The recogniser of `evaluation.recognition`: a bidirectional LSTM with connectionist temporal classification.

(CTC; Graves et al., 2006.) Decoding is greedy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jiwer
import torch
from torch import Tensor, nn

from corpora.loading.sequences import Batches, Prepared, collate
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from models.nn.layers import Context

__all__ = [
    "Errors",
    "Recogniser",
    "RecogniserOptions",
    "count_errors",
    "error_rate",
    "frames_needed",
    "greedy",
    "recognise",
    "train",
]

Transcript = Sequence[str]


class RecogniserOptions(NamedTuple):
    """Options of a recogniser and its training.

    Attributes:
        width: Width H of the LSTM in each direction.
        steps: Updates of the weights.
        batch: Utterances in a batch.
        lr: Learning rate of Adam, with a cosine schedule that ends at 0.
        every: Updates from one validation to the next.
    """

    width: int = 128
    steps: int = 600
    batch: int = 32
    lr: float = 4e-3
    every: int = 60

    def check(self) -> None:
        """Check the sizes.

        Raises:
            UserError: A size is below 1.
        """
        for name in ("width", "steps", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: got {getattr(self, name)}, expected 1 or more.")


class Recogniser(nn.Module):
    """p(token or blank | features) at each frame: an LSTM in each direction over standardised features, an affine map.

    Args:
        tokens: The vocabulary; output 0 is the blank, the others are these.
        like: Training features (T, D), whose mean and deviation standardise the input.
        options: Sizes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, tokens: Sequence[str], like: Sequence[Tensor], options: RecogniserOptions) -> None:
        super().__init__()
        self.tokens = tuple(tokens)
        pooled = torch.cat(list(like))
        self.register_buffer("mean", pooled.mean(0))
        self.register_buffer("scale", pooled.std(0).clamp_min(1e-6))
        self.context = Context(pooled.shape[1], options.width)
        self.head = nn.Linear(self.context.out_dim, len(self.tokens) + 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities (T, N, 1 + V) of features x (T, N, D)."""
        h = self.context((x - self.mean) / self.scale, lengths)
        log_probabilities: Tensor = self.head(h).log_softmax(-1)
        return log_probabilities


def greedy(log_probabilities: Tensor, lengths: Tensor) -> list[list[int]]:
    """Greedy decoding (T, N, V) to N lists: the most probable symbol of each frame, merged, without blanks (0).

    Example:
        >>> frames = torch.tensor([1, 1, 0, 1, 2, 2, 0])
        >>> greedy(nn.functional.one_hot(frames)[:, None].float(), torch.tensor([6]))
        [[1, 1, 2]]
    """
    best = [column[:length] for column, length in zip(log_probabilities.argmax(-1).T, lengths.tolist(), strict=True)]
    merged = [torch.unique_consecutive(column) for column in best]
    return [column[column > 0].tolist() for column in merged]


def frames_needed(transcript: Transcript) -> int:
    """Frames that CTC needs for a transcript: one for each token, and a blank between equal neighbours.

    Example:
        >>> frames_needed(["1", "1", "2"])
        4
    """
    return len(transcript) + sum(a == b for a, b in pairwise(transcript))


class Errors(NamedTuple):
    """Substitutions, deletions and insertions in one utterance, and tokens of its transcript."""

    errors: int
    tokens: int


def count_errors(transcript: Transcript, hypothesis: Transcript) -> Errors:
    """Errors of a hypothesis, in the alignment with the fewest errors.

    Example:
        >>> count_errors(["1", "2", "3"], ["1", "3", "3", "4"])
        Errors(errors=2, tokens=3)
    """
    aligned = jiwer.process_words(" ".join(transcript), " ".join(hypothesis))
    return Errors(aligned.substitutions + aligned.deletions + aligned.insertions, len(transcript))


def error_rate(counts: Sequence[Errors]) -> float:
    """Errors per token."""
    return sum(count.errors for count in counts) / sum(count.tokens for count in counts)


def recognise(recogniser: Recogniser, features: Sequence[Prepared], batch: int = 64) -> list[list[str]]:
    """Tokens recognised in each utterance, in the order of `features`."""
    hypotheses: list[list[str]] = [[] for _ in features]
    recogniser.eval()
    with torch.no_grad():
        for indices in Batches(features, batch, shuffle=False).epoch(0):
            padded = collate([features[n] for n in indices])
            log_probabilities = recogniser(padded.x.to(recogniser.mean.device), padded.lengths)
            for n, symbols in zip(indices, greedy(log_probabilities, padded.lengths), strict=True):
                hypotheses[n] = [recogniser.tokens[symbol - 1] for symbol in symbols]
    return hypotheses


def train(
    data: Sequence[Prepared],
    transcripts: Sequence[Transcript],
    valid: Sequence[Prepared],
    valid_transcripts: Sequence[Transcript],
    options: RecogniserOptions,
    *,
    seed: int = 0,
    device: str = "cpu",
    label: str = "recogniser",
    progress: bool = False,
) -> tuple[Recogniser, int]:
    """Train a recogniser, and select the weights with the fewest errors on the validation utterances.

    Args:
        data: Features of the training utterances, each with at least `frames_needed` frames.
        transcripts: Their transcripts.
        valid: Features of the validation utterances.
        valid_transcripts: Their transcripts.
        options: Sizes.
        seed: Seed of the initial weights and the order of the data.
        device: Device to compute on.
        label: Printed before the progress bar.
        progress: Draw a progress bar on standard error.

    Returns:
        The recogniser, and the step at which its weights were selected.
    """
    tokens = sorted({token for transcript in transcripts for token in transcript})
    number = {token: n for n, token in enumerate(tokens, start=1)}
    targets = [torch.tensor([number[token] for token in transcript]) for transcript in transcripts]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        recogniser = Recogniser(tokens, [item.x for item in data], options).to(device)
    optimiser = torch.optim.Adam(recogniser.parameters(), options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    batches = Batches(data, options.batch, seed)
    best, best_step, best_weights = math.inf, 0, copy.deepcopy(recogniser.state_dict())
    step = epoch = 0
    with progress_bar(label, options.steps, "step", shown=progress, leave=False) as bar:
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
                    hypotheses = recognise(recogniser, valid)
                    pairs = zip(valid_transcripts, hypotheses, strict=True)
                    validation = error_rate([count_errors(*pair) for pair in pairs])
                    bar.set_postfix_str(f"loss {loss.item():.3g}, valid {100 * validation:.1f} %")
                    if validation <= best:
                        best, best_step, best_weights = validation, step, copy.deepcopy(recogniser.state_dict())
            epoch += 1
    recogniser.load_state_dict(best_weights)
    return recogniser, best_step

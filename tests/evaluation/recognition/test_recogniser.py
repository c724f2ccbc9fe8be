"""Decoding against enumeration, error rates by hand, and a recogniser that learns what there is to learn."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch
from torch import Tensor, nn

from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError
from evaluation.recognition.ctc import (
    Errors,
    Recogniser,
    RecogniserOptions,
    count_errors,
    error_rate,
    frames_needed,
    greedy,
    recognise,
    train,
)
from evaluation.reporting.report import ratio

SMALL = RecogniserOptions(width=10, steps=100, batch=8, lr=3e-2, every=25)


def merged(path: tuple[int, ...]) -> list[int]:
    """CTC's map from symbols to tokens, one symbol at a time."""
    said: list[int] = []
    before = 0
    for symbol in path:
        if symbol not in (0, before):
            said.append(symbol)
        before = symbol
    return said


def test_greedy_decoding_merges_as_ctc_does() -> None:
    for path in itertools.product(range(3), repeat=5):
        frames = nn.functional.one_hot(torch.tensor(path), 3).float()[:, None]
        assert greedy(frames, torch.tensor([5])) == [merged(path)]
        assert greedy(frames, torch.tensor([3])) == [merged(path[:3])]


def test_frames_needed_are_those_of_the_shortest_path() -> None:
    shortest: dict[tuple[int, ...], int] = {}
    for frames in range(6):
        for path in itertools.product(range(3), repeat=frames):
            shortest.setdefault(tuple(merged(path)), frames)
    for said, frames in shortest.items():
        assert frames_needed([str(token) for token in said]) == frames


def distance(a: str, b: str) -> int:
    """The fewest edits, by recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_errors_are_the_fewest_edits_and_rates_their_ratio() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [
        tuple("".join(map(str, torch.randint(3, (size,), generator=generator).tolist())) for size in sizes)
        for sizes in itertools.product(range(1, 6), range(6))
    ]
    counts = [count_errors(list(said), list(heard)) for said, heard in pairs]
    assert counts == [Errors(distance(said, heard), len(said)) for said, heard in pairs]
    found = error_rate(counts)
    assert found == sum(map(distance, *zip(*pairs, strict=True))) / sum(len(said) for said, _ in pairs)


def test_ratios_have_the_error_of_a_mean_where_parts_are_alike() -> None:
    assert ratio([(1, 4)]) == (0.25, None, 1)
    same = [(e, 4) for e in (0, 1, 3, 2, 2)]
    expected = statistics.stdev(e / 4 for e, _ in same) / math.sqrt(5)
    assert ratio(same).stderr == pytest.approx(expected)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 9, (400, 60), generator=generator)
    errors = torch.binomial(sizes.double(), torch.full(sizes.shape, 0.3, dtype=torch.float64), generator=generator)
    rates = [ratio(list(zip(e.tolist(), n.tolist(), strict=True))) for e, n in zip(errors, sizes, strict=True)]
    spread = statistics.stdev(float(r.mean or 0.0) for r in rates)  # known to 1 / sqrt(800), 4 %
    assert statistics.mean(float(r.stderr or 0.0) for r in rates) == pytest.approx(spread, rel=0.15)


def utterances(count: int, seed: int) -> tuple[list[Prepared], list[list[str]]]:
    """Tokens a, b, c of three to five frames, each a direction of its own, on another scale, in noise."""
    generator = torch.Generator().manual_seed(seed)
    items, said = [], []
    for n in range(count):
        tokens = torch.randint(3, (int(torch.randint(1, 6, (), generator=generator)),), generator=generator)
        repeats = torch.randint(3, 6, tokens.shape, generator=generator)
        silence = torch.zeros(1, 4)
        parts: list[Tensor] = [silence]
        for token, repeat in zip(tokens.tolist(), repeats.tolist(), strict=True):
            parts += [torch.eye(4)[token].expand(repeat, -1), silence]
        x = torch.cat(parts)
        x = 100.0 * (x + 0.1 * torch.randn(x.shape, generator=generator)) + 1000.0
        items.append(Prepared(x, f"{n}", "s", 0))
        said.append(["abc"[token] for token in tokens.tolist()])
    return items, said


def wrong(recogniser: Recogniser, items: list[Prepared], truth: list[list[str]]) -> float:
    heard = recognise(recogniser, items)
    return error_rate([count_errors(*pair) for pair in zip(truth, heard, strict=True)])


def test_a_recogniser_learns_tokens_and_nothing_from_noise() -> None:
    data, said = utterances(48, 0)
    test, truth = utterances(20, 1)
    recogniser, step = train(data, said, test[:10], truth[:10], SMALL)
    assert wrong(recogniser, test, truth) < 0.1 and step % 25 == 0
    generator = torch.Generator().manual_seed(2)
    deaf = [item._replace(x=torch.randn(item.x.shape, generator=generator)) for item in [*data, *test]]
    lost, _ = train(deaf[:48], said, deaf[48:], truth, SMALL._replace(steps=25))
    assert wrong(lost, deaf[48:], truth) > 0.5


def test_the_seed_decides_alone_and_the_best_weights_are_kept() -> None:
    data, said = utterances(16, 0)
    short = SMALL._replace(steps=6, every=2)
    state = torch.get_rng_state()
    (one, step), (same, _), (other, _) = (train(data, said, data, said, short, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in r.parameters()]) for r in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    stopped = [wrong(train(data, said, data, said, short._replace(every=k))[0], data, said) for k in (1, 2, 3, 6)]
    assert step in (2, 4, 6) and stopped[0] == min(stopped)  # a look at every step sees what all others see


def test_padding_and_company_change_nothing() -> None:
    data, said = utterances(12, 3)
    recogniser = Recogniser(["a", "b", "c"], [item.x for item in data], SMALL)
    together = torch.nn.utils.rnn.pad_sequence([item.x for item in data], padding_value=7e5)
    lengths = torch.tensor([len(item.x) for item in data])
    found = recogniser(together, lengths)
    for n, item in enumerate(data):
        alone = recogniser(item.x[:, None], lengths[n : n + 1])
        torch.testing.assert_close(found[: len(item.x), n], alone[:, 0])
    assert len(said) == len(recognise(recogniser, data))


def test_sizes_that_build_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="--width.*0"):
        RecogniserOptions(width=0).check()

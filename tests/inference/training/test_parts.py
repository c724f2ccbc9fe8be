"""What processes have of a batch: parts that add up to it, in numbers as one draws them for all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from corpora.loading.sequences import Batches, Prepared
from dvae_pyro.errors import UserError
from guides.fhvae import FHVAEGuide
from inference.handlers.discriminative import discriminative
from inference.handlers.free_bits import free_bits
from inference.handlers.given_noise import given_noise
from inference.handlers.known_shape import known_shape
from inference.handlers.noise import BatchNoise
from inference.handlers.scheduled_sampling import scheduled_sampling
from inference.objectives.elbo import Bound, Objective
from inference.training.distributed import ALONE, World, join_processes
from inference.training.reading.batches import Data, Shard, UtteranceIndex, on_host
from models.core.effects import draw, longest, ragged
from tests.pairs import LENGTHS, VARIANTS, data, small_pair


def split(lengths: Tensor) -> Data:
    """Sequences of two utterances, in batches of four."""
    x = data(lengths)
    items = [Prepared(x[:length, n], f"{n % 2}", "", n) for n, length in enumerate(lengths.tolist())]
    return Data(items, Batches(items, 4, seed=0), "", UtteranceIndex.of(items))


def bound_of(objective: Objective, split: Data, part: Shard, world: World, handler: Any) -> Bound:
    torch.manual_seed(5)
    rows = split.members.rows(part.indices, trained=True) if objective.model.hierarchical else None
    noise = given_noise(BatchNoise(part.places, part.sequences)) if world.size > 1 else nullcontext()
    with handler, noise, known_shape.of(part.batch.x, part.batch.lengths):
        bound: Bound = objective(part.batch.x, part.batch.lengths, rows=rows)
    return bound


def test_starts_of_an_epoch_are_uniform_within_the_utterance() -> None:
    """Every start that an utterance has room for, as often as any other: chi-square, 9 degrees, rejects 1 in 10^6."""
    wholes = [torch.arange(float(frames))[:, None] for frames in (13, 4, 2)]
    items = [Prepared(wholes[0][:4], "long", "", start, wholes[0]) for start in (0, 4, 8)]
    items += [Prepared(wholes[1], "just", "", 0, wholes[1]), Prepared(wholes[2], "short", "", 0, wholes[2])]
    fixed = Data(items, Batches(items, 5, seed=3), "", UtteranceIndex.of(items))
    epochs = [fixed.of_epoch(epoch) for epoch in range(1000)]
    assert [e.starts for e in epochs[:9]] == [fixed.of_epoch(epoch).starts for epoch in range(9)]
    counts = torch.zeros(10)
    for epoch in epochs:
        assert epoch.members is fixed.members and epoch.starts is not None and [*epoch.starts[3:]] == [0, 0]
        batch = epoch.batch(range(5))
        assert batch.lengths.tolist() == [4, 4, 4, 4, 2]
        for n, start in enumerate(epoch.starts):
            length = int(batch.lengths[n])
            assert (
                batch.x[:length, n, 0].tolist() == list(range(start, start + length)) and batch.items[n].start == start
            )
            counts[start] += n < 3
    assert float(((counts - 300) ** 2 / 300).sum()) < 44.8
    assert split(LENGTHS).of_epoch(1).starts is None


Handler = Callable[[], AbstractContextManager[Any]]
OBJECTIVES: dict[str, tuple[str, int, Handler]] = {
    "elbo": ("elbo", 1, nullcontext),
    "particles": ("analytic", 3, nullcontext),
    "iwae": ("iwae", 3, nullcontext),
    "dreg": ("dreg", 3, nullcontext),
    "scheduled": ("elbo", 1, lambda: scheduled_sampling(0.5)),
    "scheduled-states": ("elbo", 1, lambda: scheduled_sampling(0.5, mix="h", coin="batch")),
    "free bits": ("elbo", 1, lambda: free_bits(0.5, "constant", "layer")),
    "told apart": ("elbo", 1, lambda: discriminative(2.0)),
}
SUMS = [
    *((variant, "elbo", 3) for variant in VARIANTS),
    *(("srnn", kind, 3) for kind in OBJECTIVES if kind != "told apart"),
    *(("dkf", kind, 5) for kind in ("elbo", "iwae")),
    *(("fhvae", kind, size) for kind in ("particles", "free bits", "told apart") for size in (3, 5)),
]


@pytest.mark.parametrize(("variant", "kind", "size"), SUMS)
def test_parts_of_a_ragged_batch_add_up_to_it(variant: str, kind: str, size: int) -> None:
    """Four sequences among three processes, or five, of which one has nothing: gradients, bound and noise."""
    pair, whole = small_pair(variant), split(LENGTHS)
    name, particles, handler = OBJECTIVES[kind]
    if isinstance(pair.guide, FHVAEGuide):
        pair.guide.make_table(2)
    objective = Objective(pair.model, pair.guide, name, particles)
    found = []
    for world in (ALONE, *(World(rank, size) for rank in range(size))):
        part = whole.shard(range(4), world)
        assert part.frames == int(LENGTHS.sum()) and part.batch.x.shape[:2] == (int(LENGTHS.max()), len(part.places))
        objective.zero_grad(set_to_none=True)
        bound = bound_of(objective, whole, part, world, handler())
        (part.weight * bound.loss).backward()
        gradients = {key: p.grad.to_dense() for key, p in objective.named_parameters() if p.grad is not None}
        elbo = part.weight * bound.terms.elbo.sum()
        found.append((gradients, elbo, torch.random.get_rng_state()))
    (wanted, bound_of_all, state), parts = found[0], found[1:]
    torch.testing.assert_close(sum(elbo for _, elbo, _ in parts), bound_of_all, rtol=1e-10, atol=1e-10)
    for gradients, _, here in parts:
        assert gradients.keys() == wanted.keys() and torch.equal(here, state)
    for key, gradient in wanted.items():
        summed = sum(gradients[key] for gradients, _, _ in parts)
        torch.testing.assert_close(summed, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("aside", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_sequence_is_in_one_batch_of_one_process(size: int, aside: bool) -> None:
    whole = split(torch.tensor([7, 3, 1, 5, 6, 2, 4, 9, 8, 3, 5]))
    order = whole.batches.epoch(3)
    each = [list(whole.ahead(order, World(rank, size), aside=aside)) for rank in range(size)]
    counted = [number for parts in each for part in parts if part.weight for number in part.indices]
    assert sorted(counted) == list(range(11)) and {part.weight for parts in each for part in parts} <= {0.0, 1.0}
    for index, parts in zip(order, zip(*each, strict=True), strict=True):
        shares = [len(part.indices) for part in parts if part.weight]
        assert sum(shares) == len(index) and max(shares) - min(shares) <= 1
        for part in parts:
            assert [index[place] for place in part.places] == part.indices
            assert part.frames == sum(len(whole.sequences[i].x) for i in index)


def test_batches_are_pinned_by_the_thread_that_prepares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step on a GPU then copies them without waiting, and does nothing else on the host for them."""
    pinned: list[tuple[int, torch.dtype]] = []

    def pin(x: Tensor) -> Tensor:
        pinned.append((threading.get_ident(), x.dtype))
        return x

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    whole = split(LENGTHS)
    for device, aside in (("cuda", True), ("cpu", False)):
        prepare = partial(on_host, device=torch.device(device), dtype=torch.float32)
        (part,) = whole.ahead([[0, 1, 2, 3]], aside=aside, prepare=prepare)
        torch.testing.assert_close(part.batch.x, data().float(), rtol=0.0, atol=0.0)
    ((thread, dtype),) = pinned
    assert thread != threading.get_ident() and dtype is torch.float32


@pytest.mark.parametrize("shape", [(3, 5), (4, 3, 5), (5,)])
def test_processes_draw_together_what_one_draws(shape: tuple[int, ...]) -> None:
    """The noise of five sequences, in as many dimensions as sites have, from two generators that stand alike."""
    distribution = dist.Normal(torch.zeros(*shape, 2), torch.ones(*shape, 2)).to_event(1)
    torch.manual_seed(0)
    whole, state = draw("z", distribution, None), torch.random.get_rng_state()
    for places in ([0, 2, 4], [1, 3]):
        torch.manual_seed(0)
        here = dist.Normal(0.0, 1.0).expand((*shape[:-1], len(places), 2)).to_event(1)
        with given_noise(BatchNoise(places, 5)):
            assert torch.equal(draw("z", here, None), whole[..., places, :])
        assert torch.equal(torch.random.get_rng_state(), state)


def test_a_known_shape_replaces_that_of_the_lengths() -> None:
    lengths = torch.tensor([2, 2])
    with known_shape.of(torch.zeros(3, 2, 1), lengths):
        assert longest(lengths) == 3 and ragged(lengths, 2)
    assert longest(lengths) == 2 and not ragged(lengths, 2)


def test_what_processes_do_not_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = dist.Bernoulli(torch.full((3, 2, 1), 0.5)).to_event(1)
    with given_noise(BatchNoise([0, 2], 4)), pytest.raises(UserError, match="'z'.*Bernoulli"):
        draw("z", chance, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="device=cuda:1: .* one GPU each"), join_processes("cuda:1"):
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="--nproc-per-node 2"), join_processes("cuda"):
        pass


def test_a_dead_peer_is_noticed_on_gpus_within_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL waits as long as it is told; what waits for a corpus to be read goes by gloo."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    made: list[dict[str, Any]] = []
    used: list[Any] = []

    def new_group(**more: Any) -> str:
        made.append(more)
        return "on GPUs"

    ways: dict[str, Any] = {
        "init_process_group": lambda *args, **more: None,
        "destroy_process_group": lambda: None,
        "get_rank": lambda: 0,
        "get_world_size": lambda: 2,
        "new_group": new_group,
        "all_reduce": lambda v, group=None: used.append((v.device.type, group)),
        "broadcast": lambda v, src, group=None: used.append((v.device.type, group)),
    }
    for name, way in ways.items():
        monkeypatch.setattr(f"torch.distributed.{name}", way)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    with join_processes("cuda") as world, FakeTensorMode():
        world.total(torch.zeros(1, device="cuda"))
        world.total(torch.zeros(1))
        world.broadcast_module(torch.nn.ParameterList([torch.zeros(1, device="cuda")]))
    assert used == [("cuda", "on GPUs"), ("cpu", None), ("cuda", "on GPUs")]
    (options,) = made
    assert options["backend"] == "nccl" and options["timeout"] <= timedelta(minutes=30)
    made.clear()
    with join_processes("cpu") as world:
        assert world.on_gpus is None and not made

"""FHVAE with sessions above its sequences: its closed form by linear algebra, its bound by the sum over all batches."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.distributions import Normal

from dvae_pyro.errors import UserError
from guides.fhvae import s_vectors, session_vectors
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Objective
from inference.prediction.reconstruction import infer
from inference.training.batches import Data, UtteranceIndex
from inference.training.distributed import ALONE
from inference.training.sequence_table import validation_rows
from models.core.grouping import SequenceIndex
from tests.inference.training.test_hierarchy import segments
from tests.models.test_fhvae import DIM, LENGTHS, data, noise, of_sequences, small

SEQUENCE = torch.tensor([0, 0, 1, 2, 1])
SESSION = torch.tensor([0, 1, 0])  # of each sequence
VARIANCE = 0.4


def rows_of(chosen: list[int]) -> SequenceIndex:
    numbers = torch.tensor(chosen)
    row, of_session = SEQUENCE[numbers], SESSION[SEQUENCE][numbers]
    above = SequenceIndex(of_session, torch.bincount(SESSION[SEQUENCE])[of_session], numbers, 2, 5, trained=True)
    return SequenceIndex(row, torch.bincount(SEQUENCE)[row], numbers, 3, 5, trained=True, above=above)


def three_levels() -> tuple[Any, Any]:
    model, guide = small(table=None, levels=3, mu2_variance=VARIANCE)
    guide.make_table(3, 2)
    return model, guide.double()


def joint_mode(
    means: Tensor, row: Tensor, session: Tensor, sessions: int, z2: float, mu2: float
) -> tuple[Tensor, Tensor]:
    """mu2 and mu3 that maximise sum_n log N(m_n; mu2, z2) + sum_i log N(mu2_i; mu3, mu2) + log N(mu3; 0, 1): where the
    gradient of all of them is zero, one linear system.
    """
    sequences = len(session)
    system = torch.zeros(sequences + sessions, sequences + sessions, dtype=torch.float64)
    right = torch.zeros(sequences + sessions, means.shape[-1], dtype=torch.float64)
    for n, i in enumerate(row.tolist()):
        system[i, i] += 1.0 / z2
        right[i] += means[n] / z2
    for i, s in enumerate(session.tolist()):
        at = sequences + s
        system[i, i] += 1.0 / mu2
        system[at, at] += 1.0 / mu2
        system[i, at] -= 1.0 / mu2
        system[at, i] -= 1.0 / mu2
    for s in range(sessions):
        system[sequences + s, sequences + s] += 1.0
    found = torch.linalg.solve(system, right)
    return found[:sequences], found[sequences:]


def test_the_closed_form_is_the_joint_mode() -> None:
    row = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])
    session = torch.tensor([0, 1, 0, 0])
    means = torch.randn(10, DIM, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mu2, mu3 = joint_mode(means, row, session, 2, 0.25, VARIANCE)
    found = session_vectors(means, row, session, 2, 0.25 / VARIANCE, VARIANCE)
    torch.testing.assert_close(found, mu3)
    torch.testing.assert_close(s_vectors(means, row, 4, 0.25 / VARIANCE, found[session]), mu2)


def test_a_sequence_alone_is_a_session_of_its_own() -> None:
    """What `infer` gives of unseen sequences is that mode too, of as many sessions as sequences."""
    model, guide = three_levels()
    x = data()[:, :3]
    found = infer(model, guide, x, LENGTHS[:3])
    means = guide.z2_mean(x, LENGTHS[:3]).detach()
    mu2, mu3 = joint_mode(means, torch.arange(3), torch.arange(3), 3, 0.25, VARIANCE)
    torch.testing.assert_close(found["mu2"], mu2)
    torch.testing.assert_close(found["mu3"], mu3)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_mean_over_batches_is_the_bound_of_the_corpus(size: int) -> None:
    """Eq. 2 one level up: log p(mu3) of a session counts by its segments in the batch, and so the sum over all batches
    has every factor once.
    """
    model, guide = three_levels()
    mu2, mu3 = guide.table.weight, guide.session_table.weight
    of_segments = conditional_bounds(model, guide, mu2)
    above = Normal(mu3[SESSION], VARIANCE**0.5).log_prob(mu2).sum() + Normal(0.0, 1.0).log_prob(mu3).sum()
    elbos = []
    for chosen in itertools.combinations(range(5), size):
        of_batch = list(chosen)
        x, lengths = data()[:, of_batch], LENGTHS[of_batch]
        args = (x[: int(lengths.max())], lengths, "auto", rows_of(of_batch))
        with given_noise(noise(of_batch)):
            elbos.append(-Trace_ELBO(max_plate_nesting=2).differentiable_loss(model, guide, *args))
    with given_noise(noise([0, 1, 2, 3, 4])):
        whole = Objective(model, guide)(data(), LENGTHS, rows=rows_of([0, 1, 2, 3, 4]))
    torch.testing.assert_close(torch.stack(elbos).mean(), -whole.loss)
    with mean_latents():
        analytic = Objective(model, guide, "analytic")(data(), LENGTHS, rows=rows_of([0, 1, 2, 3, 4]))
    torch.testing.assert_close(-analytic.loss, of_segments.sum() + above)
    of_sessions = -Normal(0.0, 1.0).log_prob(mu3).sum(-1)[SESSION[SEQUENCE]] / torch.tensor([3.0, 3.0, 2.0, 3.0, 2.0])
    torch.testing.assert_close(analytic.terms.kl["mu3"], of_sessions)


def conditional_bounds(model: Any, guide: Any, mu2: Tensor) -> Tensor:
    """By hand, as `of_sequences` of the tests of two levels, for these sequences: it reads mu2 by its own rows."""
    each = [of_sequences(model, guide, mu2[SEQUENCE[n]].expand(2, -1))[0][n] for n in range(5)]
    return torch.stack(each)


def test_members_know_the_speakers_above_them() -> None:
    items = [item._replace(speaker="s" if item.file != "file1" else "") for item in segments([2, 1, 1])]
    members = UtteranceIndex.of(items)
    assert members.speakers.files == ["s", "file1"] and members.speaker.tolist() == [0, 1, 0]
    above = members.rows([3, 2], trained=True).above
    assert above is not None and above.trained
    assert (above.row.tolist(), above.counts.tolist(), above.sequences, above.segments) == ([0, 1], [3, 1], 2, 4)


def test_validation_is_of_the_joint_mode_of_all_segments_of_a_speaker() -> None:
    model, guide = three_levels()
    items = [item._replace(x=data()[:, n, :].float()) for n, item in enumerate(segments([2, 1, 2]))]
    items = [item._replace(speaker="ab"[item.file == "file1"]) for item in items]

    batches: Any = type("Batches", (), {"epoch": staticmethod(lambda epoch: [[3, 0], [1, 2, 4]])})
    split = Data(items, batches, "", UtteranceIndex.of(items))
    parts = {"model": model, "guide": guide, "device": torch.device("cpu"), "dtype": torch.float64, "world": ALONE}
    job: Any = type("Job", (), parts)
    found = validation_rows(job, split)
    assert found is not None
    means = guide.z2_mean(torch.stack([i.x for i in items], 1).double(), torch.full((5,), 4)).detach()
    mu2, mu3 = joint_mode(means, split.members.row, split.members.speaker, 2, 0.25, VARIANCE)
    torch.testing.assert_close(found["values"], mu2)
    torch.testing.assert_close(found["of_speakers"], mu3)


@pytest.mark.parametrize("wrong", [{"levels": 1}, {"levels": 4}, {"mu2_variance": 0.0}])
def test_other_levels_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected"):
        small(**wrong)

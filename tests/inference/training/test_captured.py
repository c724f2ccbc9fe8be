"""A recorded step: the numbers of the one that is computed, on other batches than it was recorded with."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.handlers.given_noise import given_noise
from inference.handlers.known_shape import known_shape
from inference.handlers.noise import BatchNoise
from inference.objectives.elbo import Bound, Objective
from inference.settings.resolve import resolve
from inference.training.recorded_step import CudaGraphs, RecordedStep, Recorder, lengthened, loss_and_gradients
from inference.training.session import resume, start
from tests.cudnn import Asked, CuDNN, as_cuda_graphs
from tests.pairs import BINS, small_pair, traced

RECURRENT = ["vae", "dkf", "storn", "vrnn", "srnn", "rvae", "dsae"]
FRAMES = 5


@pytest.fixture(autouse=True)
def as_training_does() -> Any:
    with pyro.validation_enabled(False):
        yield


def batch(lengths: list[int], seed: int) -> tuple[Tensor, Tensor, int]:
    """Power spectra of `FRAMES` frames, the lengths, the number of real frames."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(FRAMES, len(lengths), BINS, dtype=torch.float64).exponential_(generator=generator)
    given = torch.tensor(lengths)
    return x * (torch.arange(FRAMES)[:, None] < given)[..., None], given, sum(lengths)


def measured(step: Any, objective: Objective, *args: Any, **more: Any) -> tuple[Bound, dict[str, Any], Tensor]:
    """What a step gives: the bound, the gradients, clipped, and where it leaves torch's generator."""
    objective.zero_grad()
    torch.manual_seed(5)
    bound = step(*args, **more)
    torch.nn.utils.clip_grad_norm_(objective.parameters(), 10.0)
    return bound, {name: p.grad for name, p in objective.named_parameters()}, torch.get_rng_state()


def agree(captured: RecordedStep, *args: Any, **more: Any) -> None:
    """Both steps give the same on a batch, in loss, terms, gradients and random numbers used."""
    objective = captured.objective
    found, gradients, after = measured(captured, objective, *args, **more)
    found = Bound(found.loss.clone(), found.terms, found.multi_sample, found.factors)
    wanted, true, true_after = measured(
        lambda *a, **m: loss_and_gradients(objective, *a, **m), objective, *args, **more
    )
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
    close(found.loss, wanted.loss.detach())
    close(found.terms._asdict(), wanted.terms._asdict())
    close(dict(found.factors), dict(wanted.factors))
    if wanted.multi_sample is not None:
        close(found.multi_sample, wanted.multi_sample)
    assert [name for name, g in true.items() if g is None] == [name for name, g in gradients.items() if g is None]
    close(gradients, true)
    assert torch.equal(after, true_after)


@pytest.mark.parametrize("name", RECURRENT)
def test_it_is_the_step_on_another_batch_than_it_was_recorded_with(name: str) -> None:
    pair = small_pair(name)
    captured = RecordedStep(Objective(pair.model, pair.guide), as_cuda_graphs)
    captured(*batch([5, 2, 4], seed=1), beta=0.5)
    agree(captured, *batch([3, 5, 1], seed=2), beta=0.25)
    with torch.no_grad():
        for p in captured.trained:  # as optimisers do
            p.mul_(1.1)
    agree(captured, *batch([2, 4, 3], seed=3), beta=1.0)  # none as long as the batch
    assert len(captured.recordings) == 1


@pytest.mark.parametrize(
    ("name", "latent", "objective", "particles"), [("dsae", "v", "analytic", 1), ("vae", "z", "iwae", 2)]
)
def test_other_objectives_and_weights_of_single_latents(name: str, latent: str, objective: str, particles: int) -> None:
    pair = small_pair(name)
    captured = RecordedStep(Objective(pair.model, pair.guide, objective, particles), as_cuda_graphs)
    captured(*batch([5, 5], seed=1), beta=0.5, beta_sites={latent: 1.0})
    agree(captured, *batch([5, 5], seed=2), beta=0.3, beta_sites={latent: 0.7})
    agree(captured, *batch([5, 2], seed=2), beta=0.3, beta_sites={latent: 0.7})  # no longer all of one length
    assert len(captured.recordings) == 2


def test_only_the_guide_is_trained_where_the_model_stays() -> None:
    pair = small_pair("vae")
    pair.model.requires_grad_(False)
    captured = RecordedStep(Objective(pair.model, pair.guide), as_cuda_graphs)
    captured(*batch([5, 2], seed=1))
    with torch.no_grad():
        for p in pair.model.parameters():  # read where it is, all the same
            p.mul_(1.1)
    agree(captured, *batch([5, 2], seed=2))
    assert {id(p) for p in captured.trained} == {id(p) for p in pair.guide.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["rvae", "vrnn"])
def test_frames_behind_all_sequences_change_nothing(name: str) -> None:
    """At the means of the latents, as more frames take more noise."""
    pair = small_pair(name)
    objective = Objective(pair.model, pair.guide)
    x, lengths, frames = batch([5, 2, 4], seed=1)

    def at_the_mean(x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        noise = {"z": torch.zeros(len(x), 3, 3, dtype=torch.float64)}
        with given_noise(noise):
            bound, gradients, _ = measured(lambda: loss_and_gradients(objective, x, lengths, frames), objective)
        return bound.loss.detach(), gradients

    torch.testing.assert_close(at_the_mean(lengthened(x, 8)), at_the_mean(x), rtol=1e-10, atol=1e-10)


def test_what_decides_by_values_is_refused_and_leaves_everything_as_it_was() -> None:
    pair = small_pair("dkf")
    with pytest.raises(UserError, match=r"DKF .*DKFGuide .*train\.objective=dreg"):
        RecordedStep(Objective(pair.model, pair.guide, "dreg", 2), as_cuda_graphs)(*batch([5, 2], seed=1))
    assert all(p.grad is None for p in pair.model.parameters())


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("kind", ["elbo", "analytic"])
def test_a_computed_step_asks_for_no_value(name: str, kind: str) -> None:
    pair = small_pair(name)
    objective = Objective(pair.model, pair.guide, kind)
    x, lengths, frames = batch([5, 2, 4], seed=1)
    with Asked() as asked, known_shape(FRAMES, ragged=True):
        bound = objective(x, lengths)
        (bound.loss / frames).backward()
    assert asked.values == 0
    with Asked() as asked:
        float(bound.loss.detach())
    assert asked.values == 1


def test_a_failed_recording_tells_what_failed_first() -> None:
    """The end of a recording that has failed fails as well, whatever the reason was."""
    pair = small_pair("dkf")
    recorded = RecordedStep(Objective(pair.model, pair.guide), as_cuda_graphs)

    def failed(first: Exception) -> RuntimeError:
        try:
            try:
                raise first
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        except RuntimeError as last:
            return last

    for reason in (ValueError("a bug"), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("cublas error")):
        with pytest.raises(type(reason), match=str(reason)):
            recorded._explain(failed(reason))
    with pytest.raises(UserError, match="DKF.*operation not permitted when stream is capturing"):
        recorded._explain(failed(RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")))
    recorded._explain(RuntimeError("of its own"))  # which is raised as it is


ON_A_DEVICE = """
import sys
import pyro, torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from inference.training.recorded_step import RecordedStep, run_again
from inference.objectives.elbo import Objective
from tests.pairs import small_pair

class Elsewhere(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.done, self.other = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.done += 1
        devices = {v.device.type for v in tree_leaves((args, kwargs, out)) if isinstance(v, torch.Tensor)}
        if len(devices) > 1:
            self.other.add(str(func))
        return out

_setup_privateuseone_for_python_backend("pretended")
pyro.enable_validation(False)
for name in sys.argv[1:]:
    pair = small_pair(name)
    objective = Objective(pair.model, pair.guide)
    with FakeTensorMode():
        def there(v):
            return torch.empty(v.shape, dtype=v.dtype, device="pretended")
        for module in objective.modules():
            for key, p in [*module._parameters.items()]:
                if p is not None:
                    setattr(module, key, nn.Parameter(there(p)))
            for key, b in [*module._buffers.items()]:
                if b is not None:
                    setattr(module, key, there(b))
        inputs = [there(v) for v in (torch.ones(3, 2, 6).double(), torch.tensor([2, 3]), torch.ones(2).double())]
        with Elsewhere() as seen:
            RecordedStep(objective, run_again).step(inputs)
    print(name, seen.done, sorted(seen.other))
"""


def test_a_step_on_a_device_takes_nothing_from_elsewhere() -> None:
    """A CUDA graph cannot hold what waits for the device or copies from memory. Without a GPU: the operations for a
    device that only pretends to be, on fake tensors, which raise where somebody asks for a value.
    """
    models = ["srnn", "vrnn"]
    done = subprocess.run([sys.executable, "-c", ON_A_DEVICE, *models], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [line.split(maxsplit=2) for line in done.stdout.splitlines()]  # name, operations, those of two devices
    assert [(name, elsewhere) for name, _, elsewhere in found] == [(name, "[]") for name in models], done.stdout
    assert all(int(operations) > 100 for _, operations, _ in found)


@pytest.mark.cuda
@pytest.mark.parametrize("name", RECURRENT)
def test_a_cuda_graph_replays_the_step(name: str) -> None:
    pair = small_pair(name)
    objective = Objective(pair.model.cuda(), pair.guide.cuda())
    captured = RecordedStep(objective, CudaGraphs(torch.device("cuda")))

    def there(lengths: list[int], seed: int) -> tuple[Tensor, Tensor, int]:
        x, given, frames = batch(lengths, seed)
        return x.cuda(), given, frames

    captured(*there([5, 2, 4], seed=1), beta=0.5)
    agree(captured, *there([3, 5, 1], seed=2), beta=0.25)
    agree(captured, *there([5, 5, 5], seed=2), beta=0.25)
    agree(captured, *there([2, 4, 3], seed=3), beta=1.0)


@pytest.fixture
def ragged(tmp_path: Path) -> list[str]:
    """A corpus of utterances of 6 to 12 frames, and settings for it."""
    import soundfile

    noise = np.random.default_rng(0)
    for split, lengths in (("train", (80, 112, 144, 176)), ("valid", (160,))):
        for k, length in enumerate(lengths):
            path = tmp_path / "corpus" / split / f"{k}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * noise.standard_normal(length), 16000)
    return [
        *("data.corpus=folder", f"data.root={tmp_path / 'corpus'}", "data.hop=16", "data.trim_db=null"),
        *("data.sequence_frames=null", "model.bins=9", "model.z_dim=2", "train.batch_size=2"),
        *("train.tensorboard=false", "train.kl_warmup_steps=5", "optim.clip=0.5", "train.pad_frames=4"),
    ]


def trained(run: Path, settings: list[str], *more: str) -> list[dict[str, Any]]:
    start(resolve("storn", overrides=[*settings, f"run={run}", *more]), lambda line: None)
    return logged(run)


AS_GRAPHS = ("train.steps=7", "train.cuda_graph=true")


def as_if_here(device: torch.device) -> Recorder:
    """What stands in for CUDA graphs where there are none."""
    return as_cuda_graphs


def logged(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = {"frames_per_second", "data_wait"}
    return [{key: value for key, value in line.items() if key not in timed} for line in found]


def test_a_recorded_training_has_the_curve_of_a_computed_one_also_when_it_goes_on(
    tmp_path: Path, ragged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    start(resolve("storn", overrides=[*ragged, f"run={tmp_path / 'computed'}", *AS_GRAPHS]), said.append)
    assert sum("train.cuda_graph=true has no effect on device=cpu" in line for line in said) == 1
    computed = logged(tmp_path / "computed")
    monkeypatch.setattr("inference.training.session.cuda_graphs", as_if_here)
    recorded = trained(tmp_path / "recorded", ragged, *AS_GRAPHS)
    assert recorded == computed and len(computed) == 7 + 4
    trained(tmp_path / "halves", ragged, "train.steps=4", "train.cuda_graph=true")
    resume(tmp_path / "halves", ["train.steps=7"], lambda line: None)
    steps = [[line for line in lines if line["split"] == "train"] for lines in (logged(tmp_path / "halves"), computed)]
    assert steps[0] == steps[1]


def test_too_many_shapes_are_refused_with_a_way_out(tmp_path: Path, ragged: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("inference.training.session.MOST_RECORDINGS", 1)
    monkeypatch.setattr("inference.training.session.cuda_graphs", as_if_here)
    with pytest.raises(UserError, match=r" 2 .* 8 to 12.*train\.pad_frames=12"):
        trained(tmp_path / "run", ragged, "train.cuda_graph=true")


@pytest.mark.parametrize(
    ("model", "more", "why"),
    [
        ("fhvae", [], "model 'fhvae'"),
        ("vrnn", ["train.scheduled_sampling=linear"], "train.scheduled_sampling"),
        ("dkf", ["train.free_bits=0.1", "train.free_bits.halve_every=10"], "train.free_bits.halve_every"),
        ("dkf", ["train.objective=dreg", "train.particles=2"], "train.objective=dreg"),
    ],
)
def test_what_changes_from_step_to_step_is_refused(model: str, more: list[str], why: str) -> None:
    with pytest.raises(UserError, match=rf"train.cuda_graph=true .*{why}"):
        resolve(model, overrides=["train.cuda_graph=true", *more])


def test_bf16_is_of_networks_in_training_alone() -> None:
    """Densities, validation and gradients stay in single precision; a recorded step does the same."""
    pair = small_pair("vrnn")
    pair = pair._replace(model=pair.model.float(), guide=pair.guide.float())
    x, lengths, frames = batch([5, 2, 4], seed=1)
    x = x.float()
    plain, half = Objective(pair.model, pair.guide), Objective(pair.model, pair.guide, bf16=True)
    single, gradients, _ = measured(lambda: loss_and_gradients(plain, x, lengths, frames), plain)
    found, rounded, _ = measured(lambda: loss_and_gradients(half, x, lengths, frames), half)
    assert single.loss != found.loss and found.loss.item() == pytest.approx(single.loss.item(), rel=0.01)
    for name, gradient in rounded.items():
        assert gradient.dtype is torch.float32
        assert (gradient - gradients[name]).norm() < 0.05 * gradients[name].norm() + 1e-3, name
    recorded, again, _ = measured(RecordedStep(half, as_cuda_graphs), half, x, lengths, frames)
    assert recorded.loss == found.loss
    torch.testing.assert_close(again, rounded, rtol=0.0, atol=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        trace = traced(pair.guide, x, lengths)
        site = traced(poutine.replay(pair.model, trace=trace), x, lengths).nodes
    made_of = [getattr(site[name]["fn"], what).dtype for name in ("x", "z") for what in ("mean", "variance")]
    assert {*made_of} == {torch.float32}
    torch.manual_seed(5)
    assert half.eval()(x, lengths).loss == single.loss


@pytest.mark.parametrize(("variant", "guide"), [("vrnn", "paper"), ("rvae-noncausal", "paper"), ("fhvae-gru", "paper")])
def test_bf16_leaves_recurrent_networks_in_single_precision(variant: str, guide: str) -> None:
    """Autocast would have cuDNN run them in float16, whatever it was asked for, and small gradients would be zero."""
    pair = small_pair(variant, guide)
    objective = Objective(pair.model.float(), pair.guide.float(), bf16=True)
    x, lengths, frames = batch([5, 2, 4], seed=1)
    with CuDNN() as seen:
        loss_and_gradients(objective, x.float(), lengths, frames)
    assert {*seen.precisions} == {torch.float32}


def test_bf16_is_for_single_precision(ragged: list[str]) -> None:
    with pytest.raises(UserError, match="train.autocast=bf16 .*dtype=float32, got float64"):
        resolve("dkf", overrides=[*ragged, "train.autocast=bf16", "dtype=float64"])


def test_a_process_with_a_part_of_a_padded_batch_has_the_noise_of_all_of_it() -> None:
    pair = small_pair("storn")
    objective = Objective(pair.model, pair.guide)
    x, lengths, frames = batch([5, 2, 4], seed=1)
    x, mine = lengthened(x, 8), [0, 2]
    alone, _, _ = measured(lambda: loss_and_gradients(objective, x, lengths, frames), objective)
    with given_noise(BatchNoise(mine, 3)):
        part, _, _ = measured(lambda: loss_and_gradients(objective, x[:, mine], lengths[mine], frames), objective)
    torch.testing.assert_close(part.terms.elbo, alone.terms.elbo[mine], rtol=1e-10, atol=1e-10)

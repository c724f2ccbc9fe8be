"""The public SRNN trained with scheduled sampling, against its equations in NumPy on a small made checkpoint.

The reference below shares nothing with the library: it reads the checkpoint's arrays by their public names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from numpy.typing import NDArray

from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.handlers.scheduled_sampling import scheduled_sampling
from inference.objectives.elbo import terms
from inference.prediction.reconstruction import reconstruct
from inference.published import convert
from inference.runs import load_run
from models.likelihoods.power_spectrum import itakura_saito
from tests.pairs import traced

Array = NDArray[np.float64]
FRAMES, BINS, L, H = 12, 33, 3, 5
FLOOR = 1e-10
INI = f"""
[STFT]
wlen_sec = 4e-3
hop_percent = 0.25
fs = 16000
trim = True
[Network]
name = SRNN
x_dim = {BINS}
z_dim = {L}
activation = tanh
dropout_p = 0
dense_x_h = 9
dim_RNN_h = {H}
num_RNN_h = 1
dense_hx_g = 7
dim_RNN_g = 4
num_RNN_g = 1
dense_gz_z = 6
dense_hz_z = 5
dense_hz_x = 8,6
[Training]
lr = 0.001
beta = 0.01
batch_size = 8
epochs = 200
ss_start = 50
ss_end = 150
[DataFrame]
sequence_len = 50
"""
LAYERS = {
    "mlp_x_h.linear0": (9, BINS),
    "mlp_hx_g.linear0": (7, H + BINS),
    "mlp_gz_z.linear0": (6, 4 + L),
    "inf_mean": (L, 6),
    "inf_logvar": (L, 6),
    "mlp_hz_z.linear0": (5, H + L),
    "prior_mean": (L, 5),
    "prior_logvar": (L, 5),
    "mlp_hz_x.linear0": (8, H + L),
    "mlp_hz_x.linear1": (6, 8),
    "gen_logvar": (BINS, 6),
}
CELLS = {"rnn_h": (H, 9), "rnn_g": (4, 7)}


def _arrays() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (out, into) in LAYERS.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    for name, (out, into) in CELLS.items():
        shapes |= {f"{name}.weight_ih_l0": (4 * out, into), f"{name}.weight_hh_l0": (4 * out, out)}
        shapes |= {f"{name}.bias_ih_l0": (4 * out,), f"{name}.bias_hh_l0": (4 * out,)}
    return {name: (0.6 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


class Reference:
    """Posterior, prior and output of one utterance (T, F), frame by frame."""

    def __init__(self, arrays: dict[str, NDArray[np.float32]]) -> None:
        self.a = {name: array.astype(np.float64) for name, array in arrays.items()}

    def affine(self, name: str, v: Array) -> Array:
        return v @ self.a[f"{name}.weight"].T + self.a[f"{name}.bias"]

    def layer(self, name: str, *v: Array) -> Array:
        return np.tanh(self.affine(name, np.concatenate(v)))

    def cell(self, name: str, u: Array, h: Array, c: Array) -> tuple[Array, Array]:
        a = u @ self.a[f"{name}.weight_ih_l0"].T + self.a[f"{name}.bias_ih_l0"]
        a = a + h @ self.a[f"{name}.weight_hh_l0"].T + self.a[f"{name}.bias_hh_l0"]
        i, f, g, o = np.split(a, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        return np.tanh(c) / (1 + np.exp(-o)), c

    def run(self, x: Array, eps: Array, own: list[bool]) -> dict[str, Array]:
        """With `own` the frames in which the decoder sees the state of the model's own output."""
        h, c = np.zeros(H), np.zeros(H)
        h_true = []
        for t in range(FRAMES):
            h, c = self.cell("rnn_h", self.layer("mlp_x_h.linear0", x[t - 1] if t else np.zeros(BINS)), h, c)
            h_true.append(h)
        g, c = np.zeros(4), np.zeros(4)
        after = [g] * FRAMES
        for t in reversed(range(FRAMES)):
            g, c = self.cell("rnn_g", self.layer("mlp_hx_g.linear0", h_true[t], x[t]), g, c)
            after[t] = g
        a, c, hat, z = np.zeros(H), np.zeros(H), np.zeros(BINS), np.zeros(L)
        found: dict[str, list[Array]] = {name: [] for name in ("m", "v", "z", "pm", "pv", "logy")}
        for t in range(FRAMES):
            a, c = self.cell("rnn_h", self.layer("mlp_x_h.linear0", hat), a, c)
            p = self.layer("mlp_hz_z.linear0", a, z)
            q = self.layer("mlp_gz_z.linear0", after[t], z)
            m, v = self.affine("inf_mean", q), self.affine("inf_logvar", q)
            z = m + np.exp(v / 2) * eps[t]
            u = a if own[t] else h_true[t]
            logy = self.affine("gen_logvar", self.layer("mlp_hz_x.linear1", self.layer("mlp_hz_x.linear0", u, z)))
            hat = np.exp(logy)
            values = (m, v, z, self.affine("prior_mean", p), self.affine("prior_logvar", p), logy)
            for name, value in zip(found, values, strict=True):
                found[name].append(value)
        return {name: np.stack(values) for name, values in found.items()}


def _sums(r: dict[str, Array], x: Array) -> tuple[float, float]:
    """is_sum, and the exact KL."""
    ratio = x / (np.exp(r["logy"]) + FLOOR)
    kl = 0.5 * (r["pv"] - r["v"] + (np.exp(r["v"]) + (r["m"] - r["pm"]) ** 2) / np.exp(r["pv"]) - 1.0)
    return float((ratio - np.log(ratio) - 1).sum()), float(kl.sum())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Reference]:
    folder = tmp_path_factory.mktemp("made")
    arrays = _arrays()
    np.savez(folder / "model.npz", **arrays)  # type: ignore[arg-type]  # savez's stub
    (folder / "config.ini").write_text(INI)
    convert(folder / "model.npz", folder / "config.ini", folder / "run")
    return load_run(folder / "run", overrides=["dtype=float64"]), Reference(arrays)


@pytest.fixture(scope="module")
def utterance() -> tuple[Array, Array]:
    random = np.random.default_rng(4)
    return random.exponential(size=(FRAMES, BINS)), random.standard_normal((FRAMES, L))


def _coins(p: float, seed: int) -> list[bool]:
    torch.manual_seed(seed)
    return [bool(coin) for coin in torch.rand(FRAMES, 1, 1) < p]


@pytest.mark.parametrize("path", ["mean_path", "eps_path"])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])  # ss_use_pred_0, training, ss_use_pred_1
def test_the_equations_of_the_public_code(
    made: tuple[Any, Reference], utterance: tuple[Array, Array], p: float, path: str
) -> None:
    run, reference = made
    x, eps = utterance
    own = _coins(p, seed=9)
    assert p != 0.5 or len(set(own[1:])) == 2
    expected = reference.run(x, eps if path == "eps_path" else 0 * eps, own)
    batch, lengths = torch.from_numpy(x)[:, None], torch.tensor([FRAMES])
    noise = given_noise({"z": torch.from_numpy(eps)[:, None]})
    with torch.no_grad():
        with noise if path == "eps_path" else mean_latents():
            guide_trace = traced(run.guide, batch, lengths)
        torch.manual_seed(9)
        with scheduled_sampling(p, mix="h", coin="batch"):
            model_trace = traced(poutine.replay(run.model, guide_trace), batch, lengths)
    _compare(expected, x, guide_trace, model_trace)


def _compare(expected: dict[str, Array], x: Array, guide_trace: Any, model_trace: Any) -> None:
    q, prior, decoded = guide_trace.nodes["z"]["fn"], model_trace.nodes["z"]["fn"], model_trace.nodes["x"]["fn"]
    got = {
        "m": q.mean,
        "v": q.variance.log(),
        "z": guide_trace.nodes["z"]["value"],
        "pm": prior.mean,
        "pv": prior.variance.log(),
        "logy": decoded.mean.log(),
    }
    for name, value in got.items():
        np.testing.assert_allclose(value[:, 0], expected[name], rtol=1e-7, atol=1e-7, err_msg=name)
    is_sum, kl_sum = _sums(expected, x)
    ours = itakura_saito(torch.from_numpy(x)[:, None], decoded.mean).sum()
    assert float(ours) == pytest.approx(is_sum, rel=1e-8)
    assert float(terms(model_trace, guide_trace).kl["z"].sum()) == pytest.approx(kl_sum, rel=1e-8)


def test_it_is_evaluated_on_its_own_output(made: tuple[Any, Reference], utterance: tuple[Array, Array]) -> None:
    """The run's own mode is gen, and reconstructing in it is the variant that the public code evaluates."""
    run, reference = made
    x, eps = utterance
    assert run.settings.evaluation.mode == "gen"
    sampling = run.settings.train.scheduled_sampling  # what it would be trained on with
    assert (sampling.schedule, sampling.start_epoch, sampling.end_epoch) == ("linear", 50, 150)
    assert (sampling.mix, sampling.coin) == ("h", "batch")
    batch, lengths = torch.from_numpy(x)[:, None], torch.tensor([FRAMES])
    gen, gt = (reconstruct(run.model, run.guide, batch, lengths, mode=mode) for mode in ("gen", "gt"))
    expected = reference.run(x, 0 * eps, [True] * FRAMES)
    np.testing.assert_allclose(gen.mean[:, 0].log(), expected["logy"], rtol=1e-7, atol=1e-7)
    assert float(gen.terms.kl["z"]) == pytest.approx(_sums(expected, x)[1], rel=1e-8)
    # Teacher forced throughout: x is decoded from h_true, as with coins of 0, but the prior sees it too.
    forced = reference.run(x, 0 * eps, [False] * FRAMES)
    np.testing.assert_allclose(gt.mean[:, 0].log(), forced["logy"], rtol=1e-7, atol=1e-7)
    assert float(gt.terms.kl["z"]) != pytest.approx(_sums(forced, x)[1], rel=1e-4)

"""Our networks are the published ones: figures of the authors' own code, and checkpoints of other sizes."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from corpora.frontends.stft import Stft
from corpora.types import Sound
from dvae_pyro.errors import UserError
from evaluation.resynthesis.metrics import score
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import terms
from inference.published import convert, main
from inference.runs import load_run
from models.likelihoods.power_spectrum import itakura_saito
from models.published.ini import Ini, read_ini
from models.published.mappings import FAMILIES
from tests.pairs import traced

TAGS = [f"dvae-speech_{name}" for name in ("vae", "dkf", "storn", "vrnn", "srnn", "rvae-causal", "rvae-noncausal")]
TOLERANCE = 1e-6  # of float64 losses relatively, of probes relative to the rms of the whole array


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "published-weights"


@pytest.mark.parametrize("tag", TAGS)
def test_figures_of_the_public_code(weights: Path, tmp_path: Path, tag: str) -> None:
    import soundfile

    settings = convert(weights / f"{tag}.npz", weights / f"{tag}.ini", tmp_path / "run")
    expected = json.loads((weights / f"expected_{tag}.json").read_text())
    run = load_run(tmp_path / "run", overrides=["dtype=float64"])
    assert sum(p.numel() for p in {*run.model.parameters(), *run.guide.parameters()}) == expected["n_params"]
    frontend = Stft(settings.data.rate, settings.data.window or 512, settings.data.hop or 256, settings.data.trim_db)
    for utterance in expected["utterances"]:
        samples, rate = soundfile.read(weights.parent / utterance["file"], always_2d=True)
        waveform = frontend.prepare(Sound(samples, rate))
        x = torch.from_numpy(frontend.features(waveform)).double()[:, None]
        assert len(x) == utterance["T"]
        noise = np.random.RandomState(0).standard_normal((len(x), 1, run.model.z_dim)).astype(np.float32)
        handlers = {
            "mean_path": mean_latents(),
            "eps_path": given_noise({"z": torch.from_numpy(noise).double()}),
        }
        for path, handler in handlers.items():
            figures = utterance["variants"]["default"][path]["float64"]
            got = _computed(run.model, run.guide, x, handler)
            _compare(got, figures)
            phase = np.exp(1j * np.angle(frontend.spectrum(waveform)))
            estimate = frontend.waveform(np.exp(got["logy"].numpy() / 2) * phase)
            scores = score(waveform[: len(estimate)], estimate, frontend.rate)._asdict()
            for name, value in scores.items():
                assert value == pytest.approx(figures["resynthesis"][name], rel=1e-6), (path, name)


def _computed(model: Any, guide: Any, x: Tensor, handler: Any) -> dict[str, Any]:
    lengths = torch.tensor([len(x)])
    with torch.no_grad():
        with handler:
            guide_trace = traced(guide, x, lengths)
        model_trace = traced(poutine.replay(model, guide_trace), x, lengths)
        model_trace.compute_log_prob()
    q, p, decoded = guide_trace.nodes["z"]["fn"], model_trace.nodes["z"]["fn"], model_trace.nodes["x"]["fn"]
    return {
        "is_sum": itakura_saito(x, decoded.mean).sum(),
        "kl_exact_sum": terms(model_trace, guide_trace).kl["z"].sum(),
        "z_mean": q.mean[:, 0],
        "z_logvar": q.variance.log()[:, 0],
        "z": guide_trace.nodes["z"]["value"][:, 0],
        "prior_mean": p.mean[:, 0],
        "prior_logvar": p.variance.log()[:, 0],
        "logy": decoded.mean.log()[:, 0],
    }


def _compare(got: dict[str, Any], figures: dict[str, Any]) -> None:
    for name in ("is_sum", "kl_exact_sum"):
        assert float(got[name]) == pytest.approx(figures["losses"][name], rel=TOLERANCE), name
    whole = figures["probes"]["whole"]
    for name, frames in figures["probes"].items():
        if name == "whole" or frames is None:
            continue
        scale = float(got[name].square().mean().sqrt())
        for t, values in frames.items():
            error = (got[name][int(t), : len(values)] - torch.tensor(values, dtype=torch.float64)).abs().max()
            assert float(error) <= TOLERANCE * max(scale, 1e-3), (name, t)
    for name, of in whole.items():
        assert float(got[name].mean()) == pytest.approx(of["mean"], abs=TOLERANCE * max(of["rms"], 1e-3)), name
        assert float(got[name].square().mean().sqrt()) == pytest.approx(of["rms"], rel=TOLERANCE, abs=1e-12), name


INI = """
[User]
saved_root = /no/such/place
[STFT]
wlen_sec = {wlen}
hop_percent = 0.25
fs = 16000
zp_percent = 0
trim = True
[Network]
name = {name}
x_dim = {bins}
z_dim = 3
activation = tanh
{network}
dropout_p = 0
[Training]
lr = 0.002
beta = 0.01
batch_size = 8
epochs = 7
early_stop_patience = 5
{training}
[DataFrame]
sequence_len = 50
"""

NETWORKS: dict[str, list[str]] = {
    "VAE": ["dense_x_z = 11,7", "dense_x_z ="],
    "DKF": [
        "dense_x_gx = 9\ndim_RNN_gx = 5\nnum_RNN_gx = 2\nbidir_gx = True\n"
        "dense_ztm1_g = 6\ndense_g_z = 8,4\ndense_z_x = 5,6",
        "dense_x_gx =\ndim_RNN_gx = 5\nnum_RNN_gx = 1\nbidir_gx = False\ndense_ztm1_g =\ndense_g_z =\ndense_z_x =",
    ],
}
NETWORKS |= {
    "STORN": [
        "dense_x_g = 9\ndim_RNN_g = 5\nnum_RNN_g = 2\ndense_g_z = 4,6\ndense_z_h = 3\ndense_xtm1_h = 7\n"
        "dim_RNN_h = 6\nnum_RNN_h = 2\ndense_h_x = 8",
        "dense_x_g =\ndim_RNN_g = 5\ndense_g_z =\ndense_z_h =\ndense_xtm1_h =\ndim_RNN_h = 6\ndense_h_x =",
    ],
    "VRNN": [
        "dense_x = 9\ndense_z = 4,5\ndense_hx_z = 6\ndense_hz_x = 7,8\ndense_h_z = 3\ndim_RNN = 5\nnum_RNN = 2",
        "dense_x =\ndense_z =\ndense_hx_z =\ndense_hz_x =\ndense_h_z =\ndim_RNN = 5",
    ],
    "SRNN": [
        "dense_x_h = 9\ndim_RNN_h = 5\nnum_RNN_h = 2\ndense_hx_g = 7\ndim_RNN_g = 4\nnum_RNN_g = 2\n"
        "dense_gz_z = 6\ndense_hz_x = 8,3\ndense_hz_z = 5",
        "dense_x_h =\ndim_RNN_h = 5\ndense_hx_g =\ndim_RNN_g = 4\ndense_gz_z =\ndense_hz_x =\ndense_hz_z =",
    ],
    "RVAE": [
        f"dense_x_gx = {d}\ndim_RNN_g_x = 5\nnum_RNN_g_x = {layers}\nbidir_g_x = {g}\ndense_z_gz = {d}\n"
        f"dim_RNN_g_z = 4\ndense_g_z = {d}\ndense_z_h = {d}\ndim_RNN_h = 6\nbidir_h = {h}\ndense_h_x = {d}"
        for d, layers, g, h in (
            ("", 1, True, True),
            ("7", 2, False, False),
            ("7", 1, True, False),
            ("", 1, False, True),
        )
    ],
}
CASES = [(name, network) for name, networks in NETWORKS.items() for network in networks]


def _made(folder: Path, name: str, network: str, training: str = "") -> tuple[Path, Path]:
    """A small checkpoint in the public format, old style, its arrays random; and its config."""
    config = folder / "config.ini"
    config.write_text(INI.format(name=name, network=network, training=training, bins=33, wlen="4e-3"))
    from inference.published import settings_of
    from inference.runs import create

    settings = settings_of(read_ini(config))
    model, guide = create(settings)
    generator = torch.Generator().manual_seed(5)
    state = {
        theirs: torch.randn(place.of(model, guide).shape, generator=generator)
        for theirs, place in FAMILIES[name.lower()].places(settings).items()
    }
    checkpoint = folder / "model.pt"
    torch.save(state, checkpoint, _use_new_zipfile_serialization=False)
    return checkpoint, config


@pytest.mark.parametrize(("name", "network"), CASES)
def test_other_widths_depths_and_bins(tmp_path: Path, name: str, network: str) -> None:
    checkpoint, config = _made(tmp_path, name, network)
    assert main([str(checkpoint), str(config), "--run", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run")
    state = torch.load(checkpoint, weights_only=True)
    ours = torch.cat([p.flatten() for p in {*run.model.parameters(), *run.guide.parameters()}])
    theirs = torch.cat([v.flatten() for v in state.values()])
    assert torch.equal(ours.sort().values, theirs.sort().values)  # every array in some place, none left as it was drawn
    assert (run.settings.train.beta, run.settings.data.hop, run.settings.data.sequence_frames) == (
        0.01,
        16,
        50,
    )


def test_a_bidirectional_dkf_averages_three(tmp_path: Path) -> None:
    """Against the equations of the public code, written out with PyTorch's own LSTM."""
    checkpoint, config = _made(tmp_path, "DKF", NETWORKS["DKF"][0].replace("num_RNN_gx = 2", "num_RNN_gx = 1"))
    convert(checkpoint, config, tmp_path / "run")
    run = load_run(tmp_path / "run", overrides=["dtype=float64"])
    state = {k: v.double() for k, v in torch.load(checkpoint, weights_only=True).items()}
    x = torch.rand(4, 1, 33, dtype=torch.float64)

    def affine(name: str, v: Tensor) -> Tensor:
        mapped: Tensor = v @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        return mapped

    u = torch.tanh(affine("mlp_x_gx.linear0", x))
    lstm = torch.nn.LSTM(9, 5, bidirectional=True).double()
    lstm.load_state_dict({k.removeprefix("rnn_gx."): v for k, v in state.items() if k.startswith("rnn_gx.")})
    forward, backward = lstm(u)[0].chunk(2, dim=-1)
    e = torch.tanh(
        affine("mlp_ztm1_g.linear_last", torch.tanh(affine("mlp_ztm1_g.linear0", torch.zeros(1, 3).double())))
    )
    h = (e + forward[0] + backward[0]) / 3
    for layer in ("mlp_g_z.linear0", "mlp_g_z.linear1"):
        h = torch.tanh(affine(layer, h))
    q = traced(run.guide, x, torch.tensor([4])).nodes["z"]["fn"]
    torch.testing.assert_close(q.mean[0], affine("inf_mean", h))
    torch.testing.assert_close(q.variance.log()[0], affine("inf_logvar", h))


def test_which_code_and_mode_it_was_trained_with(tmp_path: Path) -> None:
    floors = {}
    for i, training in enumerate(["", "kl_warm_step = 50", "ss_start = 50\nss_end = 150"]):
        (tmp_path / str(i)).mkdir()
        checkpoint, config = _made(tmp_path / str(i), "VAE", "dense_x_z = 4", training)
        settings = convert(checkpoint, config, tmp_path / str(i) / "run")
        floors[training[:2]] = (settings.model.variance_floor, settings.evaluation.mode)
    assert floors == {"": (0.0, "gt"), "kl": (1e-10, "gt"), "ss": (1e-10, "gen")}


def test_what_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, config = _made(tmp_path, "VAE", "dense_x_z = 4")

    def refused(checkpoint: Path, config: Path) -> str:
        assert main([str(checkpoint), str(config), "--run", str(tmp_path / "refused")]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") and "Traceback" not in message and not (tmp_path / "refused").exists()
        return message

    half = tmp_path / "half.pt"
    half.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    assert "Is it complete?" in refused(half, config) or "refused" in refused(half, config)
    assert "no such file" in refused(tmp_path / "absent.pt", config)
    code = tmp_path / "code.pt"
    torch.save({"a": Path("x")}, code)
    assert "more than arrays" in refused(code, config)
    other = tmp_path / "other.ini"
    other.write_text(config.read_text().replace("dense_x_z = 4", "dense_x_z = 5"))
    assert "has shape" in refused(checkpoint, other)
    other.write_text(config.read_text().replace("dense_x_z = 4", "dense_x_z = 4,4"))
    assert "lacks" in refused(checkpoint, other)
    other.write_text(config.read_text().replace("x_dim = 33", "x_dim = 40"))
    assert "does not fit" in refused(checkpoint, other)
    other.write_text(config.read_text().replace("name = VAE", "name = GAN"))
    assert "known: VAE" in refused(checkpoint, other)
    other.write_text(config.read_text().replace("x_dim = 33", "x_dim = many"))
    assert "expected a whole number" in refused(checkpoint, other)
    other.write_text("not an ini")
    assert "is not an ini file" in refused(checkpoint, other)
    parser = configparser.ConfigParser()
    with pytest.raises(UserError, match="'name'"):
        Ini(config, parser).text("Network", "name")

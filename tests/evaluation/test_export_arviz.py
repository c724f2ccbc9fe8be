"""What lies in the NetCDF file is what was computed, and ArviZ takes it."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest
import torch

from corpora.frontends.stft import Stft
from corpora.loading.sequences import Prepared
from evaluation.export_arviz import main
from evaluation.predictive_checks.inference_data import export, size, write_netcdf
from inference.runs import Run
from inference.settings.resolve import resolve
from tests.pairs import per_sequence, scored
from tests.support.runs import saved_run

DRAWS, BINS, FRAMES = 12, 9, (5, 3, 6)
SMALL = [f"model.bins={BINS}", "model.z_dim=3", "data.rate=16000", "dtype=float64"]
FRONTEND = Stft(16000, 16, 8, None)


def small_run(folder: Path, model: str, *settings: str) -> Run:
    bins = resolve(model, overrides=[*SMALL, *settings]).model.bins
    return saved_run(folder, model, *SMALL, *settings, fit=torch.rand(20, bins, dtype=torch.float64))


def utterances() -> list[Prepared]:
    noise = torch.Generator().manual_seed(3)
    sounds = [torch.empty(t, BINS).exponential_(generator=noise) for t in FRAMES]
    return [Prepared(x, f"speaker/{i}.wav", f"s{i % 2}", 0) for i, x in enumerate(sounds)]


def exported(run: Run, path: Path) -> Any:
    write_netcdf(export(run, utterances(), FRONTEND, DRAWS), path)
    return arviz.from_netcdf(str(path))


@torch.no_grad()
@pytest.mark.parametrize("model", ["dkf", "dsae"])
def test_the_file_holds_draws_with_their_weights_and_densities(model: str, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", model)
    read = exported(run, tmp_path / "run.nc")
    posterior = read.posterior.stack(sample=("chain", "draw"))
    for n, item in enumerate(utterances()):
        frames, file = len(item.x), item.file
        x = item.x.double()[:, None]
        of_frames = read.log_likelihood.set_index(observation=["sequence", "frame"]).x.sel(sequence=file)
        for k in (0, DRAWS - 1):
            drawn = posterior.isel(sample=k).sel(sequence=file)
            latents = {"z": torch.as_tensor(drawn.z.values)[:frames, None]}
            if model == "dsae":
                latents["v"] = torch.as_tensor(drawn.v.values)[None]
            lengths = torch.tensor([frames])
            p, q = (scored(program, latents, x, lengths, "auto") for program in (run.model, run.guide))
            weight = float(sum(per_sequence(p).values()) - sum(per_sequence(q).values()))
            np.testing.assert_allclose(read.sample_stats.log_weight.values[0, k, n], weight, rtol=1e-9)
            density = p.nodes["x"]["log_prob"].squeeze(-1).detach()
            np.testing.assert_allclose(of_frames.values[0, k], density, rtol=1e-9)
        np.testing.assert_array_equal(read.observed_data.x.sel(sequence=file).values[:frames], item.x)
    padded = np.arange(max(FRAMES)) >= np.array(FRAMES)[:, None]
    for group in (read.posterior.z, read.posterior_predictive.x, read.observed_data.x):
        values = group.transpose("sequence", "frame", ...).values
        assert np.isnan(values[padded]).all() and np.isfinite(values[~padded]).all()


def test_dimensions_and_coordinates_have_names(tmp_path: Path) -> None:
    read = exported(small_run(tmp_path / "run", "dsae"), tmp_path / "run.nc")
    assert read.posterior.z.dims == ("chain", "draw", "sequence", "frame", "latent")
    assert read.posterior.v.dims == ("chain", "draw", "sequence", "v_latent")
    assert read.posterior_predictive.x.dims == ("chain", "draw", "sequence", "frame", "bin")
    assert read.observed_data.x.dims == ("sequence", "frame", "bin")
    assert list(read.observed_data.sequence.values) == [item.file for item in utterances()]
    np.testing.assert_allclose(read.observed_data.bin.values, np.arange(BINS) * 1000.0)  # to 8 kHz
    assert read.observed_data.bin.attrs["units"] == "Hz"
    assert list(read.constant_data.frames.values) == list(FRAMES)
    assert read.attrs["model"] == "dsae" and read.attrs["guide"] == "paper"


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto distribution:UserWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping:DeprecationWarning")
def test_arviz_compares_and_plots_it(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    read = {m: exported(small_run(tmp_path / m, m), tmp_path / f"{m}.nc") for m in ("dkf", "vae")}
    found = {m: arviz.loo(data, pointwise=True) for m, data in read.items()}
    table = arviz.compare(read)
    for m in read:
        assert found[m].n_data_points == sum(FRAMES)
        assert table.loc[m, "elpd_loo"] == pytest.approx(found[m].elpd_loo) and np.isfinite(found[m].elpd_loo)
        assert found[m].pareto_k.sizes == {"observation": sum(FRAMES)}
        axes = arviz.plot_khat(found[m])
        assert len(axes.collections[0].get_offsets()) == sum(FRAMES)
    arviz.plot_ppc(read["dkf"], num_pp_samples=3)
    # importance weights of whole sequences, for psislw as they are
    weights = read["dkf"].sample_stats.log_weight.stack(__sample__=("chain", "draw"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        k_hat = arviz.psislw(weights)[1]
    assert k_hat.sizes == {"sequence": len(FRAMES)}
    plt.close("all")


def test_an_absurd_size_is_refused_with_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path / "run", "dkf", "model.bins=257", "data.corpus=synthetic")
    assert size(run, utterances(), 10) == 8 * 3 * 6 * (11 * 257 + 10 * (3 + 1))
    assert main([str(tmp_path / "run"), "--particles", "1000000", "--sequences", "2"]) == 2
    message = capsys.readouterr().err
    assert "GiB, more than 2" in message and "--particles" in message and not (tmp_path / "run" / "arviz.nc").exists()


@pytest.mark.parametrize("flags", [["--latents", "mean"], ["--particles", "1"], ["--json", "x.json"]])
def test_what_would_have_no_effect_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert main(["nowhere", *flags]) == 2
    assert flags[0] in capsys.readouterr().err

"""The work of `evaluation.export_arviz`: draws of latents and data as an ArviZ `InferenceData`."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.frontends.base import FrontEnd
from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors
from dvae_pyro.progress import progress_bar
from evaluation.loading.splits import batches, read_utterances
from evaluation.predictive_checks.replications import posterior_draws
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from inference.runs import Run, pick_dtype

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["export", "run_export", "size", "write_netcdf"]

GIB = 2**30


def run_export(request: Request, options: argparse.Namespace) -> None:
    """Export draws of a run to a NetCDF file, and print its groups.

    Raises:
        UserError: a number is out of range, or the export would be larger than the limit.
    """
    check_minimum(options, particles=2, sequences=1)
    run = read_run(request)
    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    sequences = read_utterances(run, request.split, options.sequences)
    bytes_ = size(run, sequences, options.particles)
    longest = max(len(item.x) for item in sequences)
    content = f"{options.particles} draws of {len(sequences)} utterances of at most {longest} frames"
    if bytes_ > options.limit * GIB:
        fewer = int(options.particles * options.limit * GIB / bytes_)
        raise UserError(
            f"{content} take {bytes_ / GIB:.1f} GiB, more than {options.limit:g}.\n"
            + (f"Set --particles {fewer} or fewer, " if fewer > 1 else "Set ")
            + f"--sequences below {len(sequences)}, or --limit {bytes_ / GIB + 0.1:.1f}."
        )
    out = run.path / "arviz.nc" if options.out is None else options.out
    say(f"{content}: {bytes_ / 2**20:.0f} MiB in memory and in {out}")
    mode = request.mode or run.settings.evaluation.mode
    data = export(run, sequences, frontend, options.particles, mode=mode, split=request.split)
    write_netcdf(data, out)
    print(data)
    say(f"wrote {out}; read it with arviz.from_netcdf")


def size(run: Run, sequences: Sequence[Prepared], draws: int) -> int:
    """Size of an export in bytes, in memory and on disk."""
    item = torch.finfo(next(run.model.parameters()).dtype).bits // 8
    padded = len(sequences) * max(len(s.x) for s in sequences)
    latents = sum(run.model.sizes.get(name, 0) for name in run.model.latents)
    return item * padded * ((draws + 1) * run.model.x_dim + draws * (latents + 1))


def export(
    run: Run, sequences: Sequence[Prepared], frontend: FrontEnd, draws: int, *, mode: str = "gt", split: str = "test"
) -> InferenceData:
    """Draw from a run's posterior and predictive distributions.

    Args:
        run: the run; the noise follows its seed.
        sequences: the data.
        frontend: their front end; that of spectra determines the frequencies of the bins.
        draws: S, all in one chain.
        mode: "gt", the decoder is given the true past, or "gen", its own output.
        split: split of the corpus, for the attributes.

    Returns:
        Groups ``posterior``, ``posterior_predictive``, ``sample_stats`` (``log_weight``), ``log_likelihood``,
        ``observed_data``, ``constant_data``. Frames beyond the end of a sequence are NaN; ``log_likelihood`` instead
        has the frames of all sequences in one dimension ``observation``, since `arviz.loo` does not accept NaN.
    """
    dtype = pick_dtype(run.settings.dtype)
    lengths = np.array([len(s.x) for s in sequences])
    arrays: dict[str, NDArray[Any]] = {}

    def put(name: str, first: int, index: int, value: NDArray[Any]) -> None:
        """Write draws of one sequence, (s, T, D) or (s, D), into an array (S, N, T, D) or (S, N, D)."""
        if name not in arrays:
            inner = (_steps(run, name, lengths.max()), *value.shape[2:]) if value.ndim == 3 else value.shape[1:]
            arrays[name] = np.full((draws, len(lengths), *inner), np.nan, value.dtype)
        where: tuple[slice | int, ...] = (slice(first, first + len(value)), index, *map(slice, value.shape[1:]))
        arrays[name][where] = value

    per_frame: list[list[Any]] = [[] for _ in lengths]
    with progress_bar("drawing", len(lengths), "file", leave=False) as bar, torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        for indices, batch in batches(sequences):
            x, first = batch.x.to(device=run.settings.device, dtype=dtype), 0
            for part in posterior_draws(run.model, run.guide, x, batch.lengths, draws, mode=mode):
                for j, (index, frames) in enumerate(zip(indices, batch.lengths.tolist(), strict=True)):
                    per_frame[index].append(part.log_likelihood[:, :frames, j].cpu().numpy())
                    put("replicated", first, index, part.replicated[:, :frames, j].cpu().numpy())
                    put("log_weight", first, index, part.log_weight[:, j].cpu().numpy())
                    for name, value in part.latents.items():
                        whole = value[:, : _steps(run, name, frames), j] if value.dim() == 4 else value[:, j]
                        put(name, first, index, whole.cpu().numpy())
                first += len(part.log_weight)
            bar.update(len(indices))
    log_likelihood = np.concatenate([np.concatenate(parts) for parts in per_frame], axis=-1)
    observed = np.full((len(lengths), lengths.max(), run.model.x_dim), np.nan, arrays["replicated"].dtype)
    for index, item in enumerate(sequences):
        observed[index, : len(item.x)] = item.x.numpy()
    return _inference_data(run, sequences, frontend, arrays, observed, log_likelihood, mode, split)


def _inference_data(
    run: Run,
    sequences: Sequence[Prepared],
    frontend: FrontEnd,
    arrays: dict[str, NDArray[Any]],
    observed: NDArray[Any],
    log_likelihood: NDArray[Any],
    mode: str,
    split: str,
) -> InferenceData:
    """The arrays of `export`, (S, N, ...), with names, dimensions and coordinates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of ArviZ, about its next major version
        import arviz  # slow to import

    one_chain = {name: value[None] for name, value in arrays.items()}
    replicated, log_weight = one_chain.pop("replicated"), one_chain.pop("log_weight")
    names = [item.file for item in sequences]
    lengths = [len(item.x) for item in sequences]
    steps = {name: "frame" if name not in run.model.strides else f"{name}_step" for name in one_chain}
    inside = {name: ["sequence", steps[name]] if value.ndim == 5 else ["sequence"] for name, value in one_chain.items()}
    of_latents = {name: [*dims, "latent" if name == "z" else f"{name}_latent"] for name, dims in inside.items()}
    data: InferenceData = arviz.from_dict(
        posterior=one_chain,
        posterior_predictive={"x": replicated},
        sample_stats={"log_weight": log_weight},
        observed_data={"x": observed},
        constant_data={"frames": np.array(lengths), "speaker": np.array([item.speaker for item in sequences])},
        coords={"sequence": names, "bin": _frequencies(frontend)},
        dims={
            **of_latents,
            "x": ["sequence", "frame", "bin"],
            "log_weight": ["sequence"],
            "frames": ["sequence"],
            "speaker": ["sequence"],
        },
        attrs={
            "model": run.settings.model.name,
            "guide": run.settings.guide.name,
            "run": str(run.path),
            "checkpoint": run.checkpoint_path.name,
            "step": run.state["step"],
            "corpus": run.settings.data.corpus,
            "split": split,
            "mode": mode,
            "seed": run.settings.seed,
        },
    )
    data.add_groups({"log_likelihood": {"x": log_likelihood[None]}}, coords={}, dims={"x": ["observation"]})
    where = {
        "sequence": ("observation", np.repeat(names, lengths)),
        "frame": ("observation", np.concatenate([np.arange(length) for length in lengths])),
    }
    data.assign_coords(where, groups="log_likelihood", inplace=True)
    hertz = {"units": "Hz", "long_name": "frequency"} if hasattr(frontend, "window") else {}
    for group in ("posterior_predictive", "observed_data"):
        data[group]["bin"].attrs.update(hertz)
    return data


def _steps(run: Run, name: str, frames: int) -> int:
    """Number of steps of a latent in some frames; fewer than frames at a coarser time scale."""
    return -(-frames // run.model.strides.get(name, 1))


def _frequencies(frontend: FrontEnd) -> list[float]:
    """The centre frequency of each bin in Hz; the bin numbers for features that are not spectra."""
    window = getattr(frontend, "window", None)
    return [k if window is None else k * frontend.rate / window for k in range(frontend.dim)]


def write_netcdf(data: InferenceData, path: Path) -> None:
    """Write an `InferenceData` atomically."""
    partial = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            data.to_netcdf(str(partial), compress=False)  # noise is not compressible
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

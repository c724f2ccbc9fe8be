"""Latents, data and log-likelihoods of a run for ArviZ: ``python -m evaluation.export_arviz RUN``.

Draws the latents of some utterances of a split from the guide, and data given them from the model, and writes an
ArviZ `InferenceData` to NetCDF. docs/arviz.md says what its groups are good for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    from arviz import InferenceData
    from numpy.typing import NDArray

    from corpora.frontends.base import FrontEnd
    from corpora.loading.sequences import Prepared
    from inference.runs import Run

__all__ = ["export", "main", "size", "write_netcdf"]

DRAWS, SEQUENCES, LARGEST = 100, 10, 2.0
GIB = 2**30


def size(run: Run, sequences: Sequence[Prepared], draws: int) -> int:
    """Bytes that an export takes, in memory and on disk."""
    import torch

    item = torch.finfo(next(run.model.parameters()).dtype).bits // 8
    padded = len(sequences) * max(len(s.x) for s in sequences)
    latents = sum(run.model.sizes.get(name, 0) for name in run.model.latents)
    return item * padded * ((draws + 1) * run.model.x_dim + draws * (latents + 1))


def export(
    run: Run, sequences: Sequence[Prepared], frontend: FrontEnd, draws: int, *, mode: str = "gt", split: str = "test"
) -> InferenceData:
    """Draw from a run's posterior and predictive distributions.

    Args:
        run: the run; noise is that of its seed.
        sequences: the data.
        frontend: what made them; one of spectra gives the bins their frequencies.
        draws: S, all in one chain.
        mode: "gt", the decoder sees the true past, or "gen", its own output.
        split: which part of the corpus they are, for the attributes.

    Returns:
        Groups ``posterior``, ``posterior_predictive``, ``sample_stats`` (``log_weight``), ``log_likelihood``,
        ``observed_data``, ``constant_data``. What lies beyond the end of a sequence is NaN; ``log_likelihood`` has the
        frames of all sequences in one dimension ``observation`` instead, since `arviz.loo` takes no NaN.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from evaluation.predictive_checks.replications import batches, posterior_draws
    from inference.runs import pick_dtype

    dtype = pick_dtype(run.settings.dtype)
    lengths = np.array([len(s.x) for s in sequences])
    arrays: dict[str, NDArray[Any]] = {}

    def put(name: str, first: int, place: int, value: NDArray[Any]) -> None:
        """Draws of one sequence, (s, T, D) or (s, D), into an array (S, N, T, D) or (S, N, D)."""
        if name not in arrays:
            inner = (_steps(run, name, lengths.max()), *value.shape[2:]) if value.ndim == 3 else value.shape[1:]
            arrays[name] = np.full((draws, len(lengths), *inner), np.nan, value.dtype)
        where: tuple[slice | int, ...] = (slice(first, first + len(value)), place, *map(slice, value.shape[1:]))
        arrays[name][where] = value

    per_frame: list[list[Any]] = [[] for _ in lengths]
    bar = tqdm(total=len(lengths), desc="drawing", unit="file", disable=not sys.stderr.isatty(), leave=False)
    with bar, torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        for places, batch in batches(sequences):
            x, first = batch.x.to(device=run.settings.device, dtype=dtype), 0
            for made in posterior_draws(run.model, run.guide, x, batch.lengths, draws, mode=mode):
                for j, (place, frames) in enumerate(zip(places, batch.lengths.tolist(), strict=True)):
                    per_frame[place].append(made.log_likelihood[:, :frames, j].cpu().numpy())
                    put("replicated", first, place, made.replicated[:, :frames, j].cpu().numpy())
                    put("log_weight", first, place, made.log_weight[:, j].cpu().numpy())
                    for name, value in made.latents.items():
                        whole = value[:, : _steps(run, name, frames), j] if value.dim() == 4 else value[:, j]
                        put(name, first, place, whole.cpu().numpy())
                first += len(made.log_weight)
            bar.update(len(places))
    log_likelihood = np.concatenate([np.concatenate(parts) for parts in per_frame], axis=-1)
    observed = np.full((len(lengths), lengths.max(), run.model.x_dim), np.nan, arrays["replicated"].dtype)
    for place, item in enumerate(sequences):
        observed[place, : len(item.x)] = item.x.numpy()
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
    """The arrays of `export`, (S, N, ...), under names, dimensions and coordinates."""
    import arviz
    import numpy as np

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
    """Steps that a latent takes in some frames; one at a coarser time scale takes fewer."""
    return -(-frames // run.model.strides.get(name, 1))


def _frequencies(frontend: FrontEnd) -> list[float]:
    """The centre of each bin of a spectrum in Hz; numbers from 0 where the front end makes none."""
    window = getattr(frontend, "window", None)
    return [k if window is None else k * frontend.rate / window for k in range(frontend.dim)]


def write_netcdf(data: InferenceData, path: Path) -> None:
    """Write an `InferenceData`, whole or not at all."""
    beside = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            data.to_netcdf(str(beside), compress=False)  # noise does not get smaller
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("export_arviz", "Export latents, data and log-likelihoods for ArviZ.")
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="S", help="draws (default: %(default)s)")
    parser.add_argument(
        "--sequences",
        type=int,
        default=SEQUENCES,
        metavar="N",
        help="how many utterances, spread evenly over the split (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=float, default=LARGEST, metavar="GIB", help="refuse to make more (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="NetCDF file (default: RUN/arviz.nc)")

    def command() -> None:
        request, given = parse(parser, argv)
        if given.draws < 2 or given.sequences < 1:
            raise UserError("--draws takes a number from 2 up, --sequences one from 1 up.")
        if request.latents == "mean":
            raise UserError(
                "--latents mean: an export holds draws, and draws of a mean are all the same. Leave it away."
            )
        if request.json is not None:
            raise UserError("--json: an export leaves a NetCDF file and no report. Use --out FILE.")
        _command(request, given.draws, given.sequences, given.limit, given.out)

    return guarded(command)


def _command(request: Request, draws: int, most: int, limit: float, out: Path | None) -> None:
    run = open_run(request)
    from corpora.frontends.registry import open_frontend
    from evaluation.predictive_checks.replications import read_utterances

    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    sequences = read_utterances(run, frontend, request.split, most)
    bytes_ = size(run, sequences, draws)
    longest = max(len(item.x) for item in sequences)
    what = f"{draws} draws of {len(sequences)} utterances of at most {longest} frames"
    if bytes_ > limit * GIB:
        fewer = int(draws * limit * GIB / bytes_)
        raise UserError(
            f"{what} take {bytes_ / GIB:.1f} GiB, more than {limit:g}.\n"
            + (f"Set --draws {fewer} or fewer, " if fewer > 1 else "Set ")
            + f"--sequences below {len(sequences)}, or --limit {bytes_ / GIB + 0.1:.1f}."
        )
    out = run.path / "arviz.nc" if out is None else out
    say(f"{what}: {bytes_ / 2**20:.0f} MiB in memory, and as much in {out}")
    mode = request.mode or run.settings.evaluation.mode
    data = export(run, sequences, frontend, draws, mode=mode, split=request.split)
    write_netcdf(data, out)
    print(data)
    say(f"wrote {out}; read it with arviz.from_netcdf")


if __name__ == "__main__":
    sys.exit(main())

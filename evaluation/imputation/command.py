"""The imputation command: read sequences, remove frames, fill them, and report the errors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corpora.loading.sequences import collate
from dvae_pyro.errors import UserError
from evaluation.imputation.filling import error, fill, linear_r2, masks
from evaluation.loading.splits import corpus_of, read_split, spread
from evaluation.reporting.command_line import Request, read_run, say
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.plots import new_figure, open_axes, save_picture
from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import Summary, summarise, text_table
from inference.prediction.reconstruction import infer
from inference.runs import Run
from models.kvae import KVAE

__all__ = ["run_imputation"]

STATE = ("x", "y", "v_x", "v_y")


def run_imputation(request: Request, options: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        UserError: The model is not a KVAE with integrated states, sequences differ in length, or an option is out of
            range.
    """
    if not 0.0 < options.missing < 1.0 or options.prefix < 1:
        raise UserError(
            f"--missing {options.missing} --prefix {options.prefix}: expected a fraction between 0 and 1, and at "
            f"least 1 frame."
        )
    run = read_run(request)
    model = run.model
    if not isinstance(model, KVAE) or not model.integrate:
        raise UserError(
            f"{run.path} has model '{run.settings.model.name}': only a KVAE with model.integrate=true has an exact "
            "smoother. Train one: python -m inference.svi --config kvae2017/bouncing_ball"
        )
    outputs = outputs_of("imputation", request, run.settings)
    corpus = corpus_of(run.settings, request.split)
    sequences = read_split(run, corpus, request.split)
    sequences = sequences if options.sequences is None else spread(sequences, options.sequences)
    frames = {len(item.x) for item in sequences}
    if len(frames) > 1:
        raise UserError(
            f"sequences have {min(frames)} to {max(frames)} frames: imputation needs sequences of one length. Set "
            f"data.sequence_frames, or use another corpus."
        )
    batch = collate(sequences)
    like = next(model.parameters())
    x = batch.x.to(like)
    if options.prefix >= len(x) - 1:
        raise UserError(
            f"--prefix {options.prefix}: sequences have {len(x)} frames, so none would be missing. Give a smaller "
            f"--prefix."
        )
    a = infer(model, run.guide, x, batch.lengths)["a"]
    summaries: dict[str, Summary] = {}
    shown = {}
    for name, present in masks(len(x), len(sequences), options.missing, options.prefix, run.settings.seed).items():
        present = present.to(x.device)
        filled = fill(model, a, present)
        shown[name] = filled, present
        for how, mean in (("smoothed", filled.smoothed), ("interpolated", filled.interpolated)):
            summaries[f"{name}_{how}"] = summarise(error(mean, x, ~present).tolist())
    report = provenance("imputation", run, request) | {
        "num_sequences": len(sequences),
        "missing": options.missing,
        "prefix": options.prefix,
        "metrics": {name: summary._asdict() for name, summary in summaries.items()},
    }
    states = {utterance.file: utterance.labels.get("state") for utterance in corpus.splits[request.split]}
    true = [states[item.file] for item in sequences]
    if all(state is not None for state in true) and len(true) > 1:
        whole = fill(model, a, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)).states
        r2 = linear_r2(whole.double().cpu().numpy().transpose(1, 0, 2), np.asarray(true, dtype=np.float64))
        report["r2"] = dict(zip(STATE, r2.tolist(), strict=True))
    outputs.write(report)
    columns = {"smoothed": "Kalman smoother", "interpolated": "linear interpolation of a"}
    rows = [[name, *(summaries[f"{name}_{how}"].text(decimals=3, scale=1000.0) for how in columns)] for name in shown]
    print(text_table(["missing", *columns.values()], rows))
    print("\nmean squared error of the missing frames, per value, times 1000; ± standard error over sequences")
    if "r2" in report:
        print("R^2 of a linear map from z: " + ", ".join(f"{name} {value:.3f}" for name, value in report["r2"].items()))
    if options.picture is not None:
        _draw(x, shown, run, options.picture)
        say(f"drew {options.picture}")


def _draw(x: torch.Tensor, shown: dict[str, Any], run: Run, picture: Path) -> None:
    """Draw the first sequence: the truth, and for each kind of gap the observed, smoothed and interpolated frames."""
    bins = run.settings.model.bins
    side = round(bins**0.5)
    if side * side != bins:
        raise UserError(f"--picture needs square images as frames, but frames have {bins} values. Omit --picture.")
    rows = [("truth", x[:, 0])]
    for name, (filled, present) in shown.items():
        rows.append((f"{name}, observed", torch.where(present[:, :1], x[:, 0], 0.3)))
        rows.append(("smoothed", filled.smoothed[:, 0]))
        rows.append(("interpolated", filled.interpolated[:, 0]))
    figure = new_figure(
        0.55 * len(x) + 2.0, 0.6 * len(rows) + 0.6, f"{run.path.name}: missing frames of one sequence, grey"
    )
    for axes, (label, frames) in zip(figure.subplots(len(rows), 1), rows, strict=True):
        strip = torch.cat([frames.unflatten(-1, (side, side)), frames.new_ones(len(frames), side, 1)], dim=-1)
        axes.imshow(strip.transpose(0, 1).flatten(1).cpu().numpy(), cmap="gray", vmin=0, vmax=1, aspect="equal")
        open_axes(axes, "top", "right", "bottom", "left")
        axes.set_xticks([])
        axes.set_yticks([side / 2], [label], fontsize=8)
        axes.set_anchor("E")  # leaves the room to the labels
        axes.tick_params(length=0)
    save_picture(figure, picture)

"""What a latent of the whole sequence holds: ``python -m evaluation.exchange RUN --a A --b B``.

Decodes A with B's and B with A's, after the last figure of the poster of Lin et al. (2023). Leaves four sounds and a
picture of them in ``RUN/exchange/``, and ``exchange.json`` in the run folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError
from evaluation.generate.sampling import as_power, sound_frontend
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from corpora.frontends.stft import Stft
    from corpora.types import Utterance
    from evaluation.resynthesis.decoding import Spoken
    from inference.runs import Run
    from models.dvae import DVAE, ModelSettings

__all__ = [
    "add_phase_argument",
    "decibels",
    "described",
    "exchangeable",
    "exchanged",
    "main",
    "read_pair",
    "sequence_latents",
    "sounds",
]

ITERATIONS = 100
"""Of Griffin and Lim's algorithm."""

UNUSED_DB = 0.1
"""Spectra that move less than this when the latent is exchanged say that the model does not use it."""


def sequence_latents(model: type[DVAE], settings: ModelSettings) -> tuple[str, ...]:
    """The latents that a model draws once per sequence: those that its conditionals name without a time.

    In a model of segments all latents are outside time; there they are those that other latents depend on.
    """
    parents = model.parents(settings)
    latents = model.latents_of(settings)
    below = latents if getattr(settings, "segment", None) is not None else parents
    named = {parent for site in below for parent in parents[site]}
    return tuple(name for name in latents if name in named)


def exchanged(run: Run, pair: Sequence[Spoken], *, mode: str, latents: str) -> Tensor:
    r"""Data of two utterances decoded with each other's latent of the sequence.

    .. math:: w_i \sim q(w \mid x^i), \quad z^i \sim q(z \mid x^i, w_i), \quad
        \hat x^{ij}_t = E[x_t \mid z^i_{1:t}, w_j, \hat x^{ij}_{1:t-1}]

    z is inferred given the own w, as on the poster. In an FHVAE mu_2 reaches the data through the z_2 of the segments,
    which keep their place around it (Hsu, Zhang & Glass, 2017, appendix E); mu_2 is that of Eq. 5:

    .. math:: \hat x^{ij, (n)} = E[x \mid z_1^{i, (n)}, z_2^{i, (n)} - \mu_2^i + \mu_2^j]

    Args:
        run: a run whose model has such a latent.
        pair: the two utterances.
        mode: ``"gen"``, the model sees its own output, or ``"gt"``, the true past of x.
        latents: ``"mean"`` of each posterior, or a ``"sample"``, with the run's seed.

    Returns:
        (4, T, D), zero beyond the length of i: x^{11}, x^{12}, x^{21}, x^{22}.
    """
    import torch

    from corpora.loading.sequences import Prepared, collate
    from inference.prediction.reconstruction import decode, reconstruct
    from inference.runs import pick_dtype

    batch = collate([Prepared(s.x, s.file, s.speaker, 0) for s in pair])
    x = batch.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
    hop = run.settings.evaluation.segment_hop
    with torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        made = reconstruct(run.model, run.guide, x, batch.lengths, latents=latents, mode=mode, hop=hop)
    values = _with_each_others(run, made.latents, x, batch.lengths)
    moved = decode(run.model, values, x, batch.lengths, mode=mode, hop=hop)
    decoded = torch.stack([made.mean[:, 0], moved[:, 0], moved[:, 1], made.mean[:, 1]])
    inside = torch.arange(len(x)) < batch.lengths[torch.tensor([0, 0, 1, 1])][:, None]
    return decoded * inside.to(x.device)[..., None]


def _with_each_others(run: Run, latents: Mapping[str, Tensor], x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """The latents of two sequences, each with the other's latent of the sequence."""
    from inference.prediction.segments import cut

    theirs = sequence_latents(type(run.model), run.settings.model)
    values = {name: value.flip(-2) if name in theirs else value for name, value in latents.items()}
    if run.model.segment is not None:
        row = cut(x, lengths, run.model.segment, hop=run.settings.evaluation.segment_hop).row
        values["z2"] = latents["z2"] + (values["mu2"] - latents["mu2"])[row.to(x.device)]
    return values


def add_phase_argument(parser: argparse.ArgumentParser) -> None:
    """Where the phase of sounds comes from."""
    parser.add_argument(
        "--phase",
        choices=["griffin_lim", "input"],
        default="griffin_lim",
        help="of the sounds: from the spectra alone, or of the utterance whose z it is (default: %(default)s)",
    )


def sounds(
    frontend: Stft, pair: Sequence[Spoken], data: Tensor, phase: str
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Power spectra (T, F), and samples, of what `exchanged` gave for a pair."""
    import numpy as np
    import torch

    from corpora.frontends.griffin_lim import griffin_lim

    power, samples = [], []
    for i, frames in enumerate(data.double().cpu()):
        spoken = pair[i // 2]
        power.append(as_power(frontend, frames[None, : len(spoken.x)])[0].numpy())
        if phase == "input":
            spectrum = np.sqrt(power[-1]) * np.exp(1j * np.angle(spoken.spectrum))
            samples.append(frontend.waveform(spectrum, len(spoken.samples)))
        else:
            samples.append(
                griffin_lim(torch.from_numpy(power[-1])[None], frontend, ITERATIONS, length=len(spoken.samples))[
                    0
                ].numpy()
            )
    return power, samples


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("exchange", "Decode two utterances with each other's latent of the sequence.")
    for side in ("a", "b"):
        parser.add_argument(
            f"--{side}", required=True, metavar=side.upper(), help="a sound file, or the name of one in the split"
        )
    add_phase_argument(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/exchange")

    def command() -> None:
        request, given = parse(parser, argv)
        _command(request, given)

    return guarded(command)


def _command(request: Request, given: argparse.Namespace) -> None:
    run = open_run(request)
    from evaluation.reporting.report import write_json

    names, frontend = exchangeable(run)
    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    pair = read_pair(run, request.split, {"--a": given.a, "--b": given.b}, frontend)
    mode, latents = request.mode or "gen", request.latents or run.settings.evaluation.latents
    power, made = sounds(frontend, pair, exchanged(run, pair, mode=mode, latents=latents), given.phase)
    moved = [decibels(power[0], power[1]), decibels(power[3], power[2])]
    out: Path = request.run / "exchange" if given.out is None else given.out
    files = _write(out, frontend.rate, pair, made, names)
    report = {
        **described("exchange", run, request, given.phase),
        "a": pair[0].file,
        "b": pair[1].file,
        "exchanged": list(names),
        "metrics": {f"{side}_moved_db": {"mean": m, "stderr": None} for side, m in zip("ab", moved, strict=True)},
        "files": files,
    }
    write_json(run.path / "exchange.json", report)
    if request.json is not None:
        write_json(request.json, report)
    what = ", ".join(names)
    print(f"{report['model']}: {what} of {pair[0].file} and {pair[1].file} exchanged, mode {mode}, latents {latents}")
    print(f"the other's {what} moves the spectrum of A by {moved[0]:.2f} dB, that of B by {moved[1]:.2f} dB (RMS)")
    if max(moved) < UNUSED_DB:
        say(f"that is nothing: this model does not use {what}")
    if mode == "gt" and any(name.startswith("x") for name in run.model.parents(run.settings.model)["x"]):
        say("with --mode gt the decoder sees the true past, which keeps A what it is: --mode gen shows the latents")
    say(f"wrote {', '.join(files)} to {out}")


def described(evaluation: str, run: Run, request: Request, phase: str) -> dict[str, Any]:
    """The first keys of a report of two utterances."""
    from evaluation.reporting.provenance import provenance

    return {
        **provenance(evaluation, run, request._replace(mode=request.mode or "gen")),
        "num_sequences": 2,
        "segment_hop": run.settings.evaluation.segment_hop,
        "phase": phase,
    }


def exchangeable(run: Run) -> tuple[tuple[str, ...], Stft]:
    """The latents of the sequence of a run, and the front end that its sounds come from.

    Raises:
        UserError: there is none of either.
    """
    from models.registry import model_class, model_names

    names = sequence_latents(type(run.model), run.settings.model)
    if not names:
        classes = {name: model_class(name) for name in model_names()}
        others = ", ".join(name for name, c in classes.items() if sequence_latents(c, c.Settings(name=name)))
        raise UserError(
            f"model {run.settings.model.name} has no latent of the whole sequence beside those of each frame, or "
            f"segment: there is nothing to exchange. Models that have one: {others}."
        )
    frontend = sound_frontend(run)
    if frontend is None:
        raise UserError(f"data.frontend={run.settings.data.frontend} leads to no sounds: there is nothing to hear.")
    return names, frontend


def read_pair(run: Run, split: str, wanted: Mapping[str, str], frontend: Stft) -> list[Spoken]:
    """The utterances that options, by name, ask for: sound files, or utterances of the run's corpus."""
    from evaluation.resynthesis.decoding import Faults, read_spoken

    faults = Faults()
    found = [_utterance(run, split, which, option) for option, which in wanted.items()]
    spoken = list(read_spoken(found, frontend, "error", faults))
    for line in faults.lines(frontend.rate):
        say(line)
    return spoken


def _utterance(run: Run, split: str, wanted: str, option: str) -> Utterance:
    """The sound file of this name, or the utterance of the run's corpus."""
    from corpora.audio.io import read_audio
    from corpora.registry import open_corpus
    from corpora.types import Utterance
    from evaluation.reporting.panels import find_utterance

    if Path(wanted).is_file():
        return Utterance(wanted, wanted, lambda: read_audio(wanted))
    utterances = open_corpus(run.settings.data, run.settings.data.seed, needed=[split]).splits[split]
    return find_utterance(utterances, wanted, option, f"split '{split}' of {run.path}'s corpus")


def decibels(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Root mean square difference of power spectra in dB over all frames and bins."""
    import numpy as np

    tiny = np.finfo(np.float64).tiny
    return float(np.sqrt(np.square(10.0 * np.log10(np.maximum(one, tiny) / np.maximum(other, tiny))).mean()))


def _write(
    out: Path, rate: int, pair: Sequence[Spoken], made: Sequence[NDArray[np.float64]], names: Sequence[str]
) -> list[str]:
    """The four sounds, all on the scale of the loudest, and the picture of them beside the two inputs."""
    import numpy as np

    from evaluation.reporting.plots import Panel, save_picture, spectrogram_panels
    from evaluation.resynthesis.audio import write_wav

    stems = [PurePosixPath(Path(spoken.file).as_posix()).stem for spoken in pair]
    what = "".join(names)
    loudest = max(1.0, *(float(np.abs(samples).max()) for samples in made))
    files, panels = [], [Panel(f"{'AB'[i]}: {stems[i]}", pair[i].samples, rate) for i in (0, 1)]
    for i, (mine, whose) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        files.append(f"{'ab'[mine]}-{stems[mine]}-with-{what}-of-{'ab'[whose]}.wav")
        write_wav(out / files[-1], made[i] / loudest, rate)
        panels.append(Panel(f"{'AB'[mine]} with {what} of {'AB'[whose]}", made[i], rate))
    save_picture(spectrogram_panels(panels, columns=2), out / "exchange.png")
    return [*files, "exchange.png"]


if __name__ == "__main__":
    sys.exit(main())

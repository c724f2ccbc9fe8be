"""Write any corpus as Shar shards, for training sets larger than memory.

python -m corpora.shard --corpus folder --root data/LibriSpeech --out data/shards
python -m inference.svi --model dkf --corpus lhotse --root data/shards
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors
from dvae_pyro.progress import progress_bar

__all__ = ["main", "write_shards"]

SIZE = 200
"""Utterances per shard: about 40 min of read speech, 75 MB of samples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 success, 2 invalid input, 130 after Ctrl-C."""
    return guarded(lambda: _run(_parser().parse(argv)), "stopped; the incomplete split was removed")


def _run(args: argparse.Namespace) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from corpora.recipes.lhotse.recipe import require_lhotse
    from corpora.registry import check_data, open_corpus
    from corpora.settings import DataSettings
    from corpora.types import SPLITS

    require_lhotse()
    tree = OmegaConf.structured(DataSettings)
    tree.corpus, tree.root = args.corpus, args.root
    for item in args.settings:
        key, equals, _ = item.partition("=")
        if not equals or not key.startswith("data."):
            raise UserError(
                f"'{item}' is not a setting of a corpus: expected data.KEY=VALUE, such as data.layout=none."
            )
        try:
            tree = OmegaConf.merge(tree, OmegaConf.from_dotlist([item.removeprefix("data.")]))
        except OmegaConfBaseException as error:
            raise UserError(f"'{item}': {str(error).splitlines()[0]}") from error
    settings: Any = OmegaConf.to_object(tree)
    check_data(settings)
    missing: list[UserError] = []
    for split in args.split or SPLITS:
        try:
            corpus = open_corpus(settings, settings.seed, (split,))
        except UserError as error:
            missing.append(error)
            if args.split or len(missing) == len(SPLITS):
                raise missing[0] from None
            print(f"{split}: the corpus has no such split")
            continue
        for line in [*([corpus.layout] if corpus.layout else []), *corpus.notes.get(split, [])]:
            print(f"{split}: {line}")
        skip = settings.on_error == "skip"
        print(write_shards(corpus.splits[split], Path(args.out) / split, seed=settings.seed, size=args.size, skip=skip))


def write_shards(
    utterances: Sequence[Any], folder: Path, *, seed: int = 0, size: int = SIZE, skip: bool = False
) -> str:
    """Write utterances as Shar shards, in random order, because neighbouring utterances of a corpus are similar.

    Sound is stored as 16-bit FLAC with its rate and channels. The folder is renamed to its name when it is complete.

    Args:
        utterances: `corpora.types.Utterance`s of sound.
        folder: The folder to write; it must not exist.
        seed: The seed of the order.
        size: Utterances per shard.
        skip: Whether to omit broken recordings.

    Returns:
        A line that describes the shards.

    Raises:
        UserError: The folder exists or cannot be written, or a recording is broken and `skip` is false.
    """
    from lhotse.shar import SharWriter

    from corpora.types import AudioFault, refusal

    if folder.exists():
        raise UserError(f"{folder} already exists: remove it, or give another --out.")
    order = sorted(utterances, key=lambda utterance: _mixed(seed, utterance.file))
    with _renamed_when_whole(folder) as beside:
        seconds, broken = 0.0, []
        with SharWriter(str(beside), fields={"recording": "flac"}, shard_size=size) as writer:
            with progress_bar(f"writing {folder.name}", len(order), "file", leave=False) as bar:
                for utterance in order:
                    bar.update()
                    try:
                        cut = _cut(utterance)
                    except AudioFault as fault:
                        if not skip:
                            raise refusal(utterance.file, fault.fault) from None
                        broken.append(f"{utterance.file} ({fault.fault})")
                        continue
                    writer.write(cut)
                    seconds += cut.duration
    count = len(order) - len(broken)
    line = f"{folder}: {count} utterances, {seconds / 3600:.2f} h, {-(-count // size)} shards"
    return line + (f"; skipped {len(broken)} broken: {', '.join(broken)}" if broken else "")


def _cut(utterance: Any) -> Any:
    """An utterance as a Lhotse cut that contains its sound."""
    import soundfile
    from lhotse import MonoCut, MultiCut, Recording, SupervisionSegment

    sound = utterance.sound()
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.samples, sound.rate, format="FLAC", subtype="PCM_16")
    name = utterance.file.encode("utf-8", "replace").decode()  # file names may contain any bytes, JSON is text
    recording = Recording.from_bytes(buffer.getvalue(), recording_id=name)
    channels = list(range(sound.samples.shape[1]))
    channel: Any = 0 if len(channels) == 1 else channels
    labels = {key: value for key, value in utterance.labels.items() if isinstance(value, str | int | float)}
    said = SupervisionSegment(
        id=name,
        recording_id=name,
        start=0.0,
        duration=recording.duration,
        channel=channel,
        speaker=utterance.speaker or None,
        text=str(labels.pop("text")) if "text" in labels else None,
        gender=str(labels.pop("sex")) if "sex" in labels else None,
        custom=labels or None,
    )
    kind = MonoCut if len(channels) == 1 else MultiCut
    return kind(name, 0.0, recording.duration, channel, recording=recording, supervisions=[said])


@contextlib.contextmanager
def _renamed_when_whole(folder: Path) -> Iterator[Path]:
    beside = folder.with_name(f"{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            yield beside
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _mixed(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}/shard".encode("utf-8", "surrogateescape")).digest()


def _parser() -> Parser:
    parser = Parser("corpora.shard", "Write a corpus as Shar shards.")
    parser.add_argument("--corpus", required=True, metavar="C", help="folder, librispeech's tree included, lhotse, ...")
    parser.add_argument("--root", metavar="DIR", help="folder of the corpus")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to create, with a folder of shards per split"
    )
    parser.add_argument("--split", action="append", choices=["train", "valid", "test"], help="default: all splits")
    parser.add_argument(
        "--size", type=int, default=SIZE, metavar="N", help="utterances per shard (default: %(default)s)"
    )
    parser.add_settings(metavar="data.key=value", example="data.layout=none")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Listening samples of a trained model that is not a vocoder: what it makes of some clips, as sounds and pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from wavegen.audio import read_audio, write_audio
from wavegen.checkpoint import load_vocoder
from wavegen.corpora.labelling import load_frame_labels
from wavegen.corpora.manifest import Clip
from wavegen.evaluation.metrics import available, missing_note
from wavegen.evaluation.pictures import rows_figure, save_figure
from wavegen.evaluation.results import write_results
from wavegen.evaluation.scoring import REFERENCE, ScoringJob, Workers
from wavegen.files import with_ending
from wavegen.inpainting import fill_holes, holes_in
from wavegen.mel import open_mel
from wavegen.models import Model, Shown
from wavegen.models.inpainter import Inpainter
from wavegen.progress import bar_options
from wavegen.vocoders import Vocoder

REPAIRED = "repaired"


@torch.no_grad()
def show_clip(model: Model, clip: Clip, frames: int, device: torch.device) -> Shown:
    """What a model makes of the first frames of a clip, and of its labels if it has some.

    Raises:
        MelError: the mel file is damaged or has another definition.
        AudioError: the recording cannot be read.
    """
    frames = min(frames, clip.frames)
    mel = torch.tensor(open_mel(clip.mel, model.mel)[:, :frames], device=device)
    audio = torch.zeros(frames * model.mel.hop_length, device=device)
    real = torch.from_numpy(read_audio(clip.audio)[: len(audio)])
    audio[: len(real)] = real
    labels = None
    if clip.labels is not None:
        labels = torch.tensor(load_frame_labels(clip.labels, clip.frames)[:, :frames], device=device)
    return model.show(mel, audio, labels)


def write_model_samples(
    clips: Sequence[Clip], model: Model, out: Path, *, frames: int, title: str = "samples", progress: bool = True
) -> None:
    """Write what a model makes of some clips: sounds, a picture and the page ``index.html``.

    The sounds are those that the model shows, and where it completes mels also the sound that the shipped voice renders
    from them. Sounds of which only a part is new are scored like those of a vocoder.

    Args:
        clips: the clips.
        model: the trained model.
        out: folder for the results.
        frames: the number of frames of each clip.
        title: title of the page.
        progress: show progress bars on stderr.

    Raises:
        MelError, AudioError: see ``show_clip``.
        OutputError: a result cannot be written.
    """
    rate, hop = model.mel.sample_rate_hz, model.mel.hop_length
    device = next(model.parameters()).device
    jobs, pictures = [], {}
    systems: dict[str, None] = {}
    metrics: list[str] = []
    vocoder: Vocoder | None = None
    for clip in tqdm(clips, desc="samples", unit="clip", disable=not progress, **bar_options()):
        shown = show_clip(model, clip, frames, device)
        real = read_audio(clip.audio)[: frames * hop]
        sounds = {name: sound.float().cpu().numpy()[: len(real)] for name, sound in shown.sounds.items()}
        if shown.lost is not None:
            assert isinstance(model, Inpainter)
            metrics, vocoder = available(), vocoder or load_vocoder("default")
            lost = shown.lost.cpu().numpy()[: len(real)]
            sounds[REPAIRED] = fill_holes(real, holes_in(lost), model, vocoder, sample_rate_hz=rate)
        systems |= dict.fromkeys(sounds)

        # Write the sounds and the picture.
        files = {name: with_ending(out / clip.name, f".{name.replace(' ', '-')}.wav") for name in (REFERENCE, *sounds)}
        for name, samples in {REFERENCE: real, **sounds}.items():
            write_audio(files[name], samples, rate)
        rows = {name: picture.float().cpu().numpy() for name, picture in shown.pictures.items()}
        pictures[clip.name] = with_ending(out / clip.name, ".png"), ", ".join(rows)
        save_figure(rows_figure(rows, frame_s=hop / rate), pictures[clip.name][0])
        jobs.append(ScoringJob(clip.name, files.pop(REFERENCE), files, model.mel, metrics))

    note = missing_note() if metrics else None
    with Workers(progress=progress) as workers:
        write_results(
            out, jobs, workers, systems=list(systems), metrics=metrics, title=title,
            notes=[note] if note else [], pictures=pictures,
        )  # fmt: skip

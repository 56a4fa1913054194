"""The corpora with recipes: the layout of each, and training from its folder to a voice."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.messages import Messages

from wavegen.audio import audio_info, write_audio
from wavegen.checkpoint import load_vocoder
from wavegen.commands.train import main
from wavegen.corpora.manifest import Clip, Recording, read_manifest
from wavegen.errors import DataError
from wavegen.files import LOCK
from wavegen.mel import profile
from wavegen.pipeline import RECIPE, RECORDINGS, list_recordings
from wavegen.recipe import (
    find_recipe,
    load_recipe,
    shipped_recipes,
)
from wavegen.vocoders import VOCODERS

pytestmark = pytest.mark.usefixtures("alone")
CORPUS = Path("corpus")
TINY = {
    "spectral": "vocoder={name: spectral, channels: 8, layers: 1}",
    "wavenet": "vocoder={name: wavenet, residual_channels: 4, skip_channels: 4, hidden_channels: 4, "
    "condition_channels: 4, cycles: 1, depth: 3}",
    "parallel": "vocoder={name: parallel, residual_channels: 4, gate_channels: 4, skip_channels: 4, "
    "condition_channels: 4, cycles: 1, depth: 3}",
}
QUICK = (
    "training.steps=2", "training.batch_size=2", "training.workers=0", "training.valid_clips=1",
    "training.valid_frames=8", "training.listen_clips=1", "training.listen_frames=8",
    "samples.clips=1", "samples.baseline_iterations=1",
)  # fmt: skip


def sweep(seconds: float, rate: int, *, from_hz: float = 100.0) -> np.ndarray:
    """A rising tone that comes and goes like syllables, and a little noise."""
    time = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (from_hz * time + 1000 * time**2)) * np.sin(3 * np.pi * time)
    return (0.5 * tone + 1e-3 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def write_ljspeech(folder: Path = CORPUS) -> None:
    """Five recordings in the layout of LJSpeech-1.1, the last two of chapter 50."""
    lines = []
    for index, seconds in enumerate((1.0, 1.5, 2.0, 0.4, 1.0)):
        name = f"LJ{49 + index // 3:03d}-{index:04d}"
        write_audio(folder / f"wavs/{name}.wav", sweep(seconds, 22050, from_hz=100.0 * (index + 1)), 22050)
        lines.append(f'{name}|He said, "no. {index}|he said, "number\u2028{index}\n')
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")


def ljspeech(*overrides: str) -> list[Recording]:
    path = find_recipe("ljspeech/spectral")
    return list_recordings(load_recipe(path, [f"data.corpus={CORPUS}", *overrides]), path)


def test_ljspeech_has_the_recordings_in_its_metadata_and_validates_on_a_chapter(tmp_path: Path) -> None:
    write_ljspeech()
    write_audio(CORPUS / "wavs/LJ049-9999.wav", sweep(0.2, 22050), 22050)  # not in metadata.csv
    found = ljspeech()
    assert [(recording.name, recording.split) for recording in found] == [
        ("LJ049-0000", "train"),
        ("LJ049-0001", "train"),
        ("LJ049-0002", "train"),
        ("LJ050-0003", "valid"),
        ("LJ050-0004", "valid"),
    ]
    assert found[0].path == tmp_path / "corpus/wavs/LJ049-0000.wav"
    assert sum(recording.split == "valid" for recording in ljspeech("data.held_out=0.2")) == 1


@pytest.mark.parametrize("missing", [["metadata.csv"], ["wavs"], ["metadata.csv", "wavs"]], ids=", ".join)
def test_a_folder_that_is_not_ljspeech_is_refused(missing: list[str], messages: Messages) -> None:
    write_ljspeech()
    for name in missing:
        (CORPUS / name).rename(name)
    with messages.refused(DataError):
        ljspeech()


def test_missing_recordings_are_counted_and_the_first_three_named(messages: Messages) -> None:
    write_ljspeech()
    for path in sorted((CORPUS / "wavs").iterdir())[1:]:
        path.unlink()
    with messages.refused(DataError):
        ljspeech()
    (CORPUS / "metadata.csv").write_text("\n\n")
    with messages.refused(DataError):
        ljspeech()


def write_speech24k(*rows: str, folder: Path = CORPUS) -> None:
    """Recordings of two speakers and a manifest; the last one is for validation."""
    files = [f"rhasspy-{speaker}/{speaker}/{name}.flac" for speaker, name in (("b", "x"), ("a", "y"), ("a", "x"))]
    for index, file in enumerate(files):
        write_audio(folder / file, sweep(0.5, 24000, from_hz=100.0 * (index + 1)), 24000)
    lines = [f'{file}\t0.5\t{"valid" if i == 2 else "train"}\tHe said, "no' for i, file in enumerate(files)]
    text = "\n".join(["file\tseconds\tsplit\ttext", *lines, *rows]) + "\n"
    (folder / "MANIFEST.tsv").write_text(text, encoding="utf-8")


def speech24k(*overrides: str) -> list[Recording]:
    path = find_recipe("speech24k/spectral")
    return list_recordings(load_recipe(path, [f"data.corpus={CORPUS}", *overrides]), path)


def test_speech24k_is_split_by_its_manifest(tmp_path: Path) -> None:
    write_speech24k()
    corpus = tmp_path / CORPUS
    assert speech24k() == [
        Recording("a/x", corpus / "rhasspy-a/a/x.flac", "valid"),
        Recording("a/y", corpus / "rhasspy-a/a/y.flac", "train"),
        Recording("b/x", corpus / "rhasspy-b/b/x.flac", "train"),
    ]
    assert speech24k("data.held_out=b/*") == speech24k()


def test_a_folder_that_is_not_speech24k_is_refused(messages: Messages) -> None:
    with messages.refused(DataError):
        speech24k()
    for row in ("z.flac\t1\ttest\t", "z.flac\t1\ttrain\t"):  # another split, a missing recording
        write_speech24k(row)
        with messages.refused(DataError):
            speech24k()
    (CORPUS / "MANIFEST.tsv").write_text("file\tsplit\n")
    with messages.refused(DataError):
        speech24k()


def test_both_speech24k_recipes_differ_only_in_the_discriminators_and_their_cost() -> None:
    plain, adversarial = (
        load_recipe(find_recipe(f"speech24k/{name}")) for name in ("spectral", "spectral-adversarial")
    )
    assert adversarial.training.adversarial is not None
    assert 0 < adversarial.training.adversarial.start_step < adversarial.training.steps // 2
    cost = {"steps": 1, "batch_size": 1, "adversarial": None}
    same = {"description": "", "training": plain.training.model_copy(update=cost)}
    training = adversarial.training.model_copy(update=cost)
    assert plain.model_copy(update=same) == adversarial.model_copy(update={**same, "training": training})


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("speech24k/")])
def test_speech24k_gives_speakers_to_the_recipe_that_uses_them(name: str) -> None:
    write_speech24k()
    path = find_recipe(name)
    found = list_recordings(load_recipe(path, [f"data.corpus={CORPUS}"]), path)
    uses_speakers = name == "speech24k/spectral-speakers"
    assert [recording.speaker for recording in found] == (["a", "a", "b"] if uses_speakers else ["", "", ""])


def voices(corpus: Path, *overrides: str) -> list[Recording]:
    path = find_recipe("voices/source-filter")
    return list_recordings(load_recipe(path, [f"data.corpus={corpus}", *overrides]), path)


def test_voices_has_the_recordings_of_all_corpora_in_a_folder(tmp_path: Path) -> None:
    write_speech24k(folder=CORPUS / "two")
    write_speech24k(folder=CORPUS / "one")
    (CORPUS / "notes").mkdir()  # has no manifest
    found = voices(CORPUS)
    names = [f"{corpus}/rhasspy-{file}" for corpus in ("one", "two") for file in ("a/a/x", "a/a/y", "b/b/x")]
    assert [recording.name for recording in found] == names
    assert [recording.split for recording in found] == ["valid", "train", "train"] * 2
    assert found[0].path == tmp_path / CORPUS / "one/rhasspy-a/a/x.flac"
    assert [recording.name for recording in voices(CORPUS / "two")] == names[3:]


def test_a_folder_without_corpora_is_refused(messages: Messages) -> None:
    write_audio(CORPUS / "a.wav", sweep(0.5, 24000), 24000)
    with messages.refused(DataError):
        voices(CORPUS)
    write_speech24k(folder=CORPUS / "one")
    (CORPUS / "one/rhasspy-b/b/x.flac").unlink()
    with messages.refused(DataError):
        voices(CORPUS)


def test_voices_goes_from_its_corpora_to_a_pitch_network(
    capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    write_speech24k(folder=CORPUS / "one")
    write_speech24k(folder=CORPUS / "two")
    assert main(["voices/source-filter", f"data.corpus={CORPUS}", *QUICK, "--device", "cpu"]) == 0
    messages.check(capsys.readouterr().out.splitlines()[0])
    assert_a_run_is_whole(Path("runs/voices-source-filter"), "one/rhasspy-a/a/x", "source-filter")
    rows = [json.loads(line) for line in Path("runs/voices-source-filter/log.jsonl").read_text().splitlines()]
    assert {"median_cents", "within_50_cents", "gross_errors", "voicing_f1"} <= rows[-1].keys() | rows[-2].keys()
    # Predicted mels cannot train it.
    lines = [
        f"{CORPUS.absolute()}/one/rhasspy-a/a/{name}.flac\ta.npy\t{split}"
        for name, split in (("x", "valid"), ("y", "train"))
    ]
    Path("pairs.tsv").write_text("\n".join(["path\tmel\tsplit", *lines]))
    assert main(["voices/source-filter", "data.manifest=pairs.tsv", "--out", "predicted", "--device", "cpu"]) == 2
    messages.check(capsys.readouterr().err)


def write_vctk(folder: Path = CORPUS) -> None:
    """Two speakers of VCTK 0.92 with both microphones and the other files; sentence 001 is for validation."""
    for index, (speaker, sentence) in enumerate(itertools.product(("p225", "s5"), ("001", "010", "011"))):
        for microphone in ("mic1", "mic2"):
            path = folder / f"wav48_silence_trimmed/{speaker}/{speaker}_{sentence}_{microphone}.flac"
            write_audio(path, sweep(0.6, 48000, from_hz=100.0 * (index + 1)), 48000)
        text = folder / f"txt/{speaker}/{speaker}_{sentence}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("Please call Stella.")
    (folder / "wav48_silence_trimmed/log.txt").write_text("trimmed")
    (folder / "speaker-info.txt").write_text("ID  AGE  GENDER  ACCENTS  REGION COMMENTS")


def vctk(*overrides: str) -> list[Recording]:
    path = find_recipe("vctk/spectral")
    return list_recordings(load_recipe(path, [f"data.corpus={CORPUS}", *overrides]), path)


def test_vctk_has_the_first_microphones_recordings_by_speaker(tmp_path: Path, messages: Messages) -> None:
    write_vctk()
    found = vctk()
    assert [(r.name, r.split, r.speaker) for r in found] == [
        ("p225/p225_001", "valid", "p225"),
        ("p225/p225_010", "train", "p225"),
        ("p225/p225_011", "train", "p225"),
        ("s5/s5_001", "valid", "s5"),
        ("s5/s5_010", "train", "s5"),
        ("s5/s5_011", "train", "s5"),
    ]
    assert found[0].path == tmp_path / "corpus/wav48_silence_trimmed/p225/p225_001_mic1.flac"
    assert {r.speaker for r in vctk("data.speakers=false", "vocoder.speaker_channels=0")} == {""}
    with messages.refused(DataError):
        vctk("data.held_out=p225/*")


def test_a_folder_that_is_not_vctk_is_refused(messages: Messages) -> None:
    CORPUS.mkdir()
    with messages.refused(DataError):
        vctk()


def test_vctk_goes_from_its_folder_to_a_model_that_knows_its_speakers() -> None:
    write_vctk()
    shape = ("vocoder.channels=8", "vocoder.layers=1", "training.segment_frames=16")
    assert main(["vctk/spectral", f"data.corpus={CORPUS}", *QUICK, *shape, "--device", "cpu"]) == 0
    vocoder = load_vocoder(Path("runs/vctk-spectral/model.safetensors"), torch.device("cpu"))
    assert vocoder.speakers == ("p225", "s5")
    # The recipe in the run folder is enough to continue, without prepare.py.
    assert {r.speaker for r in read_manifest(Path("runs/vctk-spectral") / RECORDINGS, Recording)} == {"p225", "s5"}
    again = load_recipe(Path("runs/vctk-spectral") / RECIPE)
    assert {r.speaker for r in list_recordings(again, Path("runs/vctk-spectral") / RECIPE)} == {"p225", "s5"}


# --- end to end ---


def train(recipe: str, *overrides: str) -> int:
    return main([recipe, f"data.corpus={CORPUS}", TINY[recipe.split("/")[1]], *QUICK, *overrides, "--device", "cpu"])


def state_of(*folders: str) -> dict[Path, tuple[int, bytes]]:
    """Every file but locks: its time and content; of the recipe and its recordings, always written, the content."""
    files = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file() and path.name != LOCK]
    return {p: (0 if p.name in (RECIPE, RECORDINGS) else p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def assert_a_run_is_whole(run: Path, sample: str, vocoder: str) -> None:
    assert isinstance(load_vocoder(run / "model.safetensors", torch.device("cpu")), VOCODERS[vocoder])
    recipe = load_recipe(run / "recipe.yaml")
    generated, reference = (audio_info(run / f"samples/{sample}{kind}.wav") for kind in ("", ".reference"))
    assert generated.sample_rate_hz == reference.sample_rate_hz == recipe.mel.sample_rate_hz
    assert generated.samples == recipe.mel.frames(reference.samples) * recipe.mel.hop_length
    assert {path.suffix for path in (run / "samples").rglob(f"{Path(sample).name}*")} == {".wav", ".png"}
    assert list((run / "tensorboard").iterdir())
    assert not [path for path in run.rglob("*") if ".part" in path.name]


def test_ljspeech_goes_from_its_recordings_to_all_voices(
    capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    write_ljspeech()
    for vocoder in TINY:
        assert train(f"ljspeech/{vocoder}") == 0
        out, err = capsys.readouterr()
        features, training, *_ = out.splitlines()
        messages.check(features)  # extracted by the first run, found by the others
        assert training.startswith(f"training {vocoder} (")
        assert training.endswith("to step 2 on cpu")
        assert f": runs/ljspeech-{vocoder}/samples/index.html\n" in out
        assert err == ""
        assert_a_run_is_whole(Path(f"runs/ljspeech-{vocoder}"), "LJ050-0003", vocoder)
    assert not Path("features/ljspeech-hifigan-22k/audio").exists()  # used in place

    before = state_of("runs", "features")
    for vocoder in TINY:
        assert train(f"ljspeech/{vocoder}") == 0
        run = f"runs/ljspeech-{vocoder}"
        scores = Path(f"{run}/samples/scores.txt").read_text(encoding="utf-8")
        out = capsys.readouterr().out
        assert out.endswith(scores)
        messages.check(out.removesuffix(scores))
    assert state_of("runs", "features") == before
    # The run's own recipe has the recordings and their splits, and needs no prepare.py.
    resolved = Path("runs/ljspeech-spectral/recipe.yaml")
    assert list_recordings(load_recipe(resolved), resolved) == ljspeech()


def write_mixed_folder() -> set[str]:
    """Write recordings of many formats in subfolders, and files that are not recordings. Returns the names."""
    files = {"a/wide.wav": 44100, "a/same.flac": 24000, "b/deep/low.ogg": 16000, "b/loud.wav": 48000}
    if "MP3" in soundfile.available_formats():
        files["b/pressed.mp3"] = 44100
    for index, (name, rate) in enumerate(files.items()):
        (CORPUS / name).parent.mkdir(parents=True, exist_ok=True)
        samples = sweep(1.0, rate, from_hz=100.0 * (index + 1))
        soundfile.write(CORPUS / name, np.stack([samples, -0.5 * samples], axis=1) if "wide" in name else samples, rate)
    write_audio(CORPUS / "held/short.flac", sweep(0.3, 24000), 24000)  # shorter than a segment
    (CORPUS / "notes.txt").write_text("no recording")
    (CORPUS / "a/broken.wav").write_text("no recording either")
    return {str(Path(name).with_suffix("")) for name in (*files, "held/short")}


def test_speech24k_goes_to_a_voice_against_discriminators(
    capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    write_speech24k()
    small = "training.adversarial={periods: [2], period_channels: [2], resolutions: [], start_step: 1}"
    assert main(["speech24k/spectral-adversarial", f"data.corpus={CORPUS}", TINY["spectral"], *QUICK, small,
                 "--device", "cpu"]) == 0  # fmt: skip
    messages.check(capsys.readouterr().out.splitlines()[0])
    assert_a_run_is_whole(Path("runs/speech24k-spectral-adversarial"), "a/x", "spectral")


def test_any_folder_goes_from_its_recordings_to_all_voices(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = write_mixed_folder()

    def check(out: str, features: str, training: str) -> None:
        lines = out.splitlines()
        assert lines[0].startswith(f"features of {len(names)} clips (0.1 minutes, ")  # fewer without MP3
        assert lines[0].endswith(features)
        assert lines[1] == "1 left out:"
        assert lines[2].startswith(f"  {tmp_path}/corpus/a/broken.wav: cannot be decoded")
        assert lines[3].startswith(training)

    for vocoder in TINY:
        run = Path(f"runs/folder-{vocoder}")
        assert train(f"folder/{vocoder}", "data.held_out=held/*") == 0
        check(capsys.readouterr().out, f" extracted in {run}/features", f"training {vocoder}")
        assert_a_run_is_whole(run, "held/short", vocoder)
        clips = {clip.name: clip for clip in read_manifest(run / "features/manifest.tsv", Clip)}
        assert set(clips) == names
        for name, clip in clips.items():
            info = audio_info(clip.audio)
            assert (info.sample_rate_hz, info.channels) == (24000, 1)
            assert abs(info.samples - 24000 * (0.3 if name == "held/short" else 1)) <= 2400  # MP3 pads its ends
            assert clip.audio.is_relative_to(tmp_path / CORPUS) == (name in ("a/same", "held/short"))

        before = state_of("runs")
        assert train(f"folder/{vocoder}", "data.held_out=held/*") == 0
        again = capsys.readouterr().out
        check(again, f" are finished in {run}/features", f"training is finished: {run}/")
        assert f"\nsamples are finished: {run}/samples\n" in again
        assert state_of("runs") == before


@pytest.mark.parametrize("mel", ["wavegen-16k", "bigvgan-22k", "bigvgan-24k", "bigvgan-44k", "wavegen-48k"])
def test_one_recipe_serves_every_sample_rate(mel: str, capsys: pytest.CaptureFixture[str]) -> None:
    hop, rate = profile(mel).hop_length, profile(mel).sample_rate_hz
    CORPUS.mkdir()
    for name in "ab":
        write_audio(CORPUS / f"{name}.wav", sweep(0.5, rate), rate)
    assert train("folder/parallel", f"mel={mel}", "data.held_out=b", "samples.clips=0") == 0
    vocoder = load_vocoder(Path("runs/folder-parallel/model.safetensors"), torch.device("cpu"))
    assert math.prod(stage.hop_length for stage in vocoder.upsample.stages) == hop
    field = vocoder.receptive_field_samples
    assert f"receptive field {field} samples, {1000 * field / rate:.0f} ms at {rate} Hz)" in capsys.readouterr().out

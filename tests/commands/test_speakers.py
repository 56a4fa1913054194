"""Speakers from a corpus to a sound: read from folders and lists, trained, resumed, and asked for by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.commands import Refused
from support.corpus import RATE, voice, write_recipe
from support.messages import Messages
from support.runs import assert_same_checkpoint, checkpoint, train
from support.speakers import NAMES, speaking
from support.vocoders import SPEC, WITH_SPEAKERS, tiny_mel, write_model

from wavegen.benchmark import stream_in_one
from wavegen.checkpoint import load_checkpoint, load_vocoder, save_checkpoint
from wavegen.commands import evaluate, synth
from wavegen.corpora.manifest import Clip, Recording, read_manifest, speaker_table
from wavegen.errors import ConfigError, DataError
from wavegen.mel import open_mel, save_mel
from wavegen.recipe import load_recipe
from wavegen.synthesis import synthesize, synthesize_files
from wavegen.training.data import read_crop

pytestmark = pytest.mark.usefixtures("alone")


# ---- commands


def test_synth_speaks_as_the_speaker_that_is_named(messages: Messages, refused: Refused) -> None:
    write_model(Path("model.safetensors"), "spectral", speakers=NAMES, speaker_channels=3)
    for i in (1, 2):
        save_mel(f"mels/{i}.npz", tiny_mel(20 * i), SPEC)
    arguments = ["--model", "model.safetensors", "--float"]
    assert synth.main(["mels/1.npz", "one.wav", *arguments, "--speaker", "bob"]) == 0
    assert synth.main(["mels", "all", *arguments, "--speaker", "bob", "--batch", "2"]) == 0
    vocoder = load_vocoder("model.safetensors")
    expected = synthesize(vocoder, tiny_mel(20), speaker="bob")
    assert np.abs(expected - synthesize(vocoder, tiny_mel(20), speaker="ann")).max() > 1e-2
    for path in ("one.wav", "all/1.wav"):
        spoken = soundfile.read(path, dtype="float32")[0]
        np.testing.assert_allclose(spoken, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    for extra in ((), ("--speaker", "anne")):
        refused(synth.main, "mels", "none", *arguments, *extra)
    with messages.refused(ConfigError):
        synthesize_files(vocoder, [(open_mel("mels/1.npz"), Path("none/1.wav"))], speaker="dan")
    assert not Path("none").exists()


def test_evaluate_takes_the_speaker_from_the_folder_of_each_recording(refused: Refused) -> None:
    write_model(Path("model/model.safetensors"), "spectral", speakers=NAMES, speaker_channels=3)
    write_model(Path("plain/model.safetensors"), "spectral")
    for path in ("real/ann/x.wav", "real/cy/x.wav"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, voice(0.5, rate=SPEC.sample_rate_hz), SPEC.sample_rate_hz)

    def made(*arguments: str) -> list[np.ndarray]:
        assert evaluate.main(["real", *arguments, "--jobs", "1"]) == 0
        return [soundfile.read(f"evaluation/audio/model/{speaker}/x.wav")[0] for speaker in ("ann", "cy")]

    both = ["--model", "model", "--model", "plain"]
    ann, cy = made(*both)
    assert np.abs(ann - cy).max() > 1e-2  # of the same recording
    as_cy, also_as_cy = made(*both, "--speaker", "cy")
    np.testing.assert_array_equal(as_cy, cy)
    np.testing.assert_array_equal(also_as_cy, cy)
    for arguments in (("real", *both, "--speaker", "zed"), ("real", *both[2:], "--speaker", "cy")):
        refused(evaluate.main, *arguments, "--jobs", "1", "--out", "other")
    assert evaluate.main(["real/cy/x.wav", "--model", "model", "--jobs", "1", "--out", "other"]) == 0
    Path("real/ann").rename("real/dan")
    refused(evaluate.main, "real", *both, "--out", "third")


@pytest.mark.parametrize("name", WITH_SPEAKERS)
def test_bench_measures_any_speaker(name: str) -> None:
    mel = torch.from_numpy(tiny_mel(3)).expand(2, -1, -1)
    assert stream_in_one(speaking(name).prepared_for_synthesis(), mel).shape == (2, 3 * SPEC.hop_length)


# ---- corpora


def recordings(*named: str) -> list[Recording]:
    """``speaker/name`` in the training split, ``speaker/name!`` in the validation split."""
    return [
        Recording(name.rstrip("!"), Path(name), "valid" if name.endswith("!") else "train", None, name.split("/")[0])
        for name in named
    ]


def test_the_table_has_the_speakers_of_the_training_clips(messages: Messages) -> None:
    assert speaker_table(recordings("b/2", "a/1", "b/3", "a/2!")) == ("a", "b")
    for names in (("a/1", "/2", "/3!"), ("a/1", "a/2!"), ("a/1", "b/2", "c/3!")):
        with messages.refused(DataError):
            speaker_table(recordings(*names))


def test_a_clip_of_a_speaker_who_is_missing_from_the_table_is_refused(messages: Messages) -> None:
    soundfile.write("a.wav", voice(0.5, rate=SPEC.sample_rate_hz), SPEC.sample_rate_hz)
    save_mel("a.npz", tiny_mel(250), SPEC)
    clip = Clip("x/a", "train", 4000, 250, Path("a.wav"), Path("a.npz"), "bob")
    assert read_crop(clip, SPEC, 0, 8, ("ann", "bob")).speakers.tolist() == [1]
    assert read_crop(clip, SPEC, 0, 8).speakers is None
    with messages.refused(ConfigError):
        read_crop(clip, SPEC, 0, 8, ("ann", "cy"))


# ---- training

SHORT = ("training.steps=4", "training.checkpoint_every=2", "training.validate_every=2", 'data.held_out="*/0"')
HEARD = ("training.listen_clips=2", "training.listen_frames=16", "samples={clips: 2, baseline_iterations: 1}")


def write_speakers(*names: str, folder: str = "corpus") -> Path:
    """Three clips of each; 0 is held back."""
    for index, name in enumerate(names):
        (Path(folder) / name).mkdir(parents=True)
        for i in range(3):
            soundfile.write(Path(folder) / name / f"{i}.wav", voice(0.4, pitch_hz=100 + 80 * index, seed=i), RATE)
    return Path(folder)


def speaker_recipe(vocoder: str = "spectral", corpus: str = "corpus") -> Path:
    path = write_recipe(Path("tiny.yaml"), Path(corpus).absolute(), vocoder=vocoder)
    text = path.read_text().replace("vocoder: {", "vocoder: {speaker_channels: 4, ")
    path.write_text(text.replace("data: {", "data: {speakers: true, "))
    return path


@pytest.mark.parametrize("name", WITH_SPEAKERS)
def test_a_training_learns_its_speakers_and_resumes_bit_for_bit(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_speakers("low", "high")
    recipe = speaker_recipe(name)
    extra = (
        ()
        if name == "wavenet"
        else ("training.adversarial={periods: [2], period_channels: [4], resolutions: [], start_step: 1}",)
    )
    assert train(recipe, Path("whole"), *SHORT, *extra, *HEARD) == 0
    assert "2 speakers, receptive field" in capsys.readouterr().out
    tensors, header = load_checkpoint(Path("whole/model.safetensors"))
    assert header["speakers"] == ["high", "low"]
    assert {clip.speaker for clip in read_manifest(Path("whole/features/manifest.tsv"), Clip)} == {"high", "low"}
    late = load_checkpoint(checkpoint(Path("whole"), 4))[0]["model.speaker_condition.embedding.weight"]
    early = load_checkpoint(checkpoint(Path("whole"), 2))[0]["model.speaker_condition.embedding.weight"]
    assert ((late - early).abs().sum(1) > 0).all()
    assert tensors["ema.speaker_condition.embedding.weight"].shape == (2, 4)

    shutil.copytree("whole", "part", ignore=shutil.ignore_patterns("samples"))
    checkpoint(Path("part"), 4).unlink()
    Path("part/model.safetensors").unlink()
    assert train(recipe, Path("part"), *SHORT, *extra) == 0
    assert "resuming at step 2" in capsys.readouterr().out
    assert_same_checkpoint(checkpoint(Path("whole"), 4), checkpoint(Path("part"), 4))

    spoken = soundfile.read("whole/samples/low/0.wav")[0]
    vocoder = load_vocoder("whole")
    mel = np.load("whole/features/mels/low/0.npz")["mel"]
    expected = {who: synthesize(vocoder, mel, speaker=who).clip(-1, 1) for who in ("high", "low")}
    assert np.abs(spoken - expected["low"]).max() < 1e-4 < np.abs(expected["high"] - expected["low"]).max()


def test_a_run_from_before_there_were_speakers_goes_on() -> None:
    write_speakers("low", "high")
    recipe = write_recipe(Path("tiny.yaml"), Path("corpus").absolute())
    assert train(recipe, Path("run"), *SHORT) == 0
    tensors, header = load_checkpoint(checkpoint(Path("run"), 4))
    del header["speakers"], header["vocoder"]["speaker_channels"], header["format"]
    save_checkpoint(checkpoint(Path("run"), 4), tensors, header)
    assert train(recipe, Path("run"), *SHORT, "training.steps=5") == 0
    assert train(recipe, Path("tuned"), *SHORT, "init=run") == 0


def test_other_speakers_are_refused_in_a_resumed_run_and_of_an_init(capsys: pytest.CaptureFixture[str]) -> None:
    write_speakers("ann", "bob")
    assert train(speaker_recipe(), Path("run"), *SHORT) == 0
    assert train(speaker_recipe(), Path("tuned"), *SHORT, "init=run") == 0
    assert train(write_recipe(Path("plain.yaml"), Path("corpus")), Path("plain"), *SHORT) == 0
    write_speakers("ann", "cy", folder="others")
    capsys.readouterr()

    assert train(speaker_recipe(corpus="others"), Path("third"), *SHORT, "init=run") == 2
    found = str(Path("run/checkpoints/step-00000004.safetensors").absolute())
    assert capsys.readouterr().err == (
        f"wavegen-train: error: {found}: was trained with other speakers (it has bob, it lacks cy); "
        "give an init that was trained with this recipe's settings, or change the recipe\n"
    )
    assert train(speaker_recipe(), Path("third"), *SHORT, "init=plain") == 2
    assert "was trained with another vocoder (vocoder.speaker_channels is 0, not 4); " in capsys.readouterr().err
    assert not Path("third").exists()

    write_speakers("dan", folder="corpus")
    Path("run/model.safetensors").unlink()
    assert train(speaker_recipe(), Path("run"), *SHORT) == 2
    assert "was trained with other speakers (it lacks dan); give another --out" in capsys.readouterr().err


def test_fine_tuning_may_add_speakers(capsys: pytest.CaptureFixture[str]) -> None:
    write_speakers("bob", "dan")
    assert train(speaker_recipe(), Path("run"), *SHORT) == 0
    write_speakers("bob", "dan", "ann", "cy", folder="more")
    capsys.readouterr()
    still = ("training.learning_rate=1e-30", "training.weight_decay=0")
    assert train(speaker_recipe(corpus="more"), Path("tuned"), *SHORT, *still, "init=run") == 0
    assert "model.safetensors" not in capsys.readouterr().err
    before, after = load_vocoder("run"), load_vocoder("tuned")
    assert after.speakers == ("ann", "bob", "cy", "dan")
    table, new = (vocoder.state_dict()["speaker_condition.embedding.weight"] for vocoder in (before, after))
    torch.testing.assert_close(new[[1, 3]], table)
    torch.testing.assert_close(new[[0, 2]], table.mean(dim=0).expand(2, -1))  # the new ones begin in the middle
    mel = np.load("run/features/mels/bob/0.npz")["mel"]
    for who in ("bob", "dan"):
        np.testing.assert_allclose(
            synthesize(after, mel, speaker=who), synthesize(before, mel, speaker=who), rtol=0, atol=1e-4
        )


def test_a_corpus_that_cannot_tell_speakers_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_speakers("ann")
    assert train(speaker_recipe(), Path("run"), *SHORT) == 2
    assert "data.speakers: all recordings have the speaker 'ann'; " in capsys.readouterr().err
    assert train(speaker_recipe(corpus="corpus/ann"), Path("run"), *SHORT, "data.held_out=0.5") == 2
    assert "data.speakers: 3 of 3 recordings have no speaker: 0, 1, 2; " in capsys.readouterr().err
    assert not list(Path("run").glob("**/*.npz"))


def test_a_list_says_who_speaks_where_it_is_asked() -> None:
    write_speakers("ann", "bob")
    lines = [
        f"corpus/{who}/{i}.wav\t{'valid' if i == 0 else 'train'}\t{who}y" for who in ("ann", "bob") for i in range(3)
    ]
    Path("list.tsv").write_text("\n".join(["path\tsplit\tspeaker", *lines]) + "\n")
    assert train(speaker_recipe(), Path("told"), *SHORT, "data.manifest=list.tsv") == 0
    assert load_vocoder("told").speakers == ("anny", "boby")
    assert (
        train(write_recipe(Path("p.yaml"), Path("corpus")), Path("untold"), *SHORT, "data.manifest=list.tsv", *HEARD)
        == 0
    )
    assert load_vocoder("untold").speakers == ()


def test_a_recipe_needs_both_the_names_and_their_channels(messages: Messages) -> None:
    path = speaker_recipe()
    assert load_recipe(path).vocoder.speaker_channels == 4
    for override in ("data.speakers=false", "vocoder.speaker_channels=0"):
        with messages.refused(ConfigError):
            load_recipe(path, [override])

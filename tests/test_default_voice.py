"""The voice that wavegen ships: how it is found, what it reads, and what it may be used for."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import voice, write_corpus, write_recipe
from support.messages import Messages
from support.runs import train
from support.vocoders import write_model

import wavegen
from wavegen.audio import resample
from wavegen.checkpoint import DEFAULT_VOICE, find_model, load_checkpoint, load_vocoder, read_header
from wavegen.commands import synth
from wavegen.evaluation.baseline import log_mel_of, source_filter_baseline
from wavegen.evaluation.metrics import METRICS
from wavegen.evaluation.metrics.base import Pair
from wavegen.mel import PROFILES, LogMel, profile, save_mel
from wavegen.recipe import SHIPPED
from wavegen.vocoders import Vocoder

FAMILY = [
    "bigvgan-24k", "vocos-24k", "bigvgan-22k", "hifigan-22k", "pwg-22k", "diffwave-22k", "r9y9-22k", "wavegen-16k",
]  # fmt: skip


@pytest.fixture(scope="module")
def default_voice() -> Vocoder:
    return load_vocoder("default")


def exit_code(command: Callable[[list[str]], int], *arguments: str) -> int:
    """The exit code of a command, whether its arguments or what they name are refused."""
    try:
        return command([*arguments])
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which nobody has trained."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spoken(name: str, seconds: float = 0.5) -> np.ndarray:
    """The mel of a speech-like sound by a profile."""
    spec = PROFILES[name]
    sound = resample(voice(seconds).astype(np.float32), 24000, spec.sample_rate_hz)
    return log_mel_of(sound, spec)


def test_the_newest_run_is_found_and_without_one_the_voice(empty_folder: Path) -> None:
    assert find_model(None) == find_model("default") == find_model(Path("default")) == DEFAULT_VOICE
    write_model(empty_folder / "runs" / "mine" / "model.safetensors")
    assert find_model(None) == Path("runs/mine/model.safetensors")
    assert find_model("default") == DEFAULT_VOICE
    assert wavegen.load("default").mel == profile("bigvgan-24k")


@pytest.mark.parametrize("name", FAMILY)
def test_the_voice_reads_every_definition_of_its_family(name: str, default_voice: Vocoder) -> None:
    spec, mel = PROFILES[name], spoken(name)
    reader = default_voice.for_mel(spec)
    sound = reader.synthesize(torch.from_numpy(mel)[None])
    assert sound.shape[-1] == mel.shape[-1] * spec.hop_length
    again = LogMel(spec.plain)(sound)[..., : mel.shape[-1]]
    wanted = spec.plain.from_linear(spec.to_linear(torch.from_numpy(mel)[None]))
    assert (again - wanted).abs().mean() < 0.25  # nepers


def test_the_voice_is_closer_to_recordings_than_the_vocoder_it_began_as(default_voice: Vocoder) -> None:
    spec = profile("bigvgan-24k")
    distances = {"voice": 0.0, "source-filter": 0.0}
    for recording in sorted((SHIPPED / "recipes" / "demo" / "audio" / "valid").glob("*.flac"))[:2]:
        samples, rate = soundfile.read(recording, dtype="float32", frames=3 * 24000)
        assert rate == 24000
        mel = log_mel_of(samples, spec)
        sounds = {
            "voice": default_voice.synthesize(torch.from_numpy(mel)[None])[0].numpy(),
            "source-filter": source_filter_baseline(mel, spec),
        }
        for system, sound in sounds.items():
            distances[system] += METRICS["m_stft"].compute(Pair(samples, sound, spec))
    assert distances["voice"] < 0.99 * distances["source-filter"]


def test_the_file_is_small_and_names_no_place_on_a_computer() -> None:
    assert DEFAULT_VOICE.stat().st_size < 10e6
    header = read_header(DEFAULT_VOICE)
    assert header["recipe"].keys() == {"training"}
    assert "/" not in str(header)


def test_a_machine_that_never_trained_speaks_a_bare_mel_of_a_named_definition(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], default_voice: Vocoder
) -> None:
    np.save("tts.npy", mel := spoken("hifigan-22k"))
    assert synth.main(["tts.npy", "out.wav", "--profile", "hifigan-22k"]) == 0
    assert "the voice that wavegen ships" in capsys.readouterr().err
    heard, rate = soundfile.read("out.wav", dtype="float32")
    expected = default_voice.for_mel(profile("hifigan-22k")).synthesize(torch.from_numpy(mel)[None])[0].numpy()
    assert rate == 22050
    np.testing.assert_allclose(heard, expected.clip(-1, 1), atol=2e-4)  # 16 bits, and float32 in chunks


def test_a_definition_outside_the_family_is_spoken_by_the_source_filter_vocoder(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    spec = profile("pwg-24k")
    save_mel(Path("other.npz"), mel := spoken("pwg-24k"), spec)
    assert synth.main(["other.npz", "out.wav"]) == 0
    messages.check(capsys.readouterr().err.splitlines()[1])
    heard = soundfile.read("out.wav", dtype="float32")[0]
    np.testing.assert_allclose(heard, source_filter_baseline(mel, spec).clip(-1, 1), atol=2e-4)


def test_a_model_that_the_user_names_is_never_replaced(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    save_mel(Path("other.npz"), spoken("pwg-24k"), profile("pwg-24k"))
    write_model(empty_folder / "mine.safetensors", spec=profile("bigvgan-24k"), any_mel=True)
    assert synth.main(["other.npz", "out.wav", "--model", "mine.safetensors"]) == 2
    messages.check(capsys.readouterr().err.splitlines()[-1])
    assert not Path("out.wav").exists()


# --- a recording through its mel ---------------------------------


def test_a_recording_is_copied_through_its_mel(empty_folder: Path) -> None:
    sound = voice(1.0).astype(np.float32)
    soundfile.write("recording.wav", sound, 24000, subtype="FLOAT")
    save_mel(Path("mel.npz"), log_mel_of(sound, profile("bigvgan-24k")), profile("bigvgan-24k"))
    assert synth.main(["recording.wav", "copy.wav", "--float"]) == 0
    assert synth.main(["mel.npz", "spoken.wav", "--float"]) == 0
    copy, expected = (soundfile.read(name, dtype="float32")[0] for name in ("copy.wav", "spoken.wav"))
    np.testing.assert_allclose(copy, expected, atol=1e-4)


def test_a_recording_of_another_rate_is_resampled_to_the_definitions(empty_folder: Path) -> None:
    soundfile.write("recording.flac", np.stack([voice(0.5, rate=44100)] * 2, axis=1), 44100)
    assert synth.main(["recording.flac", "copy.wav", "--profile", "hifigan-22k"]) == 0
    info = soundfile.info("copy.wav")
    assert (info.samplerate, info.channels) == (22050, 1)
    assert info.frames == profile("hifigan-22k").frames(11025) * 256


@pytest.mark.parametrize("case", ["short", "same", "broken"])
def test_what_cannot_be_copied_is_refused_and_left_as_it_is(
    case: str, empty_folder: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    soundfile.write("recording.wav", voice(0.01 if case == "short" else 0.5), 24000)
    if case == "broken":
        Path("recording.wav").write_bytes(b"RIFF, but no sound")
    before = Path("recording.wav").read_bytes()
    out = "recording.wav" if case == "same" else "out.wav"
    assert exit_code(synth.main, "recording.wav", out) == 2
    messages.check(capsys.readouterr().err.splitlines()[-1])
    assert Path("recording.wav").read_bytes() == before
    assert not Path("out.wav").exists()


# --- fine-tuning -------------------------------------------------


@pytest.mark.slow
def test_training_begins_with_the_voice_and_its_discriminators_for_any_definition_that_it_reads(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(empty_folder / "corpus", clips=3)
    settings = ["mel=hifigan-22k", "training.steps=1", "training.batch_size=1", "training.learning_rate=1e-6"]
    data = [f"data.corpus={empty_folder / 'corpus'}", "data.held_out=a0", "samples.clips=0", "training.listen_clips=0"]
    assert train(Path("folder/voice"), empty_folder / "run", *data, *settings) == 0
    assert "with its discriminators" in capsys.readouterr().out
    tuned = load_vocoder(empty_folder / "run")
    assert tuned.mel == profile("hifigan-22k")
    mel = torch.from_numpy(spoken("hifigan-22k"))[None]
    torch.testing.assert_close(
        tuned.synthesize(mel), load_vocoder("default").for_mel(tuned.mel).synthesize(mel), atol=1e-3, rtol=0
    )


def test_a_run_is_shipped_in_half_precision_with_its_discriminators(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    settings = ["mel=bigvgan-24k", "training.adversarial={}", "training.segment_frames=24", "training.steps=3"]
    assert train(recipe, tmp_path / "run", *settings) == 0
    ship = runpy.run_path(str(SHIPPED / "recipes" / "voices" / "ship.py"))["ship"]
    ship(tmp_path / "run", tmp_path / "shipped.safetensors")
    shipped, trained = load_vocoder(tmp_path / "shipped.safetensors"), load_vocoder(tmp_path / "run")
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(shipped.state_dict()[name], weight, rtol=1e-3, atol=1e-7)
    tensors, _ = load_checkpoint(tmp_path / "shipped.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    assert any(name.startswith("discriminator.") for name in tensors)
    assert read_header(tmp_path / "shipped.safetensors")["recipe"].keys() == {"training"}
    init = f"init={tmp_path / 'shipped.safetensors'}"
    assert train(recipe, tmp_path / "tuned", *settings, init) == 0

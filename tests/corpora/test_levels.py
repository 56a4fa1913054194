"""Levels: a mel and the audio that is trained with it are the same, and what is unusual about levels is said."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.extraction import CORPUS, OUT, SPEC, interrupt_after, record, run, sweep
from support.messages import Messages

from wavegen.audio import read_audio
from wavegen.mel import LogMel, load_mel

pytestmark = pytest.mark.usefixtures("folder")


def write(name: str, samples: np.ndarray, rate: int = 24000) -> None:
    CORPUS.mkdir(exist_ok=True)
    soundfile.write(CORPUS / f"{name}.wav", samples, rate, subtype="FLOAT")


def test_the_mel_is_that_of_the_audio_that_is_trained_on() -> None:
    write("stereo", np.stack([3 * sweep(0.5, 24000)] * 2, axis=1))
    write("low", 3 * sweep(0.5, 16000), 16000)
    write("float", 3 * sweep(0.5, 24000))
    write("soft", np.stack([1e-4 * sweep(0.5, 24000)] * 2, axis=1))
    for clip in run().clips:
        audio = read_audio(clip.audio)
        mel = LogMel(SPEC)(torch.from_numpy(audio)[None])[0].numpy()
        np.testing.assert_array_equal(load_mel(clip.mel)[0], mel)
        assert clip.name == "float" or np.abs(audio).max() <= 1


def test_clips_beyond_full_scale_and_silent_ones_are_reported_again_and_again(
    messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("good")
    write("loud", np.stack([3 * sweep(0.5, 24000)] * 2, axis=1))
    write("louder", 4 * sweep(0.5, 24000))
    write("silent", np.zeros(12000))
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run()
    first = run()
    messages.check(first.notes())
    assert first.peaks["louder"] == pytest.approx(2, abs=0.01)
    again = run()
    assert again.was_complete
    assert again.notes() == first.notes()
    (OUT / "mels/loud.npz").unlink()
    assert run().notes() == first.notes()


def test_of_usual_levels_nothing_is_said() -> None:
    record("a", "b")
    assert run().notes() == ""


def test_a_recording_of_another_scale_is_left_out_by_name(messages: Messages) -> None:
    record("good")
    write("integers", 32767 * sweep(0.5, 24000))
    write("cancelled", np.stack([sweep(0.5, 24000), -sweep(0.5, 24000)], axis=1))
    assert not Path("out").exists()
    messages.check(run().left_out_report())

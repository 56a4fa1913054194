"""The spectral vocoder's own conventions, on which trained weights rely."""

import torch
from support.corpus import voice
from support.vocoders import new_vocoder

from wavegen.mel import LogMel, profile

MEL = profile("bigvgan-24k")


def test_a_phase_of_zero_is_a_pulse_in_the_middle_of_the_frame() -> None:
    """At the frame's first sample, where the phase of a transform counts from, the window would leave nothing of it."""
    torch.manual_seed(0)
    vocoder = new_vocoder("spectral", MEL, channels=16, layers=1, refinement_iterations=0)
    torch.nn.init.zeros_(vocoder.phase.weight)
    recording = torch.tensor(voice(0.5), dtype=torch.float32)[None]
    with torch.no_grad():
        generated = vocoder(LogMel(MEL)(recording))
    loudness = generated.square().mean().sqrt() / recording.square().mean().sqrt()
    assert 0.4 < loudness < 1.2  # at the first sample it is an eighth

"""The tiny mel definitions of the tests."""

from wavegen.mel import MelSpec

TINY = MelSpec(
    sample_rate_hz=8000, n_fft=64, win_length=64, hop_length=16, n_mels=8, f_min_hz=0, f_max_hz=4000,
    scale="slaney", norm="slaney", log="ln", floor=1e-5, center=False, magnitude_eps=1e-9,
)  # fmt: skip
TINIEST = TINY.replace(n_fft=32, win_length=32, hop_length=8, n_mels=6)
CENTRED_SHORT_WINDOW = TINIEST.replace(n_fft=40, win_length=20, hop_length=6, center=True)

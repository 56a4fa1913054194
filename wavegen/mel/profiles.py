"""Named mel definitions: those of widely used systems, and ours for the sample rates that they leave out."""

from collections.abc import Mapping

from wavegen.config import did_you_mean
from wavegen.errors import MelError
from wavegen.mel.spec import MelSpec

DEFAULT_PROFILE = "bigvgan-24k"

_HIFIGAN = MelSpec(
    sample_rate_hz=22050, n_fft=1024, win_length=1024, hop_length=256, n_mels=80, f_min_hz=0, f_max_hz=8000,
    scale="slaney", norm="slaney", log="ln", floor=1e-5, center=False, magnitude_eps=1e-9,
)  # fmt: skip
_BIGVGAN = _HIFIGAN.replace(sample_rate_hz=24000, n_mels=100, f_max_hz=12000)
_COSYVOICE = _HIFIGAN.replace(sample_rate_hz=24000, n_fft=1920, win_length=1920, hop_length=480, f_max_hz=12000)
_PWG = _HIFIGAN.replace(f_min_hz=80, f_max_hz=7600, log="log10", floor=1e-10, center=True, magnitude_eps=0)

PROFILES: Mapping[str, MelSpec] = {
    "hifigan-22k": _HIFIGAN,  # also Tacotron 2 and most TTS
    "bigvgan-24k": _BIGVGAN,  # BigVGAN v2, UnivNet
    "bigvgan-22k": _HIFIGAN.replace(f_max_hz=11025),
    "bigvgan-44k": _BIGVGAN.replace(
        sample_rate_hz=44100, n_fft=2048, win_length=2048, hop_length=512, n_mels=128, f_max_hz=22050
    ),
    # BigVGAN's authors publish no definition for these sample rates; ours follow its pattern.
    "wavegen-16k": _BIGVGAN.replace(sample_rate_hz=16000, n_mels=80, f_max_hz=8000),
    "wavegen-48k": _BIGVGAN.replace(
        sample_rate_hz=48000, n_fft=2048, win_length=2048, hop_length=512, n_mels=128, f_max_hz=24000
    ),
    "vocos-24k": _BIGVGAN.replace(scale="htk", norm="none", floor=1e-7, center=True, magnitude_eps=0),
    # The statistics of these three depend on the corpus: spec.replace(mean=..., std=...).
    "pwg-22k": _PWG,
    "pwg-24k": _PWG.replace(sample_rate_hz=24000, n_fft=2048, win_length=1200, hop_length=300),  # espnet
    "r9y9-22k": _PWG.replace(f_min_hz=125),
    # clip((20·log10(max(m, 1e-5)) - 20 + 100) / 100, 0, 1)
    "diffwave-22k": _PWG.replace(
        f_min_hz=20, f_max_hz=11025, scale="htk", norm="none", floor=1e-5, stft_normalized=True,
        gain=0.2, bias=0.8, clip=(0, 1),
    ),
    "nsf-44k": _HIFIGAN.replace(
        sample_rate_hz=44100, n_fft=2048, win_length=2048, hop_length=512, n_mels=128, f_min_hz=40,
        f_max_hz=16000, magnitude_eps=0,
    ),
    # F5-TTS computes vocos's mel with another floor: src/f5_tts/model/modules.py at 0914170.
    "f5-24k": _BIGVGAN.replace(scale="htk", norm="none", center=True, magnitude_eps=0),
    # CosyVoice calls HiFi-GAN's function with these sizes (matcha/utils/audio.py of Matcha-TTS):
    # examples/libritts/cosyvoice2/conf/cosyvoice2.yaml at 1c062ab, and cosyvoice3's at 1fa2644.
    "cosyvoice2-24k": _COSYVOICE.replace(f_max_hz=8000),
    "cosyvoice3-24k": _COSYVOICE,
}  # fmt: skip


def profile(name: str) -> MelSpec:
    """Look up a definition by its name in ``PROFILES``.

    Raises:
        MelError: no profile has this name.
    """
    if name not in PROFILES:
        raise MelError(f"unknown mel profile {name!r}", remedy=did_you_mean(name, PROFILES))
    return PROFILES[name]

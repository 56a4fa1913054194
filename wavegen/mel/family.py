"""Families of mel definitions that one vocoder reads: the same frames, any filters and logarithm."""

import math
from dataclasses import dataclass

import numpy as np

from wavegen.errors import MelError
from wavegen.mel.spec import MelSpec, ln_ceilings

# What a network that works on spectra is built around.
FRAMES = ("sample_rate_hz", "n_fft", "win_length", "hop_length")
# Within these a definition holds what such a network was trained to read.
MEL_BINS = (64, 160)
HIGHEST_F_MIN_HZ, LOWEST_F_MAX_HZ = 150.0, 7600.0
HIGHEST_FLOOR = 1e-4
HIGHEST_MAGNITUDE_EPS = HIGHEST_FLOOR**2  # it is added below the square root
LARGEST_CLIPPED_DB = 20.0


@dataclass(frozen=True)
class MelFamily:
    """Definitions with the frames of ``own`` and 64 to 160 bins over speech's range, in any scale, norm and logarithm.

    Framing is free too: centred frames lie half a hop earlier, which the inverse STFT takes into account.

    Attributes:
        own: the definition that the others share their frames with; one of the family itself.

    Raises:
        MelError: ``own`` is beyond what such a vocoder reads.
    """

    own: MelSpec

    def __post_init__(self) -> None:
        if outside := self._outside(self.own):
            what = f"a vocoder for every mel definition of its frames cannot have this one: {outside}"
            raise MelError(what, remedy="change the definition, or leave any_mel out")

    def check(self, spec: MelSpec, where: object) -> None:
        """Refuse a definition that is not of the family.

        Raises:
            MelError: names what keeps it out, with the values that are accepted.
        """
        if outside := self._outside(spec):
            raise MelError(
                f"mel of a definition beyond what this vocoder reads: {outside}",
                where=where,
                remedy="extract it again from the recording",
            )

    def _outside(self, spec: MelSpec) -> str:
        """What keeps a definition out, with the values that are accepted; empty for one that belongs."""
        found, own = spec.model_dump(), self.own.model_dump()
        limits: list[tuple[str, object, bool, str]]
        limits = [(name, found[name], found[name] == own[name], f"{own[name]}") for name in FRAMES]
        least, most = spec.ln_range
        clipped_db = 20 / math.log(10) * (ln_ceilings(spec)[0] - most)
        reaches = clipped_db <= LARGEST_CLIPPED_DB and least <= math.log(HIGHEST_FLOOR) + 1e-9
        limits += [
            ("n_mels", spec.n_mels, MEL_BINS[0] <= spec.n_mels <= MEL_BINS[1], f"{MEL_BINS[0]} to {MEL_BINS[1]}"),
            ("f_min_hz", spec.f_min_hz, spec.f_min_hz <= HIGHEST_F_MIN_HZ, f"up to {HIGHEST_F_MIN_HZ:g}"),
            ("f_max_hz", spec.f_max_hz, spec.f_max_hz >= self.lowest_f_max_hz, f"{self.lowest_f_max_hz:g} or more"),
            ("floor", spec.floor, spec.floor <= HIGHEST_FLOOR, f"up to {HIGHEST_FLOOR:g}"),
            (
                "magnitude_eps",
                spec.magnitude_eps,
                spec.magnitude_eps <= HIGHEST_MAGNITUDE_EPS,
                f"up to {HIGHEST_MAGNITUDE_EPS:g}",
            ),
            ("clip", spec.clip, spec.clip is None or reaches, "one that leaves speech as it is"),
        ]
        shown = [f"{name} is {_shown(value)}, not {wanted}" for name, value, fits, wanted in limits if not fits]
        return ", ".join(shown)

    @property
    def lowest_f_max_hz(self) -> float:
        """The least upper end of the filters, in Hz."""
        return min(LOWEST_F_MAX_HZ, self.own.sample_rate_hz / 2)

    def draw(self, step: int) -> MelSpec:
        """A definition for a training step, always the same for the same step.

        Logarithm, gain and statistics are undone exactly before the network, so they need not be drawn.
        """
        # A counter-based generator, as for the choice of segments, none of which has this second word.
        random = np.random.Generator(np.random.Philox(key=np.array([step, 2**64 - 1], dtype=np.uint64)))
        nyquist = self.own.sample_rate_hz / 2
        whole_band = random.random() < 0.5
        f_max_hz = nyquist if whole_band else random.uniform(self.lowest_f_max_hz, nyquist)
        return self.own.replace(
            n_mels=int(random.integers(MEL_BINS[0], MEL_BINS[1] + 1)),
            f_min_hz=random.choice([0.0, random.uniform(0, HIGHEST_F_MIN_HZ)]),
            f_max_hz=float(f_max_hz),
            scale=str(random.choice(["slaney", "htk"])),
            norm=str(random.choice(["slaney", "none"])),
            floor=float(10 ** random.uniform(-10, -4)),
            log="ln",
            gain=1.0,
            bias=0.0,
            clip=None,
            mean=None,
            std=None,
            center=bool(random.integers(2)) or bool((self.own.n_fft - self.own.hop_length) % 2),
            magnitude_eps=float(random.choice([0.0, 1e-9])),
            stft_normalized=bool(random.random() < 0.2),
        )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)

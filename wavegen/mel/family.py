"""Families of mel definitions that one vocoder reads: the same frames, any filters, logarithm and near sample rate."""

import math
from dataclasses import dataclass

import numpy as np

from wavegen.errors import MelError
from wavegen.mel.spec import MelSpec, ln_ceilings

# A network that works on spectra is built for one frame layout, so these fields cannot vary.
SHARED_FIELDS = ("n_fft", "win_length", "hop_length")
# Definitions within these limits keep what such a network was trained to read.
RATE_STEPS = 20  # sample rates are drawn in steps of 1/20 of the family's own, so that resampling needs short filters
SLOWEST, FASTEST = 13, 27
OWN_RATE_SHARE = 0.5
MIN_MELS, MAX_MELS = 64, 160
MAX_F_MIN_HZ, MIN_F_MAX_HZ = 150.0, 7600.0
MAX_FLOOR = 1e-4
MAX_MAGNITUDE_EPS = MAX_FLOOR**2  # it is added below the square root
MAX_CLIPPED_DB = 20.0


@dataclass(frozen=True)
class MelFamily:
    """Definitions with the frames of ``own`` and 64 to 160 bins over speech's range, in any scale, norm and logarithm.

    The sample rate may be 0.65 to 1.35 times that of ``own``. The framing is free too: centred frames lie half a hop
    earlier, which the inverse STFT takes into account.

    Attributes:
        own: the member of the family whose frames the others share; the vocoder's own definition.

    Raises:
        MelError: ``own`` is outside the limits.
    """

    own: MelSpec

    def __post_init__(self) -> None:
        if outside := self._outside(self.own):
            what = f"a vocoder with any_mel cannot have this mel definition: {outside}"
            raise MelError(what, remedy="change the definition, or leave any_mel out")

    def check(self, spec: MelSpec, where: object) -> None:
        """Check that a definition belongs to the family.

        Raises:
            MelError: it does not; names the fields outside the limits, with the accepted values.
        """
        if outside := self._outside(spec):
            raise MelError(
                f"this vocoder cannot read the mel definition: {outside}",
                where=where,
                remedy="extract the mel from the recording again",
            )

    def _outside(self, spec: MelSpec) -> str:
        """The fields that keep a definition out, with the accepted values; empty if it belongs."""
        ln_low, ln_high = spec.ln_range
        clipped_db = 20 / math.log(10) * (ln_ceilings(spec)[0] - ln_high)
        keeps_speech = clipped_db <= MAX_CLIPPED_DB and ln_low <= math.log(MAX_FLOOR) + 1e-9
        shared = [(name, getattr(self.own, name)) for name in SHARED_FIELDS]
        slowest, fastest = self.sample_rates_hz
        rate = spec.sample_rate_hz
        limits = [
            ("sample_rate_hz", slowest <= rate <= fastest, f"{slowest} to {fastest}"),
            *((name, getattr(spec, name) == accepted, str(accepted)) for name, accepted in shared),
            ("n_mels", MIN_MELS <= spec.n_mels <= MAX_MELS, f"{MIN_MELS} to {MAX_MELS}"),
            ("f_min_hz", spec.f_min_hz <= MAX_F_MIN_HZ, f"up to {MAX_F_MIN_HZ:g}"),
            ("f_max_hz", spec.f_max_hz >= min_f_max_hz(rate), f"{min_f_max_hz(rate):g} or more"),
            ("floor", spec.floor <= MAX_FLOOR, f"up to {MAX_FLOOR:g}"),
            ("magnitude_eps", spec.magnitude_eps <= MAX_MAGNITUDE_EPS, f"up to {MAX_MAGNITUDE_EPS:g}"),
            ("clip", spec.clip is None or keeps_speech, "a range that leaves speech unchanged"),
        ]
        faults = [
            f"{name} is {_shown(getattr(spec, name))}, not {accepted}" for name, fits, accepted in limits if not fits
        ]
        return ", ".join(faults)

    @property
    def sample_rates_hz(self) -> tuple[int, int]:
        """The lowest and the highest accepted sample rate."""
        return self._rate(SLOWEST), self._rate(FASTEST)

    def _rate(self, steps: int) -> int:
        return self.own.sample_rate_hz * steps // RATE_STEPS

    def rate_steps(self, spec: MelSpec) -> int:
        """The sample rate of a drawn definition in steps of 1/20 of the family's own."""
        return round(RATE_STEPS * spec.sample_rate_hz / self.own.sample_rate_hz)

    def draw(self, step: int, *, any_rate: bool = True) -> MelSpec:
        """A random definition for a training step; the same step always gives the same one.

        Half of them have the sample rate of ``own``, or all if ``any_rate`` is false. Logarithm, gain, bias and
        statistics are undone exactly before the network, so drawing them would add nothing.
        """
        # A counter-based generator, as for the choice of segments; their keys never have this second word.
        random = np.random.Generator(np.random.Philox(key=np.array([step, 2**64 - 1], dtype=np.uint64)))
        rate = self.own.sample_rate_hz
        if any_rate and random.random() >= OWN_RATE_SHARE:
            rate = self._rate(int(random.integers(SLOWEST, FASTEST + 1)))
        nyquist = rate / 2
        whole_band = random.random() < 0.5
        f_max_hz = nyquist if whole_band else random.uniform(min_f_max_hz(rate), nyquist)
        return self.own.replace(
            sample_rate_hz=rate,
            n_mels=int(random.integers(MIN_MELS, MAX_MELS + 1)),
            f_min_hz=random.choice([0.0, random.uniform(0, MAX_F_MIN_HZ)]),
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


def min_f_max_hz(sample_rate_hz: int) -> float:
    """The lowest accepted upper end of the filters at a sample rate, in Hz."""
    return min(MIN_F_MAX_HZ, sample_rate_hz / 2)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)

"""Live repair: known samples bit for bit, the same result however the stream is cut, a fixed delay, constant memory."""

import gc
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from support.corpus import voice
from support.mels import CENTRED_SHORT_WINDOW, TINY
from support.messages import Messages
from support.ready_vocoders import VOCODERS
from support.vocoders import new_vocoder, small_pitch_network, tiny_vocoder
from torch import Tensor

from wavegen.errors import AudioError, ConfigError, MelError, StreamingError
from wavegen.inpainting import LiveRepair, exemplars, holes_in, live_vocoder, repair_as_stream
from wavegen.mel import LogMel, MelSpec, profile
from wavegen.models.inpainter import KEPT, Inpainter, InpainterConfig
from wavegen.vocoders import Vocoder

SMALL = TINY.replace(n_fft=256, win_length=256, hop_length=64)  # fewer hops than TINY's take less time
CENTRED = CENTRED_SHORT_WINDOW.replace(n_fft=320, win_length=200, hop_length=60)
RATE = SMALL.sample_rate_hz
PACKET = RATE // 100
NEVER = 1_000_000  # frames of a hole
HOLES = [(300, 352), (440, 450), (600, 680), (700, 770), (900, 1500)]  # the first ends with a hop, the second is short


def inpainter(mel: MelSpec = SMALL, look_ahead: int = 2) -> Inpainter:
    torch.manual_seed(0)
    config = InpainterConfig.examples()[1].model_copy(update={"look_ahead": look_ahead})
    return Inpainter(mel, config).prepared_for_synthesis()


def source_filter(mel: MelSpec = SMALL) -> Vocoder:
    with small_pitch_network():
        return new_vocoder("source-filter", mel, synthesis_iterations=0).prepared_for_synthesis()


def stream(samples: int = 1800) -> tuple[np.ndarray, np.ndarray]:
    """A voice whose lost samples are NaN, and which are lost."""
    sound = voice(samples / RATE, rate=RATE).astype(np.float32)
    lost = np.zeros(samples, dtype=bool)
    for start, stop in HOLES:
        lost[start:stop] = True
    return np.where(lost, np.float32("nan"), sound), lost


def chunks(length: int, *sizes: int) -> Iterable[slice]:
    """Slices of these sizes, over and over, up to ``length``."""
    start = index = 0
    while start < length:
        yield slice(start, min(start + sizes[index % len(sizes)], length))
        start, index = start + sizes[index % len(sizes)], index + 1


def repaired(live: LiveRepair, samples: np.ndarray, lost: np.ndarray, *sizes: int) -> np.ndarray:
    parts = [live.feed(samples[part], lost[part]) for part in chunks(len(samples), *sizes)]
    return np.concatenate([*parts, live.finish()])


@pytest.mark.parametrize("name", VOCODERS)
def test_known_samples_stay_bit_for_bit_in_time_with_every_kind_of_vocoder(name: str) -> None:
    samples, lost = stream()
    kind, changes = VOCODERS[name]
    live = LiveRepair(inpainter(), tiny_vocoder(kind, spec=SMALL, **changes).prepared_for_synthesis())
    parts, fed = [np.zeros(0, dtype=np.float32)], 0
    for part in chunks(len(samples), 1, PACKET, 300):
        parts.append(live.feed(samples[part], lost[part]))
        fed = part.stop
        assert sum(map(len, parts)) >= fed - live.latency_samples
    parts.append(live.finish())
    result = np.concatenate(parts)
    assert len(result) == len(samples)
    assert result.dtype == np.float32
    assert np.array_equal(result[~lost], samples[~lost])
    assert np.isfinite(result).all()
    assert (result[1000:1400] != 0).mean() > 0.9  # deep in a hole


@pytest.mark.parametrize(("mel", "look_ahead"), [(SMALL, 0), (SMALL, 4), (CENTRED, 2)])
def test_the_result_does_not_depend_on_the_chunks(mel: MelSpec, look_ahead: int) -> None:
    samples, lost = stream(4200)
    samples[3200:3900], lost[3200:3900] = np.nan, True  # after enough known frames
    model, vocoder = inpainter(mel, look_ahead), source_filter(mel)
    whole = repaired(LiveRepair(model, vocoder), samples, lost, len(samples))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exemplars, "FIRST_REPLACED", NEVER)
        as_expected = repaired(LiveRepair(model, vocoder), samples, lost, len(samples))
    assert not np.array_equal(whole, as_expected)
    for sizes in ((PACKET,), (1,), (3, 900, 17, 256)):
        assert np.array_equal(repaired(LiveRepair(model, vocoder), samples, lost, *sizes), whole)


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_the_delay_is_what_is_stated(look_ahead: int) -> None:
    samples, lost = stream(800)
    live = LiveRepair(inpainter(look_ahead=look_ahead), source_filter())
    out = 0
    delays = []
    for part in chunks(len(samples), 1):
        out += len(live.feed(samples[part], lost[part]))
        delays.append(part.stop - out)
    assert max(delays) == live.latency_samples


def test_the_seed_changes_what_is_filled_in() -> None:
    samples, lost = stream()
    results = [repaired(LiveRepair(inpainter(), source_filter(), seed=s), samples, lost, PACKET) for s in (0, 0, 1)]
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def reachable_bytes(start: object) -> int:
    """Bytes of all arrays and tensors that belong to an object."""
    found, waiting = {id(start): start}, [start]
    while waiting:
        for other in gc.get_referents(waiting.pop()):
            if id(other) not in found and not isinstance(other, type | type(gc)) and not callable(other):
                found[id(other)] = other
                waiting.append(other)
    return sum(x.nbytes for x in found.values() if isinstance(x, np.ndarray | Tensor))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_memory_is_constant(share: float) -> None:
    random = np.random.default_rng(0)
    live = LiveRepair(inpainter(), source_filter())
    sizes = []
    for index in range(90):
        lost = np.full(PACKET, random.uniform() < share)
        live.feed(random.uniform(-0.1, 0.1, PACKET), lost)
        if index % 30 == 29:
            sizes.append(reachable_bytes(live))
    assert sizes[0] > 8 * PACKET
    assert max(sizes) <= sizes[0] + 8 * 20 * PACKET  # holes that wait keep their own predictions


@pytest.mark.parametrize("length", [0, 1, 100, 400])
@pytest.mark.parametrize("known", ["nothing", "middle", "all"])
def test_a_stream_may_be_short_and_may_begin_and_end_in_a_hole(length: int, known: str) -> None:
    samples, _ = stream(length)
    samples = np.nan_to_num(samples)
    lost = np.full(length, known != "all")
    lost[length // 3 : 2 * length // 3] = known == "nothing"
    result = repaired(LiveRepair(inpainter(), source_filter()), np.where(lost, np.nan, samples), lost, PACKET)
    assert len(result) == length
    assert np.array_equal(result[~lost], samples[~lost])
    assert np.isfinite(result).all()


# --- what is heard in a hole ---

MEL = profile("bigvgan-24k")


class Foreseen:
    """Stands in for an inpainter that knows the mel: that of an earlier stream, which had no holes."""

    mel, look_ahead, context = MEL, 2, inpainter(MEL).context

    def __init__(self, frames: list[Tensor]) -> None:
        self.frames = frames

    def initial_state(self, batch: int) -> list[Tensor]:
        return []

    def step(self, mel: Tensor, known: Tensor, waiting: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        index = len(waiting)
        if index == len(self.frames):
            self.frames.append(mel)
        waiting = [*waiting, torch.where(known >= KEPT, mel, self.frames[index])]
        return (waiting[index - 2] if index >= 2 else mel[..., :0]), waiting


def live_repair(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which samples of a sound are lost, and its live repair by an inpainter that knows the mel."""
    lost = np.zeros(len(sound), dtype=bool)
    lost[9000:11880] = lost[2000:2048] = True  # 120 ms, longer than the delay, and 2 ms
    frames: list[Tensor] = []
    results = []
    for missing in (np.zeros_like(lost), lost):
        live = LiveRepair(Foreseen(frames))  # type: ignore[arg-type]
        results.append(repaired(live, sound, missing, 240))
    assert np.array_equal(results[0], sound)
    return lost, results[1]


@pytest.fixture(scope="module")
def filled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A voice that the vocoder could speak, in another phase; which of its samples are lost; and its live repair.

    It is repaired without exemplars, from the mel that it has.
    """
    mel = LogMel(MEL)(torch.from_numpy(voice(0.6)).float()[None])
    sound = live_vocoder(MEL).synthesize(mel, seed=1)[0, 100:].double().numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exemplars, "FIRST_REPLACED", NEVER)
        return sound, *live_repair(sound)


def test_the_mel_of_a_hole_is_nearly_restored(filled: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    sound, lost, result = filled
    inside = slice(9000 // 256, 11880 // 256)
    sounds = torch.from_numpy(np.stack((sound, result, np.where(lost, 0, sound)))).float()
    true, mine, silent = LogMel(MEL)(sounds)[..., inside]
    assert (mine - true).abs().mean() < 0.25 * (silent - true).abs().mean()


def test_no_edge_has_a_jump_and_a_short_hole_is_interpolated_even_if_the_phases_differ() -> None:
    sound = voice(0.6)
    lost, result = live_repair(sound)
    usual = np.abs(np.diff(sound)).max()
    for edge in np.flatnonzero(np.diff(lost)):
        assert np.abs(np.diff(result[edge - 2 : edge + 4])).max() < 0.5 * usual
    assert np.abs(result - sound)[2000:2048].max() < 0.05


def test_a_short_hole_is_predicted_from_what_follows_too(filled: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    sound, _, result = filled
    assert np.abs(result - sound)[2000:2048].max() < 0.05


def test_the_sound_of_a_hole_is_in_phase_with_what_precedes(filled: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    sound, _, result = filled
    after = slice(9240, 9720)  # behind the fade
    likeness = np.corrcoef(sound[after], result[after])[0, 1]
    assert likeness > 0.9


def test_exemplars_get_each_completed_frame_with_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[Tensor, float]] = []

    class Reader(exemplars.LiveExemplars):
        def step(self, expected: Tensor, share: float) -> Tensor:
            read.append((expected, share))
            return super().step(expected, share)

    monkeypatch.setattr("wavegen.inpainting.live.LiveExemplars", Reader)
    sound, expected = voice(0.6), torch.full((1, MEL.n_mels, 1), -3.0)
    lost = np.zeros(len(sound), dtype=bool)
    lost[9000:11880] = True
    repaired(LiveRepair(Foreseen([expected] * 100)), sound, lost, 240)  # type: ignore[arg-type]
    is_expected = [bool((frame == expected).all()) for frame, _ in read]
    assert is_expected == [share < KEPT for _, share in read]
    assert 11 < sum(is_expected) < 20


def test_a_long_hole_gets_frames_that_have_passed() -> None:
    sound = voice(0.6)
    lost = np.zeros(len(sound), dtype=bool)
    lost[9000:11880] = True
    results = []
    for first in (exemplars.FIRST_REPLACED, NEVER):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exemplars, "FIRST_REPLACED", first)
            inpainter = Foreseen([torch.full((1, MEL.n_mels, 1), -3.0)] * 100)
            results.append(repaired(LiveRepair(inpainter), sound, lost, 240))  # type: ignore[arg-type]
    inside = slice(9000 // 256 + 2, 11880 // 256 - 2)
    true, replaced, expected = LogMel(MEL)(torch.from_numpy(np.stack((sound, *results))).float())[..., inside]
    assert (replaced - true).abs().mean() < 0.7 * (expected - true).abs().mean()


def test_a_recording_is_repaired_as_a_stream_of_packets() -> None:
    samples, lost = stream()
    result = repair_as_stream(samples, holes_in(lost), inpainter(), source_filter(), sample_rate_hz=RATE)
    live = LiveRepair(inpainter(), source_filter())
    assert np.array_equal(result.samples, repaired(live, samples, lost, PACKET))
    assert result.delay_s == live.latency_samples / RATE
    assert result.load > 0


# --- refusals ---


def test_what_cannot_run_live_is_refused(messages: Messages) -> None:
    with messages.refused(ConfigError):
        LiveRepair(Inpainter(SMALL, InpainterConfig.examples()[0]))
    with messages.refused(MelError):
        LiveRepair(inpainter(CENTRED), tiny_vocoder("spectral", spec=SMALL))


@pytest.mark.parametrize(
    ("samples", "lost"),
    [
        (np.zeros(5), np.zeros(4, dtype=bool)),
        (np.zeros((1, 5)), np.zeros((1, 5), dtype=bool)),
        (np.zeros(5, dtype=np.int16), np.zeros(5, dtype=bool)),
        (np.zeros(5), np.zeros(5)),
        (np.array([0.0, np.nan]), np.zeros(2, dtype=bool)),
    ],
)
def test_samples_that_cannot_be_used_are_refused(samples: np.ndarray, lost: np.ndarray, messages: Messages) -> None:
    live = LiveRepair(inpainter(), source_filter())
    with messages.refused(AudioError):
        live.feed(samples, lost)


def test_nothing_follows_the_end(messages: Messages) -> None:
    live = LiveRepair(inpainter(), source_filter())
    live.finish()
    with messages.refused(StreamingError):
        live.feed(np.zeros(1), np.zeros(1, dtype=bool))

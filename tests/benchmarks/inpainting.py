"""Holes of 20 to 160 ms, one a second, and a missing band: the inpainter against baselines.

Run:    python tests/benchmarks/inpainting.py --voices /path/to/voices24k --corpus /path/to/speech24k --model RUN

``log-mel`` is the mean difference of the log-mel over the frames whose centre lies in a hole, and in brackets its ratio
to linear prediction. PLCMOS, DistillMOS and PESQ rate whole clips; they are left out where their packages are missing.
No speaker of the split ``valid`` of ``voices24k`` is in a training set. ``--live`` adds a causal inpainter that repairs
each clip as a stream of packets of 10 ms; its delay, and the mean processor time of a frame, are printed below.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wavegen.audio import audio_info, read_audio, write_audio
from wavegen.audio.resampling import resample
from wavegen.checkpoint import load_model, load_vocoder
from wavegen.corpora.manifest import Recording, listed_recordings
from wavegen.evaluation.metrics import available, score
from wavegen.inpainting import Hole, extend_band, fill_holes, interpolate, live_vocoder, repair_as_stream
from wavegen.inpainting.holes import lost_samples
from wavegen.mel import LogMel, MelSpec
from wavegen.models.inpainter import Inpainter
from wavegen.tables import text_table

LENGTHS_MS = (20, 40, 80, 160)
LONGEST_S = 5.0
TRAINING_CLIPS = 40  # of each corpus, for the mean spectrum
CUT_HZ = 4000.0
LONGEST_PERIOD_S, SHORTEST_PERIOD_S = 1 / 70, 1 / 400
Fill = Callable[[np.ndarray, list[Hole]], np.ndarray]


def clips(corpus: Path, rate: int, split: str, count: int | None = None) -> list[tuple[str, np.ndarray]]:
    """The longest recording of each speaker in a split, cut to ``LONGEST_S``; or evenly chosen recordings of it."""
    recordings = [recording for recording in listed_recordings(corpus) if recording.split == split]
    if count is None:
        longest: dict[str, Recording] = {}
        for recording in sorted(recordings, key=lambda recording: seconds_of(recording.path)):
            longest[recording.speaker or recording.path.parent.name] = recording
        recordings = list(longest.values())
    else:
        recordings = recordings[:: max(1, len(recordings) // count)][:count]
    return [(r.name, read_audio(r.path, rate)[: round(LONGEST_S * rate)]) for r in recordings]


def seconds_of(path: Path) -> float:
    info = audio_info(path)
    return info.samples / info.sample_rate_hz


def zeros(samples: np.ndarray, holes: list[Hole]) -> np.ndarray:
    return np.where(lost_samples(holes, len(samples)), 0, samples)


def linear_prediction(samples: np.ndarray, holes: list[Hole]) -> np.ndarray:
    filled = zeros(samples, holes)
    for hole in holes:
        filled[hole.start : hole.stop] = interpolate(filled, hole)
    return filled


def repetition(samples: np.ndarray, holes: list[Hole], rate: int) -> np.ndarray:
    """The last period before each hole, repeated; the period is the lag of the highest normalised autocorrelation."""
    filled = zeros(samples, holes)
    shortest, longest = round(SHORTEST_PERIOD_S * rate), round(LONGEST_PERIOD_S * rate)
    for hole in holes:
        before = filled[: hole.start].astype(np.float64)
        last = before[-longest:]

        def likeness(lag: int, before: np.ndarray = before, last: np.ndarray = last) -> float:
            earlier = before[len(before) - longest - lag : len(before) - lag]
            return float(last @ earlier / np.sqrt((earlier @ earlier) * (last @ last) + 1e-12))

        period = max(range(shortest, longest + 1), key=likeness)
        count = hole.stop - hole.start
        filled[hole.start : hole.stop] = np.resize(before[-period:], count)
    return filled


def log_mel(samples: np.ndarray, mel: MelSpec) -> np.ndarray:
    whole = np.pad(samples, (0, -len(samples) % mel.hop_length)).astype(np.float32)
    return LogMel(mel)(torch.from_numpy(whole)[None])[0].numpy()


def plcmos(samples: np.ndarray, rate: int) -> float | None:
    try:
        from speechmos import plcmos as package
    except ImportError:
        return None
    return float(package.run(resample(samples.astype(np.float32), rate, 16000).clip(-1, 1), sr=16000)["plcmos"])


def holes_of(samples: np.ndarray, rate: int, length: int, seed: int) -> list[Hole]:
    """A hole in each second, at a random place that is not close to an end."""
    random = np.random.default_rng(seed)
    starts = [s * rate + int(random.integers(rate // 4, rate * 3 // 4 - length)) for s in range(int(LONGEST_S))]
    return [Hole(start, start + length) for start in starts if start + length + rate // 10 <= len(samples)]


def table_of_holes(voices: list[tuple[str, np.ndarray]], fills: dict[str, Fill], mel: MelSpec, out: Path | None) -> str:
    rate, hop = mel.sample_rate_hz, mel.hop_length
    metrics = [key for key in ("distillmos", "pesq") if key in available()]
    rows = [["hole", "filled by", "log-mel", "PLCMOS", *metrics]]
    for length_ms in LENGTHS_MS:
        values: dict[str, dict[str, list[float]]] = {name: {} for name in fills}
        for index, (name_of_clip, samples) in enumerate(voices):
            holes = holes_of(samples, rate, rate * length_ms // 1000, index)
            missing = lost_samples(holes, len(samples))
            real = log_mel(samples, mel)
            centres = np.minimum(np.arange(real.shape[1]) * hop + hop // 2, len(samples) - 1)
            for name, fill in fills.items():
                filled = fill(samples, holes)
                assert np.array_equal(filled[~missing], samples[~missing]), f"{name} changed samples outside holes"
                found = values[name]
                difference = np.abs(log_mel(filled, mel) - real)[:, missing[centres]].mean()
                found.setdefault("log_mel", []).append(float(difference))
                if (rating := plcmos(filled, rate)) is not None:
                    found.setdefault("plcmos", []).append(rating)
                for key, value in score(samples, filled, mel, metrics).values.items():
                    if value is not None:
                        found.setdefault(key, []).append(value)
                if out is not None:
                    filled_by = name.replace(", ", "-").replace(" ", "-")
                    target = out / f"{length_ms}ms" / f"{Path(name_of_clip).name}-{filled_by}.wav"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_audio(target, filled, rate)
        baseline = np.mean(values["linear prediction"]["log_mel"])
        for name, found in values.items():
            means = {key: float(np.mean(of_clips)) for key, of_clips in found.items()}
            ratio = means["log_mel"] / baseline
            others = [f"{means[key]:.2f}" if key in means else "-" for key in ("plcmos", *metrics)]
            rows.append([f"{length_ms} ms", name, f"{means['log_mel']:.3f} ({ratio:.2f})", *others])
    return text_table(rows, left_aligned=2)


def table_of_band(
    voices: list[tuple[str, np.ndarray]],
    corpora: list[Path],
    complete: Callable[[np.ndarray], np.ndarray],
    mel: MelSpec,
) -> str:
    """The log-mel above 4 kHz, against the mean spectrum of the training set at the level of the octave below."""
    rate = mel.sample_rate_hz
    centres = (mel.filterbank() * np.linspace(0, rate / 2, mel.n_fft // 2 + 1)).sum(1) / mel.filterbank().sum(1)
    above, octave = centres > CUT_HZ, (centres > CUT_HZ / 2) & (centres < 0.9 * CUT_HZ)
    sounds = [sound for corpus in corpora for _, sound in clips(corpus, rate, "train", TRAINING_CLIPS)]
    training = np.concatenate([log_mel(samples, mel) for samples in sounds], axis=1)
    shape = training[above].mean(1) - training[octave].mean()
    differences: dict[str, list[float]] = {"mean spectrum": [], "inpainter": []}
    for _, samples in voices:
        spectrum = np.fft.rfft(samples)
        spectrum[np.fft.rfftfreq(len(samples), 1 / rate) > CUT_HZ] = 0
        narrow = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
        real = log_mel(samples, mel)
        guessed = shape[:, None] + log_mel(narrow, mel)[octave].mean(0)
        completed = log_mel(complete(narrow), mel)
        differences["mean spectrum"].append(float(np.abs(guessed - real[above]).mean()))
        differences["inpainter"].append(float(np.abs(completed - real)[above].mean()))
    baseline = np.mean(differences["mean spectrum"])
    rows = [[name, f"{np.mean(of):.3f} ({np.mean(of) / baseline:.2f})"] for name, of in differences.items()]
    return text_table([["band above 4 kHz", "log-mel"], *rows], left_aligned=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", type=Path, required=True, help="folder of voices24k: its split valid is tested")
    parser.add_argument(
        "--corpus", type=Path, action="append", required=True, help="folder of a training set; may be repeated"
    )
    parser.add_argument("--model", help="the inpainter's run (default: the newest)")
    parser.add_argument("--vocoder", default="default")
    parser.add_argument(
        "--live", metavar="RUN", help="the run of a causal inpainter, which repairs the clips as streams"
    )
    parser.add_argument(
        "--live-vocoder", metavar="RUN", help="the vocoder that renders live (default: the source-filter vocoder)"
    )
    parser.add_argument("--out", type=Path, help="folder for the filled clips")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    inpainter, vocoder = load_model(Inpainter, arguments.model), load_vocoder(arguments.vocoder)
    mel = inpainter.mel
    rate = mel.sample_rate_hz
    fills: dict[str, Fill] = {
        "zeros": zeros,
        "repetition": lambda samples, holes: repetition(samples, holes, rate),
        "linear prediction": linear_prediction,
        "inpainter": lambda samples, holes: fill_holes(samples, holes, inpainter, vocoder, sample_rate_hz=rate),
    }
    delay_s: list[float] = []
    loads: list[float] = []
    if arguments.live is not None:
        causal = load_model(Inpainter, arguments.live)
        speaking = live_vocoder(causal.mel) if arguments.live_vocoder is None else load_vocoder(arguments.live_vocoder)

        def fill_live(samples: np.ndarray, holes: list[Hole]) -> np.ndarray:
            result = repair_as_stream(samples, holes, causal, speaking, sample_rate_hz=rate)
            delay_s.append(result.delay_s)
            loads.append(result.load)
            return result.samples

        fills["inpainter, live"] = fill_live
    started = time.perf_counter()
    voices = clips(arguments.voices, rate, "valid")
    print(table_of_holes(voices, fills, mel, arguments.out), flush=True)
    if loads:
        frame_ms = 1000 * mel.hop_length / rate
        work_ms = float(np.mean(loads)) * frame_ms
        print(f"live: delay {1000 * delay_s[0]:.0f} ms, {work_ms:.2f} ms of work per frame of {frame_ms:.1f} ms")
    print()

    def complete(narrow: np.ndarray) -> np.ndarray:
        return extend_band(narrow, CUT_HZ, inpainter, vocoder, sample_rate_hz=rate)

    print(table_of_band(voices, arguments.corpus, complete, mel))
    print(f"\n{len(voices)} clips of as many speakers, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

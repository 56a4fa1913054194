"""A small report for the tests of the listening page: odd names, sample rates and durations, and a missing score."""

from pathlib import Path

import numpy as np

from wavegen.audio import write_audio
from wavegen.listening.report import MetricDescription, Report, ReportClip

REFERENCE = 'studio & "quokka"'
SYSTEMS = ("zephyr</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>&\"'")
CLIPS = ("one/<b>first</b>&amp;", "two", "three")

METRICS = {
    "stoi": MetricDescription("STOI", "correlation", "higher", "about 0 to 1", "Taal et al., 2011"),
    "pesq": MetricDescription("PESQ", "MOS-LQO", "higher", "about 1 to 4.64", "ITU-T P.862.2, wideband"),
    "log_mel": MetricDescription("log-mel", "mean |Δ ln|", "lower", "from 0", "Kong et al., 2020 (HiFi-GAN)"),
}


def tone(hertz: float, duration_s: float, sample_rate_hz: int = 16000) -> np.ndarray:
    return 0.25 * np.sin(2 * np.pi * hertz / sample_rate_hz * np.arange(round(duration_s * sample_rate_hz)))


def pitch_hz(clip: str, system: str) -> float:
    """The frequency of the tone that a system plays in a clip, by which a test recognises a sound."""
    return 200 * (1 + CLIPS.index(clip)) + 110 * (REFERENCE, *SYSTEMS).index(system)


def mean_score(mean: float, low: float, high: float, count: int) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high, "count": count}


def small_report(folder: Path, duration_s: float = 1.5) -> Report:
    """Three clips of a reference and two systems, as tones of different frequencies and durations in ``folder``."""
    scores = {
        SYSTEMS[0]: ({"stoi": 0.9, "pesq": 2.5, "log_mel": 0.2}, {"stoi": 0.8, "pesq": 3.5, "log_mel": 0.1}),
        SYSTEMS[1]: ({"stoi": 0.7, "pesq": 1.5, "log_mel": 0.3}, {"stoi": 0.95, "pesq": None, "log_mel": 0.4}),
    }
    rates = {REFERENCE: 24000, SYSTEMS[0]: 16000, SYSTEMS[1]: 24000}
    clips = []
    for index, name in enumerate(CLIPS):
        audio = {}
        for place, (system, rate) in enumerate(rates.items()):
            audio[system] = folder / f"{index}-{place}.wav"
            write_audio(audio[system], tone(pitch_hz(name, system), duration_s + 0.1 * place, rate), rate)
        clip_scores = {system: scores[system][min(index, 1)] for system in SYSTEMS}
        clips.append(ReportClip(name, audio, clip_scores, ["PESQ: too short"] if index == 1 else []))
    summary = {
        SYSTEMS[0]: {"stoi": mean_score(0.85, 0.8, 0.9, 3), "pesq": mean_score(3.0, 2.5, 3.5, 3)},
        SYSTEMS[1]: {"stoi": mean_score(0.825, 0.7, 0.95, 3), "pesq": mean_score(1.5, 1.5, 1.5, 1)},
    }
    return Report("Two <b>voices</b>", REFERENCE, SYSTEMS, METRICS, clips, summary, ["resampled <i>once</i>"])

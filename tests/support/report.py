"""A small report for the tests of the listening page: odd names, odd rates, odd lengths, a score that is missing."""

from pathlib import Path

import numpy as np

from wavegen.audio import write_audio
from wavegen.evaluation.metrics import METRICS
from wavegen.listening.report import Interval, Report, ReportClip

REFERENCE = 'studio & "quokka"'
SYSTEMS = ("zephyr</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>&\"'")
CLIPS = ("one/<b>first</b>&amp;", "two", "three")


def tone(hertz: float, duration_s: float, sample_rate_hz: int = 16000) -> np.ndarray:
    return 0.25 * np.sin(2 * np.pi * hertz / sample_rate_hz * np.arange(round(duration_s * sample_rate_hz)))


def pitch_hz(clip: str, system: str) -> float:
    """By which a test knows what it hears."""
    return 200 * (1 + CLIPS.index(clip)) + 110 * (REFERENCE, *SYSTEMS).index(system)


def small_report(folder: Path, duration_s: float = 1.5) -> Report:
    """Three clips of a reference and two systems, which are tones of other pitches and lengths."""
    scores = {
        SYSTEMS[0]: ({"stoi": 0.9, "pesq": 2.5, "log_mel": 0.2}, {"stoi": 0.8, "pesq": 3.5, "log_mel": 0.1}),
        SYSTEMS[1]: ({"stoi": 0.7, "pesq": 1.5, "log_mel": 0.3}, {"stoi": 0.95, "pesq": None, "log_mel": 0.4}),
    }
    clips = []
    for index, name in enumerate(CLIPS):
        audio = {}
        rates = {REFERENCE: 24000, SYSTEMS[0]: 16000, SYSTEMS[1]: 24000}
        for place, (system, rate) in enumerate(rates.items()):
            path = folder / f"{index}-{place}.wav"
            write_audio(path, tone(pitch_hz(name, system), duration_s + 0.1 * place, rate), rate)
            audio[system] = path
        clips.append(
            ReportClip(name, audio, {s: scores[s][min(index, 1)] for s in SYSTEMS}, ["PESQ: too short"] * (index == 1))
        )
    summary = {
        SYSTEMS[0]: {"stoi": Interval(0.85, 0.8, 0.9, 3), "pesq": Interval(3.0, 2.5, 3.5, 3)},
        SYSTEMS[1]: {"stoi": Interval(0.825, 0.7, 0.95, 3), "pesq": Interval(1.5, 1.5, 1.5, 1)},
    }
    metrics = {key: METRICS[key] for key in ("stoi", "pesq", "log_mel")}
    return Report("Two <b>voices</b>", REFERENCE, SYSTEMS, metrics, clips, summary, ["resampled <i>once</i>"])

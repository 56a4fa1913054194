"""Speech activity in noise: detectors and trained labellers on speakers that they have not heard.

python tests/benchmarks/labels.py --corpus /path/to/voices24k [--model runs/speech24k-label] [--pictures FOLDER]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from wavegen.audio import read_audio
from wavegen.checkpoint import load_model
from wavegen.corpora.activity import speech_activity, with_hangover
from wavegen.corpora.manifest import listed_recordings
from wavegen.evaluation.detectors import WEBRTC_MODES, fixed_level_detector, webrtc_detector
from wavegen.evaluation.labels import LabelScores, confusion_figure, score_labels, scores_table
from wavegen.evaluation.noisy import babble, in_noise, pink_noise
from wavegen.evaluation.pictures import save_figure
from wavegen.labels import LiveLabels
from wavegen.mel import LogMel, MelSpec, profile
from wavegen.models.labeller import Labeller

SPEECH = "speech"
PAUSE_S = 3.0  # before and after each clip, because the recordings themselves are cut closely
LEVELS_DB = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0, 15.0, 20.0)
Detector = Callable[[np.ndarray], np.ndarray]


def noise_of(kind: str, count: int, voices: list[np.ndarray], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "white":
        return random.standard_normal(count)
    return pink_noise(count, random) if kind == "pink" else babble(voices, count, random)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="a folder with MANIFEST.tsv and several speakers")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a trained labeller; may be repeated")
    parser.add_argument("--pictures", type=Path, help="a folder for confusion tables")
    parser.add_argument("--snr", type=float, nargs="+", default=[10.0, 0.0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = profile("bigvgan-24k")
    rate = spec.sample_rate_hz

    # Clean recordings and the truth, with silence around both.
    recordings = listed_recordings(arguments.corpus)
    clips = [whole_frames(read_audio(r.path, rate), spec) for r in recordings if r.split == "valid"]
    silent_frames = round(PAUSE_S * rate / spec.hop_length)
    clean = [np.pad(clip, silent_frames * spec.hop_length) for clip in clips]
    truth = [np.pad(speech_activity(clip, spec), silent_frames) for clip in clips]
    speakers = [r.speaker for r in recordings if r.split == "valid"]
    others = [[clip for clip, talker in zip(clips, speakers, strict=True) if talker != speaker] for speaker in speakers]
    seconds = sum(map(len, clean)) / rate
    share = sum(mark.sum() for mark in truth) / sum(map(len, truth))
    talkers = len({*speakers}) - 1
    print(f"{len(clean)} clips, {seconds:.0f} s, {share:.0%} speech; babble of the {talkers} other speakers\n")

    for path in arguments.model:
        print(f"{path}: {live_cost(path)}\n")
    detectors = known_detectors(spec)
    for path in arguments.model:
        detectors[path.name] = model_detector(path)
        detectors[f"{path.name}, hangover"] = model_detector(path, hangover=True)
    for snr_db in arguments.snr:
        for kind in ("white", "pink", "babble"):
            noisy = [
                in_noise(sound, noise_of(kind, len(sound), voices, seed), snr_db, np.repeat(mark, spec.hop_length))
                for seed, (sound, mark, voices) in enumerate(zip(clean, truth, others, strict=True))
            ]
            scores = {name: score(detect, noisy, truth, spec) for name, detect in detectors.items()}
            print(f"{kind} noise, {snr_db:g} dB\n{scores_table(best_of_families(scores))}\n")
            if arguments.pictures is not None:
                for name in arguments.model:
                    figure = confusion_figure(scores[f"{name.name}, hangover"])
                    save_figure(figure, arguments.pictures / f"{name.name}-{kind}-{snr_db:g}.png")


def whole_frames(sound: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Cut a sound to whole hops, one for each of its frames."""
    return sound[: spec.frames(len(sound)) * spec.hop_length]


def score(detect: Detector, noisy: list[np.ndarray], truth: list[np.ndarray], spec: MelSpec) -> LabelScores:
    pairs = []
    for sound, mark in zip(noisy, truth, strict=True):
        pairs.append((detect(sound)[None].astype(np.int8), mark[None].astype(np.int8)))
    return score_labels(pairs, [SPEECH], spec, exclusive=False)


def known_detectors(spec: MelSpec) -> dict[str, Detector]:
    """The baselines, with each of their settings."""
    detectors: dict[str, Detector] = {"always": lambda sound: np.ones(spec.frames(len(sound)), bool)}
    for level in LEVELS_DB:
        for emphasis in (True, False):
            name = f"level +{level:g} dB{', emphasis' if emphasis else ''}"
            detectors[name] = partial(fixed_level_detector, spec=spec, above_quiet_db=level, emphasis=emphasis)
    for mode in WEBRTC_MODES:
        detectors[f"WebRTC {mode}"] = partial(webrtc_detector, spec=spec, mode=mode)
        detectors[f"WebRTC {mode}, hangover"] = partial(webrtc_detector, spec=spec, mode=mode, hangover=True)
    return detectors


def best_of_families(scores: dict[str, LabelScores]) -> dict[str, LabelScores]:
    """Of the settings of a baseline, keep the one with the best F1 in this noise, which no user could know before."""
    kept = dict(scores)
    for family in ("level", "WebRTC"):
        members = [name for name in scores if name.startswith(family)]
        best = max(members, key=lambda name: scores[name].classes[SPEECH].f1)
        for name in members:
            if name != best:
                del kept[name]
    return kept


def live_cost(path: Path) -> str:
    """The lag of a live labeller, and its work for a frame that comes alone, its mel included."""
    live = LiveLabels(labeller := load_model(Labeller, path))
    spec, ahead = labeller.mel, labeller.context.right
    frame_s = spec.hop_length / spec.sample_rate_hz
    times = []
    for hop in (0.1 * torch.randn(500 * spec.hop_length)).split(spec.hop_length):
        started = time.perf_counter()
        live.feed(hop)
        times.append(time.perf_counter() - started)
    millions = sum(parameter.numel() for parameter in labeller.parameters()) / 1e6
    lag = f"{ahead} frames ({1000 * ahead * frame_s:.0f} ms) of look-ahead"
    return (
        f"{millions:.2f} M parameters, {lag}, {1000 * np.median(times):.2f} ms for a frame of {1000 * frame_s:.1f} ms"
    )


def model_detector(path: Path, *, hangover: bool = False) -> Detector:
    """What a trained labeller calls speech; with hangover, short pauses are bridged as in the truth."""
    labeller = load_model(Labeller, path)
    log_mel, index = LogMel(labeller.mel), labeller.config.classes.index(SPEECH)

    def detect(sound: np.ndarray) -> np.ndarray:
        mel = log_mel(torch.from_numpy(sound)[None])
        found = labeller.marks(labeller.label(mel))[0, index].numpy() == 1
        return with_hangover(found, labeller.mel) if hangover else found

    return detect


if __name__ == "__main__":
    main()

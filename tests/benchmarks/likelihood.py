"""Measure the cost of int16 and int8 weights in log-likelihood per sample: ``likelihood.py RUN``.

Scores the validation clips of a run, teacher-forced from the start of each, with the network itself and with all
precisions of the numba engine.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F

from wavegen.audio import read_audio
from wavegen.checkpoint import load_vocoder
from wavegen.corpora.extraction import MANIFEST
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.engines import AUTOREGRESSIVE_ENGINES, make_engine
from wavegen.mel import open_mel
from wavegen.vocoders.wavenet import WaveNet

NETWORK = "network"
PRECISIONS = AUTOREGRESSIVE_ENGINES["numba"]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder of a WaveNet")
    parser.add_argument("--manifest", type=Path, help="manifest of the features (default: the one in the run)")
    parser.add_argument("--frames", type=int, default=94, help="frames of each clip (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=48, help="number of clips (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_vocoder(arguments.run)
    assert isinstance(model, WaveNet)
    clips = [
        clip
        for clip in read_manifest(arguments.manifest or arguments.run / "features" / MANIFEST, Clip)
        if clip.split == "valid"
    ]
    engines = {precision: make_engine(model, "numba", precision) for precision in PRECISIONS}
    nats = dict.fromkeys((NETWORK, *PRECISIONS), 0.0)
    samples = 0
    for clip in clips[: arguments.clips]:
        mel = torch.tensor(open_mel(clip.mel, model.mel)[:, : arguments.frames])[None]
        audio = torch.from_numpy(read_audio(clip.audio))[None, : mel.shape[-1] * model.mel.hop_length]
        mel = mel[..., : audio.shape[-1] // model.mel.hop_length]
        audio = audio[:, : mel.shape[-1] * model.mel.hop_length]
        nats[NETWORK] -= float(model.log_likelihood(audio, mel).of_class.double().sum())
        spoken = model.running_stage.spoken(mel, None)
        condition, prediction = model.engine_inputs(spoken, 0, mel.shape[-1])
        for key, engine in engines.items():
            before = F.pad(audio, (1, 0))[:, :-1]
            parameters, _ = engine.predict(before, condition, engine.initial_state(1), prediction=prediction)
            nats[key] -= float(model.log_likelihood_of(parameters, audio, prediction).of_class.double().sum())
        samples += audio.shape[-1]
    print(f"{samples} samples of {min(len(clips), arguments.clips)} clips")
    for key, total in nats.items():
        difference = (total - nats[NETWORK]) / samples
        bits = total / samples / math.log(2)
        print(f"{key:8} {bits:.6f} bits a sample, {difference:+.2e} nats from the network")


if __name__ == "__main__":
    main()

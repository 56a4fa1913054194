"""Measure the log-likelihood per sample of a WaveNet, and what int16 and int8 weights cost: ``likelihood.py RUN``.

Scores clips of a run, teacher-forced from the start of each, with the network itself and with all precisions of the
numba engine; and, for a network that models the error of linear prediction, with that prediction alone and the output
distribution that training begins with. Recordings differ by far more than networks do, so compare networks, and
speakers, by what they gain over the prediction.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from wavegen.audio import read_audio
from wavegen.checkpoint import load_vocoder
from wavegen.corpora.extraction import MANIFEST
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.engines import AUTOREGRESSIVE_ENGINES, make_engine
from wavegen.mel import open_mel
from wavegen.vocoders.wavenet import WaveNet

NETWORK, PREDICTION = "network", "prediction"
PRECISIONS = AUTOREGRESSIVE_ENGINES["numba"]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder of a WaveNet")
    parser.add_argument("--manifest", type=Path, help="manifest of the features (default: the one in the run)")
    parser.add_argument("--split", default="valid", help="split of the clips (default: %(default)s)")
    parser.add_argument("--under", default="", metavar="PREFIX", help="score clips whose names begin with this")
    parser.add_argument("--frames", type=int, default=94, help="frames of each clip (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=48, help="number of clips, evenly chosen (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_vocoder(arguments.run)
    assert isinstance(model, WaveNet)
    clips = [
        clip
        for clip in read_manifest(arguments.manifest or arguments.run / "features" / MANIFEST, Clip)
        if clip.split == arguments.split and clip.name.startswith(arguments.under)
    ]
    if not clips:
        raise SystemExit(f"the manifest has no clip of split {arguments.split} under {arguments.under!r}")
    clips = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, arguments.clips).round().astype(int))]
    engines = {precision: make_engine(model, "numba", precision) for precision in PRECISIONS}
    predicts = model.prediction_order > 0
    nats = dict.fromkeys((NETWORK, *PRECISIONS, *((PREDICTION,) if predicts else ())), 0.0)
    samples = 0
    for clip in clips:
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
        if predicts:
            parameters = model.distribution.standard()[None, :, None].expand(-1, -1, audio.shape[-1])
            nats[PREDICTION] -= float(model.log_likelihood_of(parameters, audio, prediction).of_class.double().sum())
        samples += audio.shape[-1]
    print(f"{samples} samples of {len(clips)} clips")
    for key, total in nats.items():
        difference = (total - nats[NETWORK]) / samples
        bits = total / samples / math.log(2)
        print(f"{key:10} {bits:.6f} bits a sample, {difference:+.2e} nats from the network")


if __name__ == "__main__":
    main()

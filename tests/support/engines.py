"""Networks, inputs and checks for the engines; also run by other processes, in which numba compiles for other CPUs."""

import subprocess
import sys
from functools import cache
from os import environ
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from support.mels import TINIEST as MEL
from support.vocoders import new_vocoder
from wavegen.engines import Engine, Prediction, ReferenceEngine, make_engine
from wavegen.source import Pitch
from wavegen.vocoders import VOCODERS, VocoderConfig, build_vocoder
from wavegen.vocoders._spoken import Spoken
from wavegen.vocoders.wavenet import WaveNet

CONDITION_CHANNELS = 5
LOGIT_BOUND = 1e-3
LOGIT_BOUNDS = {"float32": LOGIT_BOUND, "int16": 3e-2, "int8": 0.1}  # for logits of about 5
RMS_BOUNDS = {"float32": LOGIT_BOUND, "int16": LOGIT_BOUND, "int8": 0.016}  # a zero that is off by one code exceeds it
SAMPLE_BOUND = 2e-5  # relative to the largest sample
CHOICES = [(name, engine) for name, vocoder in VOCODERS.items() for engine in vocoder.engines if engine != "torch"]


class Shape(NamedTuple):
    """The shape of a network."""

    output: str
    residual: int
    skip: int
    hidden: int
    cycles: int
    depth: int
    kernel: int
    order: int = 0
    reads_pitch: bool = False


# Channels that are not a multiple of any vector, panels of every width, dilations shorter and longer than a block of
# samples, and wavegen-bench's medium size; linear prediction, and pitch without it.
NETWORKS = {
    "medium": Shape("mu-law", 64, 128, 128, 2, 10, 2),
    "wide": Shape("mu-law", 70, 100, 40, 1, 3, 2),
    "deep": Shape("mu-law", 20, 17, 33, 2, 9, 2),
    "no-past": Shape("mu-law", 8, 16, 16, 1, 2, 1),
    "three-taps": Shape("logistic-mixture", 9, 33, 20, 2, 5, 3),
    "one-block": Shape("gaussian", 16, 8, 8, 1, 1, 2),
    "gaussian": Shape("gaussian", 33, 40, 24, 1, 6, 2),
    "predicted": Shape("logistic-mixture", 20, 17, 33, 2, 5, 2, order=8, reads_pitch=True),
    "predicted-classes": Shape("mu-law", 9, 16, 16, 1, 4, 3, order=8),
    "pitch-alone": Shape("mu-law", 12, 16, 16, 1, 4, 2, reads_pitch=True),
}
PLAIN = [name for name, shape in NETWORKS.items() if not shape.order and not shape.reads_pitch]
PREDICTED = [name for name in NETWORKS if name not in PLAIN]


def network(name: str) -> WaveNet:
    """A WaveNet with random weights whose samples depend on the past; not prepared for synthesis."""
    shape = NETWORKS[name]
    output = shape.output
    model = new_vocoder(
        "wavenet", MEL, output=output, residual_channels=shape.residual, skip_channels=shape.skip,
        hidden_channels=shape.hidden, condition_channels=CONDITION_CHANNELS, cycles=shape.cycles, depth=shape.depth,
        kernel_size=shape.kernel, prediction_order=shape.order, reads_pitch=shape.reads_pitch,
        look_ahead=int(shape.order > 0),
    )  # fmt: skip
    assert isinstance(model, WaveNet)
    torch.manual_seed(0)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.startswith("stage."):  # no engine runs the pitch network
            continue
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        # A louder last layer makes distributions neither flat nor certain.
        nn.init.normal_(parameter, std=(3 if parameter_name == "output.weight" else 1) * fan_in**-0.5)
    if output != "mu-law" and not shape.order:
        # A wide component would be clipped, which forgets the past; a narrow one makes rounding matter.
        with torch.no_grad():
            assert model.output.bias is not None
            model.output.bias.sub_(3.0)
            model.output.bias[: -(len(model.output.bias) // (3 if output == "logistic-mixture" else 2))].add_(3.0)
    return model.eval().requires_grad_(False)


def inputs(model: WaveNet, batch: int, samples: int, *, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Previous samples ``[batch, samples]``, a condition per sample, and noise."""
    generator = torch.Generator().manual_seed(seed)
    given = torch.rand(batch, samples, generator=generator) * 2 - 1
    condition = torch.randn(batch, CONDITION_CHANNELS, samples, generator=generator)
    return given, condition, torch.rand(batch, samples, generator=generator)


def prediction(model: WaveNet, batch: int, samples: int, *, seed: int = 2) -> Prediction | None:
    """Predictions of samples, whole frames of them; None for a network without linear prediction and pitch."""
    if not model.prediction_order and not model.reads_pitch:
        return None
    generator = torch.Generator().manual_seed(seed)

    def random(channels: int) -> Tensor:
        return torch.rand(batch, channels, samples // MEL.hop_length, generator=generator)

    level = 0.5 * float(MEL.window().square().sum().sqrt())  # of noise with a standard deviation of 0.5
    pitch = Pitch(f0_hz=50 + 500 * random(1), voicing=random(1))
    spoken = Spoken(random(MEL.n_mels), level * (0.2 + random(MEL.n_fft // 2 + 1)), pitch)
    softness = 0.5 + 0.5 * random(1)[:, 0]
    return model.prediction(spoken)._replace(temperature=softness)


def pieces(whole: Prediction | None, sizes: list[int]) -> list[Prediction | None]:
    """The predictions of consecutive pieces of whole frames."""
    if whole is None:
        return [None] * len(sizes)
    samples, parts = sum(sizes), []
    for part in whole:
        rate = samples // part.shape[-1]
        parts.append(part.split([size // rate for size in sizes], dim=-1))
    return [Prediction(*fields) for fields in zip(*parts, strict=True)]


def generate(
    engine: Engine,
    condition: Tensor,
    noise: Tensor,
    sizes: list[int] | None = None,
    *,
    predicted: Prediction | None = None,
) -> Tensor:
    """Samples from silence on, in one call or in chunks of the given sizes."""
    sizes = sizes or [noise.shape[1]]
    previous, state, chunks = torch.zeros(len(noise)), engine.initial_state(len(noise)), []
    for c, u, known in zip(
        condition.split(sizes, dim=2), noise.split(sizes, dim=1), pieces(predicted, sizes), strict=True
    ):
        samples, state = engine.generate(previous, c, u, state, prediction=known)
        chunks.append(samples)
        previous = samples[:, -1] if samples.shape[1] else previous
    return torch.cat(chunks, dim=1)


def agreeing_samples(left: Tensor, right: Tensor) -> int:
    """The number of samples from the start on that are equal up to rounding, in the item with the fewest."""
    return int(((left - right).abs() < 1e-3).int().cumprod(dim=1).sum(dim=1).min())


@cache
def reference_logits(name: str) -> Tensor:
    """The reference's parameters ``[1, channels, 2000]`` for 2,000 samples of ``inputs``."""
    model = network(name)
    given, condition, _ = inputs(model, 1, 2000)
    reference = ReferenceEngine(model)
    known = prediction(model, 1, 2000)
    return reference.predict(given, condition, reference.initial_state(1), prediction=known)[0]


def check_logits(name: str, expected: Tensor) -> None:
    """All precisions of the numba engine predict what the reference predicts."""
    model = network(name)
    given, condition, _ = inputs(model, 1, 2000)
    assert expected.std() > 0.1
    for precision, bound in LOGIT_BOUNDS.items():
        engine = make_engine(model, "numba", precision)
        known = prediction(model, 1, 2000)
        predicted, _ = engine.predict(given, condition, engine.initial_state(1), prediction=known)
        assert predicted.shape == expected.shape
        difference = predicted - expected
        assert difference.abs().max() < bound, (name, precision)
        assert difference.square().mean().sqrt() < RMS_BOUNDS[precision], (name, precision)


def check_lock_step(name: str, precision: str) -> None:
    """Items in lock step equal the same items alone, bit for bit, however many remain beside groups of 8 or 4."""
    model = network(name)
    engine = make_engine(model, "numba", precision)
    _, condition, noise = inputs(model, 15, 64)
    known = prediction(model, 15, 64)

    def of(items: slice) -> Prediction | None:
        return None if known is None else Prediction(*(part[items] for part in known))

    alone = []
    for i in range(15):
        one = slice(i, i + 1)
        arguments = (torch.zeros(1), condition[one], noise[one], engine.initial_state(1))
        alone.append(engine.generate(*arguments, prediction=of(one)))
    for batch in (1, 2, 5, 8, 15):
        together, (_, *memories) = engine.generate(
            torch.zeros(batch), condition[:batch], noise[:batch], engine.initial_state(batch),
            prediction=of(slice(batch)),
        )  # fmt: skip
        for i, (samples, (_, *expected)) in enumerate(alone[:batch]):
            assert torch.equal(together[i], samples[0])
            for memory, memory_alone in zip(memories, expected, strict=True):
                assert torch.equal(memory[i], memory_alone[0])


@torch.no_grad()
def check_equals_reference(config: VocoderConfig, engine: str) -> None:
    """An engine computes what torch computes: the same samples and, if there are any, the same distributions."""
    vocoder = build_vocoder(config, MEL)
    for parameter in vocoder.parameters():
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    vocoder.prepared_for_synthesis()
    mel = torch.randn(3, MEL.n_mels, 40, generator=torch.Generator().manual_seed(0)) - 5
    # Pulses follow a given F0: the phase would add up how the two pitch networks round.
    f0 = torch.where(
        torch.arange(40) % 10 < 7, 150 + 50 * torch.rand(3, 40, generator=torch.Generator().manual_seed(1)), 0
    )
    given = {"f0": f0} if vocoder.takes_f0 else {}
    vocoder.use_engine("torch")
    expected = vocoder.synthesize(mel, seed=[1, 2, 3], **given)
    assert expected.std() > 1e-3
    for precision in vocoder.engines[engine]:
        case = f"{config.name} {engine} {precision}"
        vocoder.use_engine(engine, precision)
        if isinstance(vocoder, WaveNet):
            difference = _parameter_difference(vocoder)
            assert difference < LOGIT_BOUNDS[precision], f"{case}: parameters differ by {difference:.2g}"
        if precision == "float32":  # other weights draw other samples sooner or later
            samples = vocoder.synthesize(mel, seed=[1, 2, 3], **given)
            difference = float((samples - expected).abs().max() / expected.abs().max())
            assert difference < SAMPLE_BOUND, f"{case}: samples differ by {difference:.2g}"


def _parameter_difference(vocoder: WaveNet) -> float:
    """The largest difference between the engine's and torch's predictions of 304 samples, teacher-forced."""
    engines = (ReferenceEngine(vocoder), vocoder.engine())
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(2, 304, generator=generator) * 2 - 1
    condition = torch.randn(2, vocoder.frame_conv.out_channels, 304, generator=generator)
    known = prediction(vocoder, 2, 304)
    expected, predicted = (e.predict(given, condition, e.initial_state(2), prediction=known)[0] for e in engines)
    return float((predicted - expected).abs().max())


def run_python(code: str, *, package: Path | None = None, **environment: str) -> str:
    """Run code in another process and return what it prints.

    Args:
        code: Python.
        package: a folder that contains the ``wavegen`` to import; by default the one under test.
        environment: variables to add.
    """
    tests = Path(__file__).parents[1]
    path = f"import sys; sys.path[:0] = [{str(package or tests.parent)!r}, {str(tests)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", path + code],
        env={**environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

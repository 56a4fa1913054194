"""The source stage as operations that ONNX has: framing by slices, and the all-pole filter as one scan."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.exchange.onnx.carried import Carried
from wavegen.exchange.onnx.transforms import RealProjection
from wavegen.mel import MelInverse
from wavegen.source import Pitch, PitchNetwork, Predictor, PulseState, ShapedSource, pulse_train
from wavegen.source.excitation import running_phase
from wavegen.source.pitch import CLASSES, CLASSES_PER_OCTAVE, LOWEST_HZ
from wavegen.vocoders._source import SourceStage
from wavegen.vocoders._spoken import SpokenStage


def real_stage(stage: SpokenStage, projection: RealProjection) -> SourceStage:
    """A source stage with a pitch network as one that an exporter can follow; they share all weights."""
    assert isinstance(stage, SourceStage)
    assert isinstance(stage.network, PitchNetwork)
    assert isinstance(stage.mel_inverse, MelInverse)
    other = copy.copy(stage)
    other._modules = dict(stage._modules)
    other.network = TabledPitch(stage.network)  # type: ignore[assignment]
    other.mel_inverse = RealMelInverse(projection, stage.mel_inverse.updates)  # type: ignore[assignment]
    other.shaped = RealShapedSource.of(stage.shaped)
    return other


class RealMelInverse(nn.Module):
    """``MelInverse`` in real arithmetic.

    Args:
        projection: whose filters it uses.
        updates: those of ``MelInverse``.
    """

    def __init__(self, projection: RealProjection, updates: int) -> None:
        super().__init__()
        self.projection, self.updates = projection, updates
        self.filters = projection.inverse.filters

    def forward(self, mel: Tensor) -> Tensor:
        """Mel ``[batch, n_mels, frames]`` to a magnitude ``[batch, bins, frames]``."""
        return self.projection.flat(self.projection.linear(mel), self.updates).mT


class TabledPitch(nn.Module):
    """A pitch network that looks up powers of two where runtimes differ in the last bit.

    The frequency of a class is rounded alike in all its frames, and the phase of the pulses adds that up.

    Args:
        network: the network.
    """

    def __init__(self, network: PitchNetwork) -> None:
        super().__init__()
        self.network = network
        octaves = torch.arange(CLASSES, dtype=torch.float32) / CLASSES_PER_OCTAVE
        self.register_buffer("frequencies", LOWEST_HZ * octaves.exp2())
        self.frequencies: Tensor

    def pitch(self, magnitude: Tensor, sample_rate_hz: float, mask: Tensor | None = None, stack: None = None) -> Pitch:
        """As in ``PitchNetwork``, decoded as ``decode`` does."""
        return self._decoded(*self.network(magnitude, sample_rate_hz, mask))

    def next_pitch(self, magnitude: Tensor, sample_rate_hz: float, carried: Carried, provisional: int) -> Pitch:
        """The pitch of the next frames of a stream, the last of which are provisional."""
        network = self.network
        x = network._on_grid(magnitude, sample_rate_hz)
        h, _ = network.input.step(x, carried.past("pitch_input", x, provisional, network.input.context.left))
        h, _ = carried.through(network.stack, network._normalised(h), "pitch", provisional)
        return self._decoded(*network._logits(h))

    def _decoded(self, logits: Tensor, voicing: Tensor) -> Pitch:
        probability = logits.mT.softmax(dim=-1)
        best = probability.argmax(dim=-1, keepdim=True)
        near = (best + torch.arange(-3, 4)).clamp(0, CLASSES - 1)
        weights = probability.gather(-1, near)
        beyond = (weights * (near - best)).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
        bend = (beyond.double() * (math.log(2) / CLASSES_PER_OCTAVE)).exp().to(beyond.dtype)
        return Pitch((self.frequencies[best] * bend).mT, voicing.sigmoid())


class RealShapedSource(ShapedSource):
    """``ShapedSource`` of whole utterances, without compiled code and without loops over a length."""

    @classmethod
    def of(cls, shaped: ShapedSource) -> "RealShapedSource":
        """The same source, which shares all constants."""
        other = copy.copy(shaped)
        other.__class__ = cls
        assert isinstance(other, cls)
        return other

    def whole(self, magnitude: Tensor, pitch: Pitch, seeds: Tensor) -> Tensor:
        """As in ``ShapedSource``."""
        stop = magnitude.shape[-1] * self.hop_length
        state = self.initial_state(seeds)
        excitation, _, _ = self._excitation(pitch, state, 0, stop, 0)
        samples = all_pole(excitation, self.prediction(magnitude), state.memory)
        return samples.reshape(len(seeds), 2, -1)

    def next_samples(
        self,
        magnitude: Tensor,
        pitch: Pitch,
        seed: Tensor,
        first_sample: Tensor,
        *,
        known: int,
        provisional: int,
        carried: Carried,
    ) -> Tensor:
        """Compute the samples of one utterance's next frames.

        Args:
            magnitude: ``[1, bins, known + frames]``.
            pitch: the pitch of these frames.
            seed: int64 ``[1]``.
            first_sample: int64 ``[1]``, index in the utterance of the first sample to compute.
            known: number of frames of context before those to compute.
            provisional: number of provisional frames at the end.
            carried: has the phase, the last pulses, of which there are none before the first sample, and the memory of
                the filter.

        Returns:
            ``[1, 2, frames * hop_length]``.
        """
        hop, reach, order = self.hop_length, self.reach, self.prediction.order
        frames, provisional = magnitude.shape[-1] - known, provisional * hop
        # The pulses run ahead by ``reach``, and so does their phase. What is kept of both is known before they are.
        kept = carried.kept("pulses", magnitude.new_zeros(1, 0))
        f0, voiced = self._at_each_sample(pitch, 0, frames * hop, -known, kept.shape[1])
        running = PulseState(carried.kept("phase", torch.zeros(1, 1, dtype=torch.float64))[0])
        carried.keep("phase", running_phase(f0 / self.sample_rate_hz, running), provisional, 1)
        pulses = torch.cat((kept, pulse_train(f0, self.sample_rate_hz, running)[0].to(magnitude.dtype)), dim=1)
        carried.keep("pulses", pulses, provisional, 2 * reach)
        excitation = self._mixed(pulses, voiced, seed, first_sample)

        predictor = self.prediction(magnitude)
        own = slice(known * self.prediction.sub_frames, None)
        memory = carried.kept("memory", magnitude.new_zeros(1, 2, order))
        samples = all_pole(excitation, Predictor(*(part[..., own] for part in predictor)), memory)[None]
        carried.keep("memory", torch.cat((memory, samples), dim=-1), provisional, order)
        return samples

    def _filtered(self, x: Tensor, taps: Tensor) -> Tensor:
        return F.conv1d(x[:, None], taps.to(x.dtype).flip(0)[None, None])[:, 0]


def all_pole(excitation: Tensor, predictor: Predictor, past: Tensor) -> Tensor:
    """Filter both excitations of one utterance: ``synthesise_from_error`` with one scan over sub-frames.

    Within a sub-frame the filter is constant, so its samples are those of two linear maps: of the excitation, by the
    impulse response, and of the samples before the sub-frame. Only the second waits for the sub-frame before.

    Args:
        excitation: ``[1, 2, samples]``.
        predictor: the predictors of the sub-frames.
        past: the samples before, ``[1, 2, order]``, the last one last.

    Returns:
        ``[2, samples]``.
    """
    coefficients = predictor.coefficients[0].mT  # [sub-frames, order]
    count, order = coefficients.shape
    rows = excitation[0].reshape(2, count, -1).transpose(0, 1) * predictor.scale[0].mT[:, None]
    length = rows.shape[-1]

    # The impulse response, and its shifts as a lower triangular matrix [sub-frames, samples in, samples out].
    mirrored = coefficients.flip(-1)
    recent = F.pad(torch.ones_like(coefficients[:, :1]), (order - 1, 0))
    responses = [recent[:, -1:]]
    for _ in range(length - 1):
        responses.append((recent * mirrored).sum(-1, keepdim=True))
        recent = torch.cat((recent[:, 1:], responses[-1]), dim=-1)
    impulse = F.pad(torch.cat(responses, dim=-1), (length, 0))
    delays = torch.arange(length)
    shifts = impulse[:, length + delays - delays[:, None]]

    # Past sample j, the oldest first, contributes a[order - 1 - j + i] to the prediction of sample i.
    near = min(order, length)
    lags = torch.arange(near) + torch.arange(order - 1, -1, -1)[:, None]
    ringing = F.pad(coefficients, (0, order))[:, lags] @ shifts[:, :near]
    return ring(rows @ shifts, ringing, past[0])


RING = "Ring"  # in the domain "wavegen", until ``with_scans`` replaces it


def ring(driven: Tensor, ringing: Tensor, past: Tensor) -> Tensor:
    """Let every sub-frame ring on into the next: ``x[i] = driven[i] + last_samples(x[…i-1]) @ ringing[i]``.

    Args:
        driven: ``[sub-frames, rows, samples]``.
        ringing: ``[sub-frames, order, samples]``.
        past: ``[rows, order]``.

    Returns:
        ``[rows, sub-frames * samples]``.
    """
    if torch.compiler.is_exporting():
        blocks = torch.onnx.ops.symbolic(
            f"wavegen::{RING}", (driven, ringing, past), dtype=driven.dtype, shape=driven.shape, version=1
        )
    else:
        parts = []
        for begun, response in zip(driven, ringing, strict=True):
            parts.append(begun + past @ response)
            past = torch.cat((past, parts[-1]), dim=-1)[:, parts[-1].shape[-1] :]
        blocks = torch.stack(parts)
    return blocks.transpose(0, 1).reshape(len(past), -1)


def replace_rings(model: Any) -> None:
    """Write every ``ring`` of an ONNX model as a Scan, an operator that all runtimes have."""
    from onnx import TensorProto, helper

    for node in model.graph.node:
        if node.domain != "wavegen":
            continue
        driven, ringing, past = node.input
        nodes = [
            helper.make_node("MatMul", ["past", "response"], ["rung"]),
            helper.make_node("Add", ["begun", "rung"], ["block"]),
            helper.make_node("Concat", ["past", "block"], ["all"], axis=1),
            helper.make_node("Shape", ["block"], ["length"], start=1),
            helper.make_node("Constant", [], ["end"], value_ints=[2**31 - 1]),
            helper.make_node("Constant", [], ["axis"], value_ints=[1]),
            helper.make_node("Slice", ["all", "length", "end", "axis"], ["last"]),
        ]
        names = ("past", "begun", "response", "last", "block")
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in names]
        body = helper.make_graph(nodes, "ring", values[:3], values[3:])
        scan = helper.make_node(
            "Scan",
            [past, driven, ringing],
            [f"{node.output[0]}_last", node.output[0]],
            name=node.name,
            body=body,
            num_scan_inputs=2,
        )
        node.CopyFrom(scan)
    kept = [opset for opset in model.opset_import if opset.domain != "wavegen"]
    del model.opset_import[:]
    model.opset_import.extend(kept)

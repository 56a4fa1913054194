"""Imported Vocos weights sound as they do in Vocos, streamed too; what cannot be imported is refused."""

import copy
import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.commands import Refused
from support.foreign import VOCOS_MEL, Weights, vocos_config, vocos_weights, write_vocos
from torch import Tensor

from wavegen.commands.import_ import main
from wavegen.exchange.vocos import read_vocos
from wavegen.mel import LogMel, MelSpec

SAME = VOCOS_MEL.replace(
    sample_rate_hz=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, center=False, f_max_hz=8000
)
BOUND = 1e-5  # of the largest sample


def published(w: Weights, mel: Tensor, layers: int, spec: MelSpec) -> Tensor:
    """The equations of arXiv:2306.00814, section 3, with the layers of its table and magnitudes of at most 100."""

    def norm(name: str, x: Tensor) -> Tensor:  # over channels, which come last
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = F.conv1d(mel, w["backbone.embed.weight"], w["backbone.embed.bias"], padding=3).mT
    x = norm("backbone.norm", x)
    for index in range(layers):
        block = f"backbone.convnext.{index}"
        kernel, bias = w[f"{block}.dwconv.weight"], w[f"{block}.dwconv.bias"]
        h = norm(f"{block}.norm", F.conv1d(x.mT, kernel, bias, padding=3, groups=x.shape[-1]).mT)
        h = linear(f"{block}.pwconv1", h)
        h = h / 2 * (1 + torch.erf(h / 2**0.5))  # GELU
        x = x + w[f"{block}.gamma"] * linear(f"{block}.pwconv2", h)
    logarithm, phase = linear("head.out", norm("backbone.final_layer_norm", x)).mT.chunk(2, dim=1)
    spectrum = logarithm.exp().clamp(max=100) * torch.exp(1j * phase)

    # Overlap-add, written out: sums of windowed frames over sums of squared windows.
    window = w["head.istft.window"]
    frames, hop = spectrum.shape[-1], spec.hop_length
    total = torch.zeros(len(mel), (frames - 1) * hop + spec.n_fft, dtype=mel.dtype)
    squares = torch.zeros_like(total)
    for t in range(frames):
        place = slice(t * hop, t * hop + spec.n_fft)
        total[:, place] += torch.fft.irfft(spectrum[..., t], n=spec.n_fft) * window
        squares[:, place] += window**2
    cut = spec.n_fft // 2 if spec.center else (spec.n_fft - hop) // 2
    return (total / squares)[:, cut:-cut]


def mel_of_noise(spec: MelSpec, *, seconds: float = 0.4) -> Tensor:
    torch.manual_seed(1)
    return LogMel(spec)(torch.randn(2, round(seconds * spec.sample_rate_hz)) * 0.1)


def near_the_limits(weights: Weights) -> Weights:
    """With features so small that what a norm adds to the variance counts, and magnitudes around the largest one."""
    small = {name: weights[name] * 1e-4 for name in ("backbone.embed.weight", "backbone.embed.bias")}
    bias = weights["head.out.bias"].clone()
    bias[: len(bias) // 2] += 4.5
    return {**weights, **small, "head.out.bias": bias}


@pytest.mark.parametrize("limits", [False, True], ids=["usual", "near the limits"])
@pytest.mark.parametrize("spec", [VOCOS_MEL, SAME], ids=["centred", "same"])
def test_the_sound_is_that_of_the_published_equations(spec: MelSpec, limits: bool, folder: Path) -> None:
    torch.manual_seed(0)
    weights = vocos_weights(8, 3, spec)
    if limits:
        weights = near_the_limits(weights)
    imported = read_vocos(write_vocos(folder / "vocos", channels=8, layers=3, mel=spec, weights=weights))
    assert imported.mel == spec
    vocoder = imported.vocoder().prepared_for_synthesis()
    mel = mel_of_noise(spec)
    expected = published({name: weight.double() for name, weight in weights.items()}, mel.double(), 3, spec)
    found = vocoder.synthesize(mel)
    assert found.shape == (2, mel.shape[-1] * spec.hop_length)
    assert expected.shape[1] == (mel.shape[-1] - spec.center) * spec.hop_length
    deviation = (found[:, : expected.shape[1]] - expected).abs().max() / expected.abs().max()
    assert deviation < BOUND


@pytest.mark.parametrize("frames", [1, 7, 30])
def test_it_streams_exactly(frames: int, folder: Path) -> None:
    vocoder = read_vocos(write_vocos(folder / "vocos")).vocoder().double().prepared_for_synthesis()
    mel = mel_of_noise(VOCOS_MEL).double()
    whole = vocoder.synthesize(mel)
    state = vocoder.initial_state(2)
    chunks = []
    for chunk in mel.split(frames, dim=-1):
        samples, state = vocoder.step(chunk, state)
        chunks.append(samples)
    streamed = torch.cat([*chunks, vocoder.flush(state)], dim=-1)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize("spec", [VOCOS_MEL, SAME], ids=["centred", "same"])
def test_the_sound_and_the_mel_are_those_of_the_package(
    spec: MelSpec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("encodec") is None:  # only Vocos for Encodec needs it
        stand_in: Any = types.ModuleType("encodec")
        stand_in.EncodecModel = None
        stand_in.__spec__ = importlib.machinery.ModuleSpec("encodec", None)
        monkeypatch.setitem(sys.modules, "encodec", stand_in)
    vocos = pytest.importorskip("vocos")
    path = write_vocos(folder / "vocos", channels=16, layers=4, mel=spec)
    theirs = vocos.Vocos.from_hparams(str(path / "config.yaml")).eval()
    theirs.load_state_dict(torch.load(path / "pytorch_model.bin", weights_only=True))
    ours = read_vocos(path).vocoder().prepared_for_synthesis()
    samples = torch.randn(1, spec.sample_rate_hz) * 0.1
    mel = theirs.feature_extractor(samples)
    torch.testing.assert_close(LogMel(ours.mel)(samples), mel, rtol=0, atol=1e-3)
    expected = theirs.decode(mel)
    deviation = (ours.synthesize(mel)[:, : expected.shape[1]] - expected).abs().max() / expected.abs().max()
    assert deviation < BOUND


def changed(path: str, value: Any) -> dict[str, Any]:
    """The config with one value replaced by its dotted name; None removes it."""
    config = copy.deepcopy(vocos_config(8, 2))
    *sections, key = path.split(".")
    place = config
    for section in sections:
        place = place[section]
    if value is None:
        del place[key]
    else:
        place[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("feature_extractor.class_path", "vocos.feature_extractors.EncodecFeatures"),
        ("backbone.class_path", "os.system"),
        ("head.class_path", "vocos.heads.IMDCTCosHead"),
        ("head", None),
        ("backbone.init_args.adanorm_num_embeddings", 4),
        ("backbone.init_args.dim", "many"),
        ("backbone.init_args.dim", 10**9),
        ("backbone.init_args.dim", 16),
        ("backbone.init_args.num_layers", 3),
        ("backbone.init_args.num_layers", 1),
        ("backbone.init_args.intermediate_dim", 20),
        ("backbone.init_args.intermediate_dim", 16),
        ("head.init_args.padding", "same"),
        ("head.init_args.hop_length", 128),
        ("feature_extractor.init_args.n_mels", 80),
        ("feature_extractor.init_args.sample_rate", 22050),
        ("feature_extractor.init_args.f_min", 40),
    ],
)
def test_a_config_that_does_not_fit_is_refused(path: str, value: Any, folder: Path, refused: Refused) -> None:
    write_vocos(folder / "vocos", config=changed(path, value))
    refused(main, "vocos", "vocos", "--out", "run")


def test_a_mel_definition_that_cannot_be_is_refused(folder: Path, refused: Refused) -> None:
    for hop_length in (2000, 700):  # longer than the window, or than half of it
        config = vocos_config(8, 2)
        for part in ("feature_extractor", "head"):
            config[part]["init_args"]["hop_length"] = hop_length
        write_vocos(folder / "vocos", config=config)
        refused(main, "vocos", "vocos")


def weights_with(**changes: Any) -> Weights:
    torch.manual_seed(0)
    changed = vocos_weights(8, 2) | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"head__out__bias": None},
        {"head__out__bias": torch.zeros(7)},
        {"head__out__bias": torch.full((1026,), torch.nan)},
        {"head__istft__window": torch.ones(1024)},
        {"backbone__adanorm": torch.zeros(3)},
    ],
    ids=["missing", "shape", "nan", "window", "unknown"],
)
def test_weights_that_do_not_fit_are_refused(changes: dict[str, Any], folder: Path, refused: Refused) -> None:
    write_vocos(folder / "vocos", weights=weights_with(**changes))
    refused(main, "vocos", "vocos", "--out", "run")


def test_a_folder_without_the_files_is_refused(folder: Path, refused: Refused) -> None:
    refused(main, "vocos", "nowhere")
    (write_vocos(folder / "vocos") / "pytorch_model.bin").unlink()
    refused(main, "vocos", "vocos")
    (folder / "vocos/pytorch_model.bin").write_bytes(b"no weights")
    (folder / "vocos/config.yaml").write_text("head: [")
    refused(main, "vocos", "vocos")


def test_half_precision_and_weights_without_constants_are_read(folder: Path) -> None:
    constants = (
        "head.istft.window",
        "feature_extractor.mel_spec.spectrogram.window",
        "feature_extractor.mel_spec.mel_scale.fb",
    )
    torch.manual_seed(0)
    weights = {name: value.half() for name, value in vocos_weights(8, 2).items() if name not in constants}
    imported = read_vocos(write_vocos(folder / "vocos", weights=weights))
    assert torch.equal(imported.weights["input.bias"], weights["backbone.embed.bias"].float())

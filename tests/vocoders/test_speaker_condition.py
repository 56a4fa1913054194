"""A vocoder's speakers: told to it, learned by it, and kept with its weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import write_recipe
from support.messages import Messages
from support.speakers import NAMES, speaking
from support.vocoders import SPEC, WITH_SPEAKERS, tiny_mel, tiny_vocoder, vocoder_config, write_model

from wavegen.checkpoint import load_checkpoint, load_state, load_vocoder, save_checkpoint, save_state
from wavegen.errors import CheckpointError, ConfigError
from wavegen.recipe import load_recipe
from wavegen.vocoders import VOCODERS, AutoregressiveVocoder, Vocoder

pytestmark = pytest.mark.usefixtures("alone")
ALL = pytest.mark.parametrize("name", WITH_SPEAKERS)


def mel_of(frames: int = 12) -> torch.Tensor:
    return torch.from_numpy(tiny_mel(frames))[None]


def loss_of(vocoder: Vocoder, speakers: list[int] | None) -> torch.Tensor:
    """Something of the output to differentiate."""
    mel = mel_of().expand(2, -1, -1)
    who = None if speakers is None else torch.tensor(speakers)
    if isinstance(vocoder, AutoregressiveVocoder):
        return vocoder.log_likelihood(torch.zeros(2, 12 * SPEC.hop_length), mel, speakers=who).trained.sum()
    return vocoder(mel, speakers=who).square().sum()


# ---- vocoders


@ALL
def test_each_speaker_has_a_voice_of_its_own_whatever_else_is_in_the_batch(name: str) -> None:
    vocoder, mel = speaking(name).eval(), mel_of()
    assert vocoder.speakers == NAMES
    alone = torch.cat([vocoder.synthesize(mel, speaker=who) for who in NAMES])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (alone[i] - alone[j]).abs().max() > 5e-3 * alone.abs().max()
    together = vocoder.synthesize(mel.expand(3, -1, -1), speaker=NAMES)
    tolerance = 0.0 if name == "wavenet" else 1e-4  # a WaveNet's samples are the same bit for bit
    torch.testing.assert_close(together, alone, rtol=0, atol=tolerance * float(alone.abs().max()))


@ALL
def test_the_table_learns_from_those_who_speak_alone(name: str) -> None:
    vocoder = speaking(name)
    loss_of(vocoder, [0, 2]).backward()
    gradient = vocoder.speaker_condition.embedding.weight.grad
    assert (gradient.abs().sum(1) > 0).tolist() == [True, False, True]
    assert vocoder.speaker_condition.project.weight.grad.abs().sum() > 0


@ALL
def test_without_speakers_there_is_nothing_to_learn(name: str) -> None:
    plain = tiny_vocoder(name)
    assert plain.speakers == ()
    assert not [key for key in plain.state_dict() if "speaker" in key]
    untold = tiny_vocoder(name, speaker_channels=3)  # a recipe's shape, before anybody has said who speaks
    assert untold.state_dict().keys() == plain.state_dict().keys()


def test_both_engines_speak_as_the_same_speaker() -> None:
    made = {}
    for engine in ("numba", "torch"):
        vocoder = speaking("wavenet").eval()
        vocoder.use_engine(engine)
        made[engine] = vocoder.synthesize(mel_of().expand(3, -1, -1), seed=[1, 2, 3], speaker=NAMES)
    assert torch.equal(made["numba"], made["torch"])


def test_only_one_speaker_need_not_be_named() -> None:
    vocoder = tiny_vocoder("spectral", speakers=["ann"], speaker_channels=3).eval()
    assert torch.equal(vocoder.synthesize(mel_of()), vocoder.synthesize(mel_of(), speaker="ann"))


@ALL
def test_a_speaker_who_is_unknown_or_missing_is_refused(name: str, same_messages: Messages) -> None:
    vocoder = speaking(name)
    for speaker in ("boob", "zed", None, ["ann", "bob"]):
        with same_messages.refused(ConfigError):
            vocoder.synthesize(mel_of(), speaker=speaker)
        with same_messages.refused(ConfigError):
            vocoder.initial_state(1, speaker=speaker)


@ALL
def test_a_speaker_for_a_model_without_any_is_refused(name: str, same_messages: Messages) -> None:
    plain = tiny_vocoder(name)
    for refusing in (lambda: plain.synthesize(mel_of(), speaker="ann"), lambda: plain.initial_state(1, speaker="ann")):
        with same_messages.refused(ConfigError):
            refusing()
    with same_messages.refused(ConfigError):
        loss_of(plain, [0, 0])
    with same_messages.refused(ConfigError):
        loss_of(speaking(name), None)


@pytest.mark.parametrize("name", sorted(VOCODERS.keys() - set(WITH_SPEAKERS)))
def test_a_vocoder_that_has_no_use_for_speakers_refuses_them(name: str, same_messages: Messages) -> None:
    for names, channels in ((NAMES, 3), (NAMES, 0), ((), 3)):
        with same_messages.refused(ConfigError):
            tiny_vocoder(name, speakers=names, speaker_channels=channels)
    plain = tiny_vocoder(name)
    assert plain.speakers == ()
    with same_messages.refused(ConfigError):
        plain.synthesize(mel_of(), speaker="ann")
    with same_messages.refused(ConfigError):
        plain.initial_state(1, speaker="ann")


@pytest.mark.parametrize("name", sorted(VOCODERS.keys() - set(WITH_SPEAKERS)))
def test_a_recipe_with_speakers_is_refused_for_such_a_vocoder(name: str, same_messages: Messages) -> None:
    recipe = write_recipe(Path("tiny.yaml"), Path("corpus"), vocoder=name)
    for settings in (["data.speakers=true"], ["vocoder.speaker_channels=4"]):
        with same_messages.refused(ConfigError):
            load_recipe(recipe, settings)


def test_a_table_that_cannot_be_is_refused(messages: Messages) -> None:
    for names, channels in ((NAMES, 0), (("ann", "ann"), 3)):
        with messages.refused(ConfigError):
            tiny_vocoder("spectral", speakers=names, speaker_channels=channels)


# ---- files


@ALL
def test_the_names_are_in_the_model_file(name: str) -> None:
    path = write_model(Path("model.safetensors"), name, speakers=NAMES, speaker_channels=3)
    assert load_checkpoint(path)[1]["speakers"] == list(NAMES)
    vocoder = load_vocoder(path)
    assert vocoder.speakers == NAMES
    expected = speaking(name).prepared_for_synthesis().synthesize(mel_of(), speaker="cy")
    assert torch.equal(vocoder.synthesize(mel_of(), speaker="cy"), expected)


@ALL
def test_a_file_from_before_there_were_speakers_is_read(name: str) -> None:
    path = write_model(Path("model.safetensors"), name)
    expected = load_vocoder(path).synthesize(mel_of())
    tensors, header = load_checkpoint(path)
    del header["speakers"], header["vocoder"]["speaker_channels"], header["format"]
    save_checkpoint(path, tensors, header)
    vocoder = load_vocoder(path)
    assert vocoder.speakers == ()
    assert torch.equal(vocoder.synthesize(mel_of()), expected)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("wavenet", {}),
        ("parallel", {}),
        ("parallel", {"padding": "causal"}),
        ("spectral", {}),
        ("spectral", {"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": 0}),
    ],
)
def test_a_stream_that_waited_in_a_file_goes_on_in_its_voices(name: str, changes: dict[str, Any]) -> None:
    vocoder, mel = speaking(name, **changes).prepared_for_synthesis(), mel_of(40).expand(2, -1, -1)
    first, state = vocoder.step(mel[..., :25], vocoder.initial_state(2, speaker=["cy", "ann"]))
    save_state(Path("stream.safetensors"), vocoder, state)
    second, state = vocoder.step(mel[..., 25:], load_state(Path("stream.safetensors"), vocoder))
    whole = vocoder.synthesize(mel, speaker=["cy", "ann"])
    joined = torch.cat((first, second, vocoder.flush(state)), dim=-1)
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-3 * float(whole.abs().max()))


def test_names_that_are_not_a_list_are_a_damaged_file(messages: Messages) -> None:
    path = write_model(Path("model.safetensors"))
    tensors, header = load_checkpoint(path)
    save_checkpoint(path, tensors, {key: value for key, value in header.items() if key != "format"} | {"speakers": 3})
    with messages.refused(CheckpointError):
        load_vocoder(path)
    assert json.loads(json.dumps(vocoder_config("spectral")))["speaker_channels"] == 0

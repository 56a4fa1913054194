"""Recipes: how they are found and read, and mistakes refused with their place."""

from pathlib import Path

import pytest
from support.messages import Messages

from wavegen.commands.train import main
from wavegen.config import load_yaml
from wavegen.corpora.manifest import Recording
from wavegen.errors import ConfigError, MelError
from wavegen.mel import PROFILES, profile
from wavegen.pipeline import list_recordings
from wavegen.recipe import SHIPPED, build, find_recipe, load_recipe
from wavegen.vocoders import VOCODERS

pytestmark = pytest.mark.usefixtures("alone")
# A recipe with only the required keys; tests add to it.
SMALLEST = """\
description: smallest
mel: bigvgan-24k
data: {corpus: audio}
vocoder: {name: spectral, channels: 8, layers: 1}
training: {steps: 2}
"""


def write(text: str = SMALLEST, path: str = "mine.yaml") -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def refusal(*overrides: str, text: str = SMALLEST) -> str:
    """The message with which a recipe is refused."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(text), overrides)
    return str(caught.value)


def test_a_recipe_trains_a_vocoder_or_a_model(messages: Messages) -> None:
    model = "model: {name: inpainter, channels: 8, layers: 1}"
    without = SMALLEST.replace("vocoder: {name: spectral, channels: 8, layers: 1}\n", "")
    for text in (SMALLEST + model, without):
        messages.check(refusal(text=text))
    for faulty in ("training.best_by=pesq", "data.speakers=true", "model.look_ahead=2", "model.look_ahead=5"):
        messages.check(refusal(faulty, text=without + model))
    recipe = load_recipe(write(without + model))
    assert (recipe.network, recipe.vocoder) == (recipe.model, None)
    assert type(build(recipe, device="meta")).__name__ == "Inpainter"


def test_an_unknown_recipe_is_refused_with_the_nearest_name(messages: Messages) -> None:
    for name in ("ljspeech/wavnet", "dmeo", "none/mine.yaml"):
        with messages.refused(ConfigError):
            find_recipe(name)
    assert find_recipe(str(write())) == Path("mine.yaml")


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("vocoder.chanels=3", "vocoder.chanels"),
        ("traning.steps=3", "traning"),
        ("training.steps=many", "training.steps"),
        ("training.steps=1.5", "training.steps"),
        ("training.compile=1", "training.compile"),
        ("training.precision=bf16", "training.precision"),
        ("vocoder=wavenet", "vocoder"),
        ("data.held_out=5", "data.held_out"),
        ("data=null", "data"),
        ("mel={profile: hifigan-22k, hop_lenght: 256}", "mel.hop_lenght"),
        ("mel={profile: hifigan-22k, f_max_hz: 12000}", "mel"),
        ("training.stft_resolutions=[[256, 256]]", "training: stft_resolutions"),
        ("seed=-1", "seed"),
        ("seed=9223372036854775808", "seed"),
    ],
)
def test_a_mistake_is_refused_with_its_path_and_the_expected_value(
    override: str, path: str, messages: Messages
) -> None:
    message = refusal(override)
    assert message.startswith(f"command line: {path}: ")
    messages.check(message)


def test_the_file_or_the_command_line_is_blamed_whichever_is_at_fault(messages: Messages) -> None:
    good = write().read_text()
    faulty = f"{good}\nseed: -1\n"
    for text, overrides in (
        (good, ["seed=-2"]),
        (good, ["data.speakers=true"]),  # a contradiction between two settings
        (faulty, []),
        (faulty, ["description=other"]),
        (faulty, ["training.batch_size=0"]),
        (good, ["training.steps=[1"]),
    ):
        Path("mine.yaml").write_text(text)
        with messages.refused(ConfigError):
            load_recipe(Path("mine.yaml"), overrides)
    Path("mine.yaml").write_text(faulty)
    assert load_recipe(Path("mine.yaml"), ["seed=2"]).seed == 2  # the command line repairs it


def test_patterns_and_names_of_corpora_are_taken_as_they_are() -> None:
    path = write()
    for text in ("**/*.wav", "[old] voice/*.flac", "#1/*"):
        assert load_recipe(path, [f"data.recordings={text}"]).data.recordings == text
    for name in ("1234", "@x", "#x", "[old] voice", "*"):
        assert load_recipe(path, [f"data.corpus={name}"]).data.corpus == Path(name).absolute()
    assert load_recipe(path, ["data.held_out=*/0*"]).data.held_out == "*/0*"
    assert load_recipe(path, ["data.held_out=0.1"]).data.held_out == 0.1
    assert load_recipe(path, ["init=123"]).init == Path("123").absolute()


@pytest.mark.parametrize("override", ["mel.n_mels=2000", "mel.hop_length=1024", "mel.hop_length=514"])
def test_a_mel_that_leaves_out_samples_or_frequencies_is_refused(override: str, messages: Messages) -> None:
    with messages.refused(ConfigError):
        load_recipe(find_recipe("folder/spectral"), [override])


def test_an_unknown_vocoder_is_refused_with_the_known_names() -> None:
    message = refusal("vocoder.name=spectrl")
    known = ", ".join(map(repr, VOCODERS))
    expected = f"expected one of {known} (did you mean 'spectral'?)"
    assert message == f'command line: vocoder.name: found "spectrl", {expected}'


@pytest.mark.parametrize("override", ["mel=bigvgan-25k", "mel={profile: bigvgan-25k}", "mel={profile: 3}"])
def test_an_unknown_mel_profile_is_refused_with_the_known_names(override: str, messages: Messages) -> None:
    with messages.refused(MelError):
        load_recipe(write(), [override])


def test_speakers_need_both_settings(messages: Messages) -> None:
    messages.check(refusal("data.speakers=true"))
    messages.check(refusal("vocoder.speaker_channels=16"))
    recipe = load_recipe(write(), ["data.speakers=true", "vocoder.speaker_channels=16"])
    assert recipe.vocoder.speaker_channels == 16


def test_discriminators_cannot_train_an_autoregressive_vocoder(messages: Messages) -> None:
    messages.check(refusal("vocoder={name: wavenet, cycles: 1}", "training.adversarial={}"))


@pytest.mark.parametrize(
    "line",
    [
        "uses: [gpu-trainin]",
        "uses: [../recipes/demo/demo]",
        "uses: gpu-training",
        "uses: {gpu-training: 1}",
    ],
)
def test_an_unknown_fragment_is_refused(line: str, messages: Messages) -> None:
    messages.check(refusal(text=f"{line}\n{SMALLEST}"))


def test_a_recipe_overrides_its_fragments_and_the_command_line_overrides_both() -> None:
    fragment = load_yaml(SHIPPED / "conf/gpu-training.yaml")["training"]
    path = write(SMALLEST.replace("{steps: 2}", "{steps: 2, log_every: 7}") + "uses: [gpu-training]\n")
    training = load_recipe(path, ["training.validate_every=11"]).training
    assert training.ema_decay == fragment["ema_decay"]
    assert fragment["log_every"] != training.log_every == 7
    assert fragment["validate_every"] != training.validate_every == 11


def test_fields_of_a_named_profile_can_be_changed() -> None:
    mel = load_recipe(write(), ["mel={profile: bigvgan-24k, f_max_hz: 8000}"]).mel
    assert mel == profile("bigvgan-24k").replace(f_max_hz=8000)
    statistics = f"mean: {[-3.5] * 80}, std: {[2] * 80}"
    mel = load_recipe(write(), [f"mel={{profile: pwg-22k, {statistics}}}"]).mel
    assert mel == profile("pwg-22k").replace(mean=(-3.5,) * 80, std=(2.0,) * 80)


def test_the_corpus_is_relative_to_the_recipe_file_or_in_an_override_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(path="sub/mine.yaml")
    assert load_recipe(path).data.corpus == tmp_path / "sub/audio"
    assert load_recipe(path, ["data.corpus=audio"]).data.corpus == tmp_path / "audio"
    assert load_recipe(path, ["data.corpus=/some/where"]).data.corpus == Path("/some/where")
    monkeypatch.setenv("HOME", "/at/home")
    assert load_recipe(path, ["data.corpus=~/audio"]).data.corpus == Path("/at/home/audio")
    at_home = write(SMALLEST.replace("corpus: audio", "corpus: ~/audio"), "sub/mine.yaml")
    assert load_recipe(at_home).data.corpus == Path("/at/home/audio")


def test_a_manifest_replaces_the_glob() -> None:
    text = "name\tsplit\tpath\nx\ttrain\tone.wav\ny\tvalid\t/elsewhere/two.flac\n"
    Path("lists").mkdir()
    Path("lists/mine.tsv").write_text(text, encoding="utf-8")
    path = write(SMALLEST.replace("corpus: audio", "manifest: mine.tsv"), "lists/mine.yaml")
    x, y = list_recordings(load_recipe(path), path)
    assert x == Recording("x", Path("lists/one.wav").absolute(), "train")
    assert y == Recording("y", Path("/elsewhere/two.flac"), "valid")


def test_one_override_selects_another_vocoder() -> None:
    recipe = load_recipe(write(), ["vocoder={name: wavenet, cycles: 1}"])
    assert (recipe.vocoder.name, type(build(recipe, device="meta")).__name__) == ("wavenet", "WaveNet")
    assert recipe.vocoder.model_dump()["cycles"] == 1
    # The name alone would keep the keys of the old vocoder.
    assert refusal("vocoder.name=wavenet").startswith("command line: vocoder.channels: unknown key")


def test_a_segment_within_the_receptive_field_is_refused_before_any_data_is_read(
    messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    wavenet = "vocoder={name: wavenet, cycles: 2, depth: 10, kernel_size: 2}"
    path = write()
    arguments = [str(path), wavenet, "data.corpus=none", "--device", "cpu"]
    assert main([*arguments, "training.segment_frames=8"]) == 2
    messages.check(capsys.readouterr().err)
    assert load_recipe(path, [wavenet, "training.segment_frames=12"]).training.segment_frames == 12
    # A vocoder that normalises over channels can train on segments of any length for which its loss is defined.
    assert load_recipe(path, ["training.segment_frames=4"]).training.segment_frames == 4
    messages.check(refusal("training.segment_frames=3"))


def test_upsampling_factors_whose_product_is_not_the_hop_are_refused(messages: Messages) -> None:
    given = "vocoder={name: parallel, upsample_factors: [4, 4, 4, 2]}"
    messages.check(refusal(given, "training.segment_frames=64"))
    path = write(SMALLEST.replace("bigvgan-24k", "pwg-24k"))
    ours = load_recipe(path, ["vocoder={name: parallel, upsample_factors: [4, 5, 3, 5]}", "training.segment_frames=64"])
    assert build(ours, device="meta").upsample.hop_length == 300


def test_a_segment_within_a_parallel_wavenets_receptive_field_is_refused(messages: Messages) -> None:
    messages.check(refusal("vocoder={name: parallel}", "training.segment_frames=33"))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_mel_profile_can_be_used_in_a_recipe(name: str) -> None:
    recipe = load_recipe(write(), [f"mel={name}", "training.segment_frames=48"])
    assert recipe.mel == profile(name)
    assert build(recipe, device="meta").mel == profile(name)


def test_one_field_of_a_profile_can_be_overridden() -> None:
    ours = load_recipe(find_recipe("demo"), ["mel.f_max_hz=11000"]).mel
    assert ours == profile("bigvgan-24k").replace(f_max_hz=11000.0)
    assert load_recipe(find_recipe("demo"), ["mel=vocos-24k"]).mel == profile("vocos-24k")


@pytest.mark.parametrize("setting", ["vocoder.look_ahead=1", "vocoder.look_ahead=7"])
def test_look_ahead_needs_a_causal_model_and_an_input_kernel_that_reaches_that_far(
    setting: str, messages: Messages
) -> None:
    causal = ["vocoder.padding=causal"] if setting.endswith("7") else []
    with messages.refused(ConfigError):
        load_recipe(find_recipe("folder/spectral"), [*causal, setting])
    assert load_recipe(find_recipe("folder/spectral"), ["vocoder.padding=causal", "vocoder.look_ahead=6"])

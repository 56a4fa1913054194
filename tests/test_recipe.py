"""Recipes: every shipped one loads, and every mistake in one is named."""

import re
from pathlib import Path

import pytest
from support.corpus import write_corpus, write_recipe

from wavegen.commands.train import main
from wavegen.config import load_yaml
from wavegen.corpora.manifest import Recording
from wavegen.errors import ConfigError, MelError
from wavegen.mel import PROFILES, profile
from wavegen.pipeline import list_recordings
from wavegen.recipe import (
    SHIPPED,
    build,
    default_run_name,
    find_recipe,
    load_recipe,
    save_recipe,
    shipped_recipes,
)
from wavegen.vocoders import VOCODERS

pytestmark = pytest.mark.usefixtures("alone")
CORPUS = Path("corpus")
# A recipe of the least that one must say; tests add to it.
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
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(text), overrides)
    return str(caught.value)


# --- what is shipped ---


def test_the_shipped_recipes_are_listed_by_name() -> None:
    names = shipped_recipes()
    assert names == sorted(names)
    assert {"demo", "folder/spectral", "folder/wavenet", "ljspeech/spectral", "ljspeech/wavenet"} <= set(names)
    files = list((SHIPPED / "recipes").rglob("*.yaml"))
    assert {find_recipe(name) for name in names} == set(files)
    assert len(names) == len(files)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_loads_and_its_vocoder_can_be_built(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    vocoder = build(recipe, device="meta")
    assert vocoder.mel == recipe.mel
    assert all(parameter.is_meta for parameter in vocoder.parameters())
    # No recipe knows where a user keeps a corpus; the demo's lies beside it.
    assert (recipe.data.corpus is None) == (not name.startswith("demo"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_says_its_size_as_it_is(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    size = f"{sum(parameter.numel() for parameter in build(recipe, device='meta').parameters()) / 1e6:.1f} M"
    path = find_recipe(name)
    said = re.findall(r"([\d.]+ M) parameters", path.read_text(encoding="utf-8"))
    assert set(said) == ({size} if said else set())
    readme = path.with_name("README.md")
    if readme.exists():
        (row,) = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |")]
        assert row.endswith(f"| {size} | {recipe.training.batch_size} | {recipe.training.steps:,} |")


def test_every_shipped_fragment_is_used_by_two_recipes_or_more() -> None:
    used = [fragment for name in shipped_recipes() for fragment in load_yaml(find_recipe(name)).get("uses", [])]
    fragments = [path.stem for path in (SHIPPED / "conf").glob("*.yaml")]
    assert fragments
    assert all(used.count(fragment) >= 2 for fragment in fragments)


def test_all_ljspeech_recipes_take_the_corpus_as_it_is_and_share_their_features() -> None:
    recipes = [load_recipe(find_recipe(name)) for name in shipped_recipes() if name.startswith("ljspeech/")]
    assert {recipe.vocoder.name for recipe in recipes} == set(VOCODERS)
    for recipe in recipes:
        assert recipe.mel == profile("hifigan-22k")
        assert recipe.data == recipes[0].data
        assert recipe.data.features == Path("features/ljspeech-hifigan-22k")


def test_a_run_is_called_after_its_recipe() -> None:
    assert default_run_name("demo") == "demo"
    assert default_run_name("ljspeech/wavenet") == "ljspeech-wavenet"
    assert default_run_name("some/where/mine.yaml") == "mine"


# --- finding and reading ---


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    for name, message in {
        "ljspeech/wavnet": "unknown recipe 'ljspeech/wavnet'; did you mean 'ljspeech/wavenet'?",
        "dmeo": "unknown recipe 'dmeo'; did you mean 'demo'?",
        "zzz": f"unknown recipe 'zzz'; valid names: {', '.join(shipped_recipes())}",
        "none/mine.yaml": "none/mine.yaml: no such file; check the path",
    }.items():
        with pytest.raises(ConfigError) as caught:
            find_recipe(name)
        assert str(caught.value) == message
    assert find_recipe(str(write())) == Path("mine.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vocoder.chanels=3", "vocoder.chanels: unknown key, did you mean 'channels'?"),
        ("traning.steps=3", "traning: unknown key, did you mean 'training'?"),
        ("training.steps=many", 'training.steps: found "many", want an integer'),
        ("training.steps=1.5", "training.steps: found 1.5, want an integer"),
        ("training.compile=1", "training.compile: found 1, want true or false"),
        (
            "training.precision=bf16",
            "training.precision: found \"bf16\", want 'auto', 'float32' or 'bfloat16' (did you mean 'bfloat16'?)",
        ),
        (
            "vocoder.name=spectrl",
            "vocoder.name: found \"spectrl\", want one of 'parallel', 'spectral', 'wavenet' (did you mean 'spectral'?)",
        ),
        ("vocoder=wavenet", 'vocoder: found "wavenet", want a mapping'),
        ("data.held_out=5", "data.held_out: found 5, want less than 1 or a string"),
        ("data=null", "data: found null, want a mapping"),
        ("mel={profile: hifigan-22k, hop_lenght: 256}", "mel.hop_lenght: unknown key, did you mean 'hop_length'?"),
        ("mel={profile: hifigan-22k, f_max_hz: 12000}", "mel: f_max_hz 12000 is above half of sample_rate_hz 22050"),
        (
            "training.stft_resolutions=[[256, 256]]",
            "training: stft_resolutions: hop 256 is not shorter than n_fft 256",
        ),
        ("seed=-1", "seed: found -1, want greater than or equal to 0"),
        ("seed=9223372036854775808", "seed: found 9223372036854775808, want less than 9223372036854775808"),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_what_is_wanted(override: str, message: str) -> None:
    assert refusal(override) == f"mine.yaml: {message}"


@pytest.mark.parametrize("override", ["mel=bigvgan-25k", "mel={profile: bigvgan-25k}", "mel={profile: 3}"])
def test_an_unknown_mel_profile_is_refused_with_the_names_there_are(override: str) -> None:
    with pytest.raises(MelError, match=r"^(bigvgan-25k|3): no mel profile has this name; try .*bigvgan-24k"):
        load_recipe(write(), [override])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("uses: [gpu-trainin]", "uses: unknown fragment 'gpu-trainin'; did you mean 'gpu-training'?"),
        ("uses: [../recipes/demo/demo]", "uses: unknown fragment '../recipes/demo/demo'; valid names: "),
        ("uses: gpu-training", "uses: found 'gpu-training', want a list of fragments; write uses: [NAME]"),
        ("uses: {gpu-training: 1}", "uses: found {'gpu-training': 1}, want a list of fragments; write uses: [NAME]"),
    ],
)
def test_an_unknown_fragment_is_refused(line: str, message: str) -> None:
    assert refusal(text=f"{line}\n{SMALLEST}").startswith(f"mine.yaml: {message}")


def test_a_recipe_comes_on_top_of_its_fragments_and_overrides_on_top_of_both() -> None:
    fragment = load_yaml(SHIPPED / "conf/gpu-training.yaml")["training"]
    path = write(SMALLEST.replace("{steps: 2}", "{steps: 2, log_every: 7}") + "uses: [gpu-training]\n")
    training = load_recipe(path, ["training.validate_every=11"]).training
    assert training.ema_decay == fragment["ema_decay"]
    assert fragment["log_every"] != training.log_every == 7
    assert fragment["validate_every"] != training.validate_every == 11


def test_a_named_profile_can_be_changed_in_part() -> None:
    mel = load_recipe(write(), ["mel={profile: bigvgan-24k, f_max_hz: 8000}"]).mel
    assert mel == profile("bigvgan-24k").replace(f_max_hz=8000)
    statistics = f"mean: {[-3.5] * 80}, std: {[2] * 80}"
    mel = load_recipe(write(), [f"mel={{profile: pwg-22k, {statistics}}}"]).mel
    assert mel == profile("pwg-22k").replace(mean=(-3.5,) * 80, std=(2.0,) * 80)


def test_the_corpus_is_relative_to_the_file_and_of_an_override_to_the_current_folder(
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


def test_a_list_of_recordings_takes_the_place_of_the_glob() -> None:
    text = "name\tsplit\tpath\nx\ttrain\tone.wav\ny\tvalid\t/elsewhere/two.flac\n"
    Path("lists").mkdir()
    Path("lists/mine.tsv").write_text(text, encoding="utf-8")
    path = write(SMALLEST.replace("corpus: audio", "manifest: mine.tsv"), "lists/mine.yaml")
    x, y = list_recordings(load_recipe(path), path)
    assert x == Recording("x", Path("lists/one.wav").absolute(), "train")
    assert y == Recording("y", Path("/elsewhere/two.flac"), "valid")


def test_the_vocoder_is_switched_by_one_override() -> None:
    recipe = load_recipe(write(), ["vocoder={name: wavenet, cycles: 1}"])
    assert (recipe.vocoder.name, type(build(recipe, device="meta")).__name__) == ("wavenet", "WaveNet")
    assert recipe.vocoder.model_dump()["cycles"] == 1
    # Its name alone would leave the keys of the other.
    assert refusal("vocoder.name=wavenet").startswith("mine.yaml: vocoder.channels: unknown key")


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_is_the_same_alone_and_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(find_recipe(name), ["data.corpus=audio", "training.steps=3"])
    save_recipe(recipe, Path("run/recipe.yaml"))
    assert "uses" not in load_yaml(Path("run/recipe.yaml"))
    monkeypatch.chdir("run")
    assert load_recipe(Path("recipe.yaml")) == recipe
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    monkeypatch.setattr("wavegen.recipe.SHIPPED", Path("nowhere"))
    assert load_recipe(Path("../recipe.yaml")) == recipe


def test_a_segment_within_the_receptive_field_is_refused_before_any_data_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wavenet = "vocoder={name: wavenet, cycles: 2, depth: 10, kernel_size: 2}"
    path = write()
    arguments = [str(path), wavenet, "data.corpus=none", "--device", "cpu"]
    assert main([*arguments, "training.segment_frames=8"]) == 2
    assert capsys.readouterr().err == (
        "wavegen-train: error: mine.yaml: training.segment_frames: 8 frames (2048 samples) are too "
        "short for the wavenet vocoder (receptive field 2048 samples) and its objective; give at least 12\n"
    )
    assert load_recipe(path, [wavenet, "training.segment_frames=12"]).training.segment_frames == 12
    # A vocoder that normalises over channels learns from crops of any length that its loss is defined on.
    assert load_recipe(path, ["training.segment_frames=4"]).training.segment_frames == 4
    assert "(768 samples) are too short for the spectral vocoder" in refusal("training.segment_frames=3")


def test_upsampling_that_does_not_give_the_hop_is_refused_with_factors_that_do() -> None:
    given = "vocoder={name: parallel, upsample_factors: [4, 4, 4, 2]}"
    assert refusal(given, "training.segment_frames=64") == (
        "vocoder.upsample_factors: 4 · 4 · 4 · 2 make 128 samples of a frame, the mel's hop is 256; "
        "leave it out to get [4, 4, 4, 4], or give some of that product"
    )
    path = write(SMALLEST.replace("bigvgan-24k", "pwg-24k"))
    ours = load_recipe(path, ["vocoder={name: parallel, upsample_factors: [4, 5, 3, 5]}", "training.segment_frames=64"])
    assert build(ours, device="meta").upsample.hop_length == 300


def test_a_crop_within_a_parallel_wavenets_receptive_field_is_refused() -> None:
    assert refusal("vocoder={name: parallel}", "training.segment_frames=33") == (
        "mine.yaml: training.segment_frames: 33 frames (8448 samples) are too short for the parallel vocoder "
        "(receptive field 8448 samples) and its objective; give at least 34"
    )


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_can_stand_in_a_recipe(name: str) -> None:
    recipe = load_recipe(write(), [f"mel={name}", "training.segment_frames=48"])
    assert recipe.mel == profile(name)
    assert build(recipe, device="meta").mel == profile(name)


def test_a_recipe_without_a_corpus_says_how_to_give_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder/spectral", "--device", "cpu"]) == 2
    assert capsys.readouterr().err == (
        "wavegen-train: error: data.corpus: not given; add data.corpus=FOLDER to the command\n"
    )
    CORPUS.mkdir()
    assert main(["folder/spectral", "data.corpus=corpus", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith(
        f"wavegen-train: error: {CORPUS.absolute()}: no recordings match '**/*'; "
    )
    assert not Path("runs").exists()


def test_a_run_that_has_more_steps_is_left_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    assert main([str(recipe), "--out", "run", "--device", "cpu"]) == 0
    before = Path("run/recipe.yaml").read_bytes()
    capsys.readouterr()
    assert main([str(recipe), "training.steps=5", "--out", "run", "--device", "cpu"]) == 2
    assert (
        "run: this run has 8 steps already, more than training.steps=5; give another --out" in capsys.readouterr().err
    )
    assert Path("run/recipe.yaml").read_bytes() == before


def test_one_field_of_a_profile_can_be_overridden() -> None:
    ours = load_recipe(find_recipe("demo"), ["mel.f_max_hz=11000"]).mel
    assert ours == profile("bigvgan-24k").replace(f_max_hz=11000.0)
    assert load_recipe(find_recipe("demo"), ["mel=vocos-24k"]).mel == profile("vocos-24k")


@pytest.mark.parametrize("setting", ["vocoder.look_ahead=1", "vocoder.look_ahead=7"])
def test_look_ahead_is_for_causal_models_whose_input_reaches_that_far(setting: str) -> None:
    causal = ["vocoder.padding=causal"] if setting.endswith("7") else []
    with pytest.raises(ConfigError, match=r"look_ahead \d with padding (same|causal) and kernel_size 7; it is for"):
        load_recipe(find_recipe("folder/spectral"), [*causal, setting])
    assert load_recipe(find_recipe("folder/spectral"), ["vocoder.padding=causal", "vocoder.look_ahead=6"])

"""The recipe: one YAML that says all, from recordings to a voice. The one place that knows everything."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, PositiveInt, field_validator, model_validator

from wavegen.config import Config, apply_overrides, did_you_mean, load_yaml, merge, parse, to_yaml
from wavegen.errors import ConfigError
from wavegen.files import write_beside
from wavegen.mel import MelSpec, profile
from wavegen.training.config import TrainingConfig
from wavegen.training.objectives import shortest_for_discriminators, shortest_segment
from wavegen.vocoders import VOCODERS, Vocoder, build_vocoder
from wavegen.vocoders._base import VocoderConfig

# In a wheel the shipped files lie inside the package; in a checkout, beside it.
_PACKAGE = Path(__file__).parent
SHIPPED = _PACKAGE / "shipped" if (_PACKAGE / "shipped").is_dir() else _PACKAGE.parent

if TYPE_CHECKING:
    AnyVocoderConfig = VocoderConfig
else:  # the union of the configs of all vocoders found, told apart by their names
    AnyVocoderConfig = Annotated[
        Union[tuple(vocoder.Config for vocoder in VOCODERS.values())],  # noqa: UP007  (a tuple, not written out)
        Field(discriminator="name"),
    ]


class DataConfig(Config):
    """Where the recordings are.

    Attributes:
        corpus: folder of the corpus. In a recipe file it is relative to that file, on the command line to the
            current folder.
        prepare: whether to ask the ``prepare.py`` beside the recipe, which knows how the corpus is laid out.
        recordings: glob below ``corpus``, where it is not asked.
        held_out: share of the recordings held back for validation, or a glob of their names.
        manifest: tab-separated list of recordings (name, path, split) to use instead of all of these; relative as
            ``corpus`` is.
        speakers: whether the vocoder is told who speaks: as the manifest or ``prepare.py`` says, else the name of the
            folder that a recording lies in.
        features: folder for the extracted mels, shared by the recipes of a corpus; relative to the current folder,
            as runs are. Below the run by default.
    """

    corpus: Path | None = None
    prepare: bool = False
    recordings: str = "**/*"
    held_out: Annotated[float, Field(gt=0, lt=1)] | str = 0.05
    manifest: Path | None = None
    speakers: bool = False
    features: Path | None = None


class SamplesConfig(Config):
    """What is synthesised and scored when training has finished.

    Attributes:
        clips: how many of the held-back clips; 0 for none.
        baseline_iterations: Griffin-Lim iterations of the baseline they are scored beside.
    """

    clips: Annotated[int, Field(ge=0)] = 8
    baseline_iterations: PositiveInt = 32


class Recipe(Config):
    """From recordings to a voice.

    ``init`` is a finished run's folder, or a model or checkpoint, whose weights training begins with; relative as
    ``data.corpus`` is.
    """

    description: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    mel: MelSpec
    data: DataConfig
    vocoder: AnyVocoderConfig
    training: TrainingConfig
    init: Path | None = None
    samples: SamplesConfig = SamplesConfig()

    @field_validator("mel", mode="before")
    @classmethod
    def _named_profile(cls, value: Any) -> Any:
        """``mel: bigvgan-24k``, or ``mel: {profile: pwg-22k, mean: […], std: […]}``."""
        named = {"profile": value} if isinstance(value, str) else value
        if not isinstance(named, dict) or "profile" not in named:
            return value
        changes = {key: tuple(v) if isinstance(v, list) else v for key, v in named.items() if key != "profile"}
        return {**profile(str(named["profile"])).model_dump(), **changes}

    @model_validator(mode="after")
    def _speakers_have_channels(self) -> "Recipe":
        if self.data.speakers != (self.vocoder.speaker_channels > 0):
            raise ValueError(
                f"data.speakers is {str(self.data.speakers).lower()}, vocoder.speaker_channels "
                f"{self.vocoder.speaker_channels}; a vocoder that is told who speaks needs both: true, and such as 32"
            )
        return self

    @model_validator(mode="after")
    def _segment_fits(self) -> "Recipe":
        vocoder = build(self, device="meta")
        if self.training.adversarial is not None and not vocoder.accepts_discriminators:
            raise ValueError(
                f"training.adversarial: the {self.vocoder.name} vocoder makes one sample after the other, which "
                "discriminators cannot train; leave it out"
            )
        segment, shortest = self.training.segment_frames, shortest_segment(vocoder, self.training)
        samples = segment * self.mel.hop_length
        too_short = f"training.segment_frames: {segment} frames ({samples} samples) are too short"
        refusing = {name: n for name, n in shortest_for_discriminators(self.training).items() if n > samples}
        if refusing:
            name = max(refusing, key=lambda name: refusing[name])
            raise ValueError(
                f"{too_short} for {len(refusing)} of the discriminators ({name} needs {refusing[name]} samples); "
                f"give at least {shortest}"
            )
        if segment < shortest:
            raise ValueError(
                f"{too_short} "
                f"for the {self.vocoder.name} vocoder (receptive field {vocoder.receptive_field_samples} samples) "
                f"and its objective; give at least {shortest}"
            )
        return self


def build(recipe: Recipe, *, device: str = "cpu", speakers: Sequence[str] = ()) -> Vocoder:
    """The recipe's vocoder with random weights; on device ``"meta"`` it has shapes and no numbers.

    Who speaks only the recordings say: without ``speakers`` it is not told.
    """
    import torch

    with torch.device(device):
        return build_vocoder(recipe.vocoder, recipe.mel, speakers)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with wavegen: ``demo``, ``ljspeech/wavenet``, …"""
    folder = SHIPPED / "recipes"
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.yaml")]
    # A recipe named as its folder goes by that one name.
    return sorted(name.split("/")[0] if len(set(name.split("/"))) == 1 else name for name in names)


def find_recipe(name: str) -> Path:
    """The YAML file of a shipped recipe's name, or of a path.

    Raises:
        ConfigError: there is none, with the nearest names.
    """
    if name in shipped_recipes():
        return SHIPPED / "recipes" / (f"{name}.yaml" if "/" in name else f"{name}/{name}.yaml")
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError("no such file", where=name, remedy="check the path")
    raise ConfigError(f"unknown recipe {name!r}", remedy=did_you_mean(name, shipped_recipes()))


def default_run_name(name: str) -> str:
    """The run folder's name for a recipe given by name or path: ``ljspeech/wavenet`` is ``ljspeech-wavenet``."""
    return name.replace("/", "-") if name in shipped_recipes() else Path(name).stem


def load_recipe(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe, the fragments of ``conf/`` that its ``uses`` names, and ``key=value`` overrides on top.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or the parts do not go together.
    """
    own = load_yaml(path)
    data: dict[str, Any] = {}
    uses = own.pop("uses", [])
    if not isinstance(uses, list):
        raise ConfigError(f"uses: found {uses!r}, want a list of fragments", where=path, remedy="write uses: [NAME]")
    for fragment in uses:
        data = merge(data, load_yaml(_find_fragment(str(fragment), path)))
    data = merge(data, own)
    for section, keys in ((data.get("data"), ("corpus", "manifest")), (data, ("init",))):
        if isinstance(section, dict):  # paths in the file start at the file, paths on the command line at the user
            own_paths = {key: section[key] for key in keys if isinstance(section.get(key), str)}
            section |= {key: str(path.parent.absolute() / Path(own).expanduser()) for key, own in own_paths.items()}
    if isinstance(data.get("mel"), str):  # so that one of its fields can be overridden
        data["mel"] = {"profile": data["mel"]}
    recipe = parse(Recipe, apply_overrides(data, overrides), where=path)

    def absolute(given: Path | None) -> Path | None:
        return given and given.expanduser().absolute()

    places = {"corpus": absolute(recipe.data.corpus), "manifest": absolute(recipe.data.manifest)}
    update = {"data": recipe.data.model_copy(update=places), "init": absolute(recipe.init)}
    return recipe.model_copy(update=update)


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe resolved: this file alone, given to wavegen-train, reproduces the run."""
    with write_beside(path) as beside:
        beside.write_text(to_yaml(recipe), encoding="utf-8")


def _find_fragment(name: str, recipe: Path) -> Path:
    fragments = {path.stem: path for path in (SHIPPED / "conf").glob("*.yaml")}
    if name not in fragments:
        raise ConfigError(f"uses: unknown fragment {name!r}", where=recipe, remedy=did_you_mean(name, fragments))
    return fragments[name]

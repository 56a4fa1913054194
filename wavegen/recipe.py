"""The recipe: one YAML file with every setting of a run, from the recordings to the trained network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, PositiveInt, field_validator, model_validator

from wavegen.checkpoint import DEFAULT, build_network
from wavegen.config import (
    Config,
    MayChangeDuringRun,
    apply_overrides,
    did_you_mean,
    load_yaml,
    merge,
    parse,
    to_yaml,
)
from wavegen.corpora.labelling import MADE, LabelFilesConfig
from wavegen.errors import ConfigError
from wavegen.files import atomic_write
from wavegen.mel import MelSpec, profile
from wavegen.models import MODELS, ModelConfig
from wavegen.network import Network, NetworkConfig
from wavegen.tables import text_table
from wavegen.training.config import TrainingConfig
from wavegen.training.shortest import shortest_for_discriminators, shortest_segment
from wavegen.vocoders import VOCODERS
from wavegen.vocoders._base import VocoderConfig

# In a wheel, recipes/ and conf/ are inside the package; in a checkout, they are beside it.
_PACKAGE = Path(__file__).parent
SHIPPED = _PACKAGE / "shipped" if (_PACKAGE / "shipped").is_dir() else _PACKAGE.parent

_MAX_EMPTY_FILTERS = 0.1  # of all filters; definitions in use have a few at the lowest frequencies

if TYPE_CHECKING:
    AnyVocoderConfig = VocoderConfig
    AnyModelConfig = ModelConfig
else:

    def _any_of(networks: dict[str, type[Network]]) -> Any:
        """The union of all networks' configs, or the only one; the field ``name`` selects the member."""
        configs = [network.Config for network in networks.values()]
        return Annotated[Union[tuple(configs)], Field(discriminator="name")] if len(configs) > 1 else configs[0]  # noqa: UP007  (the members are known at run time only)

    AnyVocoderConfig, AnyModelConfig = _any_of(VOCODERS), _any_of(MODELS)


class DataConfig(Config):
    """The ``data`` section of a recipe: which recordings to use.

    Paths in a recipe file are relative to that file, paths on the command line to the current folder.

    Attributes:
        corpus: folder of the corpus.
        prepare: whether the ``prepare.py`` beside the recipe lists the recordings; it knows the layout of the corpus.
        recordings: glob below ``corpus`` that lists the recordings if ``prepare`` is false.
        held_out: the validation set, as a share of the recordings or as a glob of their names.
        manifest: list of recordings, such as tab-separated text (name, path, split), to use in place of ``prepare`` and
            ``recordings``.
        speakers: whether the vocoder learns to tell the speakers apart. A speaker's name comes from the manifest or
            from ``prepare.py``, otherwise it is the name of the folder that holds the recording.
        features: folder for the extracted mels, which all recipes of a corpus can share; always relative to the
            current folder, as run folders are. None: a folder inside the run's folder.
        labels: the place of the recordings' label files, for a model that learns from labels. None: the labels are
            made from the recordings, which is possible for the classes speech and voiced.
    """

    corpus: Path | None = None
    prepare: bool = False
    recordings: str = "**/*"
    held_out: Annotated[float, Field(gt=0, lt=1)] | str = 0.05
    manifest: Path | None = None
    speakers: bool = False
    features: Annotated[Path | None, MayChangeDuringRun()] = None
    labels: LabelFilesConfig | None = None


class SamplesConfig(Config):
    """The ``samples`` section of a recipe: what is synthesised and scored when training has finished.

    Attributes:
        clips: number of validation clips to synthesise; 0 for none.
        baseline_iterations: Griffin-Lim iterations of the baseline that is scored beside the vocoder.
    """

    clips: Annotated[int, Field(ge=0), MayChangeDuringRun()] = 8
    baseline_iterations: Annotated[PositiveInt, MayChangeDuringRun()] = 32


class Recipe(Config):
    """Every setting of a run.

    Attributes:
        description: one line for the reader.
        seed: seeds the initial weights, the choice of training segments, and all noise.
        mel: the mel definition: a profile's name, all fields, or a profile with some fields changed.
        data: which recordings to use.
        vocoder: the vocoder and its shape; ``name`` selects the vocoder.
        model: another network and its shape, in place of a vocoder.
        training: settings of the training loop.
        init: a finished run's folder, a model or a checkpoint, whose weights training starts from; relative to the same
            folder as ``data.corpus``. ``default`` is the voice that wavegen ships.
        samples: settings of the synthesis and scores after training.
    """

    description: Annotated[str, MayChangeDuringRun()]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    mel: MelSpec
    data: DataConfig
    vocoder: AnyVocoderConfig | None = None
    model: AnyModelConfig | None = None
    training: TrainingConfig
    init: Path | None = None
    samples: SamplesConfig = SamplesConfig()

    @property
    def network(self) -> NetworkConfig:
        """The section of the network that the recipe trains: ``vocoder`` or ``model``."""
        network = self.model if self.vocoder is None else self.vocoder
        assert network is not None
        return network

    @field_validator("mel", mode="before")
    @classmethod
    def _named_profile(cls, value: Any) -> Any:
        """Accept ``mel: bigvgan-24k`` and ``mel: {profile: pwg-22k, mean: […], std: […]}``."""
        named = {"profile": value} if isinstance(value, str) else value
        if not isinstance(named, dict) or "profile" not in named:
            return value
        changes = {key: tuple(v) if isinstance(v, list) else v for key, v in named.items() if key != "profile"}
        return {**profile(str(named["profile"])).model_dump(), **changes}

    @model_validator(mode="after")
    def _trains_one_network(self) -> "Recipe":
        if self.vocoder is not None and self.model is not None:
            raise ValueError("vocoder and model are both given; leave one out, because a run trains one network")
        if self.vocoder is None and self.model is None:
            raise ValueError("vocoder: missing; give a vocoder, or another model")
        if self.model is None:
            return self
        if self.training.best_by != "loss":
            raise ValueError(
                f"training.best_by={self.training.best_by} needs a vocoder's sound, but this recipe trains the "
                f"model {self.model.name}; set training.best_by=loss"
            )
        if self.data.speakers:
            raise ValueError(f"data.speakers=true, but the model {self.model.name} learns no speakers; set it to false")
        return self

    @model_validator(mode="after")
    def _speakers_have_channels(self) -> "Recipe":
        if self.vocoder is None:
            return self
        channels = self.vocoder.speaker_channels
        if (self.data.speakers or channels) and not VOCODERS[self.vocoder.name].has_speakers:
            raise ValueError(
                f"data.speakers={str(self.data.speakers).lower()} and vocoder.speaker_channels={channels}, but a "
                f"{self.vocoder.name} vocoder takes the voice from the mel; set data.speakers=false and "
                "vocoder.speaker_channels=0"
            )
        if self.data.speakers and channels == 0:
            raise ValueError(
                "data.speakers=true needs vocoder.speaker_channels > 0, but it is 0; try vocoder.speaker_channels=32"
            )
        if channels > 0 and not self.data.speakers:
            raise ValueError(
                f"vocoder.speaker_channels={channels} needs data.speakers=true, but it is false; set it, or set "
                "vocoder.speaker_channels=0"
            )
        return self

    @model_validator(mode="after")
    def _mel_can_be_heard(self) -> "Recipe":
        """Refuse a mel definition that leaves out samples, or has filters without a frequency."""
        mel = self.mel
        if mel.hop_length > mel.win_length // 2:
            raise ValueError(
                f"mel.hop_length={mel.hop_length}: a window of {mel.win_length} samples fades out on both sides, so "
                f"the samples between two windows are hardly in the mel; use at most {mel.win_length // 2}"
            )
        empty = int((mel.filterbank().max(axis=1) == 0).sum())
        if empty > _MAX_EMPTY_FILTERS * mel.n_mels:
            raise ValueError(
                f"mel.n_mels={mel.n_mels}: {empty} of the filters lie between two frequencies of n_fft={mel.n_fft} and "
                "are always empty; use fewer, or a larger n_fft"
            )
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> "Recipe":
        classes = self.network.labels
        if classes is None:
            if self.data.labels is not None:
                raise ValueError(f"data.labels is given, but a {self.network.name} reads no labels; leave it out")
            return self
        if self.data.labels is None and (classes.exclusive or not {*classes.names} <= {*MADE}):
            raise ValueError(
                f"data.labels is missing, but only the classes {' and '.join(MADE)}, with model.exclusive=false, need "
                f"no label files, and the classes are {', '.join(classes.names)}; try "
                "'data.labels={suffix: .TextGrid}'"
            )
        return self

    @model_validator(mode="after")
    def _segment_fits(self) -> "Recipe":
        """Refuse training segments that are too short for the vocoder, its loss, or a discriminator."""
        network = build(self, device="meta")
        name = f"{self.network.name} {self.network.section}"
        if self.training.adversarial is not None and not network.accepts_discriminators:
            raise ValueError(
                f"training.adversarial: discriminators cannot train the {name}, because its "
                "training generates no sound; leave training.adversarial out"
            )
        segment = self.training.segment_frames
        samples = segment * self.mel.hop_length
        shortest = shortest_segment(network, self.training)
        too_short = f"training.segment_frames: {segment} frames ({samples} samples) are too short"

        needed = {name: n for name, n in shortest_for_discriminators(self.training).items() if n > samples}
        if needed:
            largest = max(needed, key=lambda discriminator: needed[discriminator])
            raise ValueError(
                f"{too_short} for {len(needed)} of the discriminators ({largest} needs {needed[largest]} samples); "
                f"use at least {shortest}"
            )
        if segment < shortest:
            raise ValueError(
                f"{too_short} for the {name} (receptive field {network.receptive_field_samples} "
                f"samples) and its loss; use at least {shortest}"
            )
        return self


def build(recipe: Recipe, *, device: str = "cpu", speakers: Sequence[str] = ()) -> Network:
    """Build the recipe's vocoder or model with random weights.

    Args:
        recipe: the recipe.
        device: the device of the weights; on ``"meta"`` they have shapes but no values.
        speakers: names of the speakers, which only the recordings tell; empty for a vocoder without speakers.
    """
    import torch

    with torch.device(device):
        return build_network(recipe.network, recipe.mel, speakers)


def shipped_recipes() -> list[str]:
    """Names of the recipes that wavegen ships: ``demo``, ``ljspeech/wavenet``, …"""
    folder = SHIPPED / "recipes"
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.yaml")]
    # The recipe demo/demo.yaml is called demo.
    return sorted(name.split("/")[0] if len(set(name.split("/"))) == 1 else name for name in names)


def list_recipes() -> str:
    """A table of the recipes that wavegen ships, with their descriptions."""
    rows = [[name, str(load_yaml(find_recipe(name)).get("description", ""))] for name in shipped_recipes()]
    return text_table([["recipe", "description"], *rows], left_aligned=2)


def find_recipe(name: str) -> Path:
    """Return the YAML file of a recipe that is given by name or by path.

    Raises:
        ConfigError: the recipe is unknown; the message has the nearest names.
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
    """Name a run's folder after its recipe: ``ljspeech/wavenet`` becomes ``ljspeech-wavenet``, ``a/b.yaml`` ``b``."""
    return name.replace("/", "-") if name in shipped_recipes() else Path(name).stem


def load_recipe(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe: the fragments of ``conf/`` that ``uses`` lists, then the recipe itself, then the overrides.

    Args:
        path: the YAML file.
        overrides: settings such as ``training.steps=5000``.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or settings contradict each other.
    """
    own = load_yaml(path)

    # Merge the shared fragments in order, and the recipe on top of them.
    uses = own.pop("uses", [])
    if not isinstance(uses, list):
        raise ConfigError(
            f"uses: found {uses!r}, expected a list of fragments", where=path, remedy="write uses: [NAME]"
        )
    data: dict[str, Any] = {}
    for fragment in uses:
        data = merge(data, load_yaml(_find_fragment(str(fragment), path)))
    data = merge(data, own)

    # Paths in the file are relative to the file. Make them absolute before overrides add paths that are not.
    for section, keys in ((data.get("data"), ("corpus", "manifest")), (data, ("init",))):
        if isinstance(section, dict):
            paths = {key: section[key] for key in keys if isinstance(section.get(key), str)}
            paths = {key: text for key, text in paths.items() if (key, text) != ("init", DEFAULT)}
            section |= {key: str(path.parent.absolute() / Path(text).expanduser()) for key, text in paths.items()}

    # Write a profile's name as a mapping, so that an override can change one of its fields.
    if isinstance(data.get("mel"), str):
        data["mel"] = {"profile": data["mel"]}
    recipe = _parse(data, overrides, path)

    # Paths of overrides are relative to the current folder.
    def absolute(given: Path | None) -> Path | None:
        return given and given.expanduser().absolute()

    places = {"corpus": absolute(recipe.data.corpus), "manifest": absolute(recipe.data.manifest)}
    init = recipe.init if recipe.init == Path(DEFAULT) else absolute(recipe.init)
    update = {"data": recipe.data.model_copy(update=places), "init": init}
    return recipe.model_copy(update=update)


def _parse(data: dict[str, Any], overrides: Sequence[str], path: Path) -> Recipe:
    """Build the recipe; an error names the file or the command line, whichever is at fault."""
    try:
        return parse(Recipe, apply_overrides(data, overrides, Recipe), where=path)
    except ConfigError as error:
        if not overrides or error.where != path:
            raise
        try:
            parse(Recipe, data, where=path)
        except ConfigError as own:
            where = path if own.what == error.what else f"{path} and the command line"
        else:
            where = "command line"
        raise ConfigError(error.what, where=where) from error


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe with all its settings: ``wavegen-train`` reproduces the run from this file alone."""
    with atomic_write(path) as beside:
        beside.write_text(to_yaml(recipe), encoding="utf-8")


def _find_fragment(name: str, recipe: Path) -> Path:
    """Return the file of a fragment in ``conf/``; ``recipe`` is named by the error."""
    fragments = {path.stem: path for path in (SHIPPED / "conf").glob("*.yaml")}
    if name not in fragments:
        raise ConfigError(f"uses: unknown fragment {name!r}", where=recipe, remedy=did_you_mean(name, fragments))
    return fragments[name]

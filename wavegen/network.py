"""What every network has in common that a recipe trains: a config with a name, a mel definition and a context."""

import importlib
import inspect
import pkgutil
import typing
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar, get_origin

from pydantic import model_validator
from torch import nn
from typing_extensions import Self

from wavegen.blocks import Context, fold_weight_norm
from wavegen.config import Config
from wavegen.errors import ConfigError
from wavegen.mel import MelFamily, MelSpec

N = TypeVar("N", bound="Network")
MAX_SIZE = 4096  # of every size in a config: far above any in use, and small enough that building ends


class FrameClasses(NamedTuple):
    """The classes of frames that a network learns from labels.

    Attributes:
        names: the names of the classes.
        exclusive: whether a frame has exactly one class.
        background: the class of frames between labels, for ``exclusive`` ones; None leaves them unlabelled.
    """

    names: tuple[str, ...]
    exclusive: bool = False
    background: str | None = None


class NetworkConfig(Config):
    """A section of a recipe that describes a network: its name and its shape.

    Attributes:
        name: the network's name, equal to the name of the file that defines it.
    """

    section: ClassVar[str]  # of a recipe, and of the header of a model file
    name: str

    @model_validator(mode="after")
    def _sizes_are_possible(self) -> Self:
        """Refuse sizes that only a forged model file or a slip of the keyboard has, before they take all memory."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            for size in value if isinstance(value, tuple) else (value,):
                if isinstance(size, int) and size > MAX_SIZE:
                    raise ValueError(f"{name} is {size}; give at most {MAX_SIZE}")
        return self

    @property
    def draws_mel_definitions(self) -> bool:
        """Whether training computes mels to definitions that it draws, and so cannot use mels from files."""
        return False

    @property
    def reads_pitch_labels(self) -> bool:
        """Whether training needs the F0 of the recordings, which extraction then stores beside the mels."""
        return False

    @property
    def labels(self) -> FrameClasses | None:
        """The classes of frames whose labels training needs; None if it needs none."""
        return None

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Tiny shapes that together use every option: all laws are tested on each of them."""
        raise NotImplementedError


class Network(nn.Module, ABC):
    """Base of vocoders and of the models of ``wavegen.models``: what training and model files need of them.

    Args:
        mel: the definition of the mel spectrograms that the network reads.

    Attributes:
        Config: the class of its recipe section.
        family: the mel definitions that ``for_mel`` accepts; None if the network reads its own definition only.
        normalised_over_channels: True if the stack normalises its features, so that training segments may be
            shorter than its context.
        trains_in_bfloat16: whether ``training.precision=auto`` chooses bfloat16.
        accepts_discriminators: whether adversarial training is possible.
        others: the number of segments of other recordings that training needs beside each segment.
    """

    Config: ClassVar[type[NetworkConfig]]
    normalised_over_channels: ClassVar[bool] = False
    trains_in_bfloat16: ClassVar[bool] = True
    accepts_discriminators: ClassVar[bool] = False
    others: int = 0
    family: MelFamily | None = None

    def __init__(self, mel: MelSpec) -> None:
        super().__init__()
        self.mel = mel

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers that the network learns to tell apart."""
        return ()

    @property
    @abstractmethod
    def context(self) -> Context:
        """Mel frames read around the frame whose output is computed."""

    @property
    def receptive_field_samples(self) -> int:
        """Samples of mel context and output that one output sample depends on; training compares segments to it."""
        return self.context.receptive_field * self.mel.hop_length

    def prepared_for_synthesis(self) -> Self:
        """This network in evaluation mode with its weight normalisation folded; changes the module itself."""
        return fold_weight_norm(self).eval().requires_grad_(False)


def find_networks(package: str, path: Sequence[str], base: type[N], kind: str) -> dict[str, type[N]]:
    """Import the modules of a package and return the network that each defines, by name.

    Args:
        package: the package's name.
        path: its folders.
        base: the base class of the networks.
        kind: the word for such a network in messages.

    Raises:
        ConfigError: a module defines no network or several, or a network lacks a part of the contract.
    """
    found = {}
    for module_info in pkgutil.iter_modules(path):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package}.{module_info.name}")
        networks = [
            member
            for member in vars(module).values()
            # CPython 3.10 takes an alias such as list[int] for a type.
            if isinstance(member, type) and get_origin(member) is None and issubclass(member, base)
            if member.__module__ == module.__name__ and ABC not in member.__bases__
        ]
        if len(networks) != 1:
            names = ", ".join(network.__name__ for network in networks) or "none"
            raise ConfigError(
                f"a module defines one {kind}, this one {names}",
                where=module.__name__,
                remedy="move helpers into a module whose name begins with an underscore",
            )
        name = networks[0].Config.model_fields["name"].default
        if name.replace("-", "_") != module_info.name:
            raise ConfigError(
                f"the {kind}'s name is {name!r}, but its file is {module_info.name}.py",
                where=module.__name__,
                remedy="give both the same name",
            )
        found[name] = networks[0]
    return found


def check_definition(
    network: type[Network], config_base: type[NetworkConfig], arguments: str, *, kind: str, faults: Sequence[str] = ()
) -> None:
    """Raise ConfigError if a network's class lacks parts of the contract; the message names all of them.

    Args:
        network: the class.
        config_base: the base class of its config.
        arguments: the arguments of its constructor, as Python writes them.
        kind: the word for such a network in the message.
        faults: other faults of it.
    """
    faults = list(faults)
    missing = [name for name in dir(network) if getattr(getattr(network, name, None), "__isabstractmethod__", False)]
    if missing:
        faults.append(f"define {' and '.join(missing)}")
    wanted = {name.partition("=")[0] for name in arguments.split(", ")} - {"self", "*"}
    if not wanted <= inspect.signature(network.__init__).parameters.keys():
        faults.append(f"take __init__({arguments})")

    config: Any = vars(network).get("Config")
    if not (isinstance(config, type) and issubclass(config, config_base)):
        faults.append(f"set Config to a subclass of {config_base.__name__}")
    else:
        module = network.__module__.rpartition(".")[2]
        names = typing.get_args(config.model_fields["name"].annotation)
        if names != (config.model_fields["name"].default,):
            faults.append(f'declare name: Literal["{module}"] = "{module}" in {config.__name__}')
        if config.examples.__func__ is NetworkConfig.examples.__func__:  # type: ignore[attr-defined]
            faults.append(f"define {config.__name__}.examples")
    if faults:
        raise ConfigError(
            f"a {kind} must {', '.join(faults)}",
            where=f"{network.__module__}.{network.__qualname__}",
            remedy=f".github/CONTRIBUTING.md describes how to add a {kind}",
        )

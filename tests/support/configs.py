"""Configs of recipes as small as they can be, and their files."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from wavegen.config import Config


class Wavenet(Config):
    name: Literal["wavenet"] = "wavenet"
    channels: int = Field(default=64, gt=0)
    dilations: tuple[int, ...] = (1, 2, 4)


class Spectral(Config):
    name: Literal["spectral"] = "spectral"
    kernel_size: int = 7

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"{value} is even; a same-padded kernel is odd")
        return value


class Training(Config):
    lr: float = 1e-4
    steps: int = 10
    warmup: int | Literal["auto"] = "auto"
    amp: bool = False

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Training":
        if isinstance(self.warmup, int) and self.warmup > self.steps:
            raise ValueError("warmup is longer than the training")
        return self


AnyVocoder = Annotated[Wavenet | Spectral, Field(discriminator="name")]


class Recipe(Config):
    corpus: Path
    vocoder: AnyVocoder = Wavenet()
    ensemble: tuple[AnyVocoder, ...] = ()
    training: Training | None = None
    padding: Literal["causal", "same"] = "same"
    rates_hz: dict[str, int] = Field(default_factory=dict)
    crop: tuple[int, float] = (1, 0.5)
    note: str = ""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path

"""The projects whose weights can be imported."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from wavegen.errors import ConfigError
from wavegen.exchange import vocos
from wavegen.exchange.foreign import ImportedModel
from wavegen.exchange.parallel_wavegan import read_parallel_wavegan
from wavegen.exchange.vocos import read_vocos
from wavegen.remote import download, is_remote


def _refuse_wavenet_vocoder(folder: Path) -> NoReturn:
    raise ConfigError(
        "wavenet_vocoder smooths its mel in stages that look ahead, which no engine of wavegen's wavenet computes, and "
        "keeps its statistics in a pickle of scikit-learn",
        where=folder,
        remedy="train wavegen's wavenet on the same recordings, with mel=r9y9-22k",
    )


SOURCES: Mapping[str, Callable[[Path], ImportedModel]] = {
    "vocos": read_vocos,
    "parallel-wavegan": read_parallel_wavegan,
    "wavenet-vocoder": _refuse_wavenet_vocoder,
}
# The Hub lists no files to those who know their names, and only Vocos has fixed ones.
_FILES = {"vocos": (vocos.CONFIG, vocos.WEIGHTS)}


def read_foreign(source: str, folder: Path | str) -> ImportedModel:
    """Read a model of another project.

    Args:
        source: a key of ``SOURCES``.
        folder: the folder with its files; for Vocos also ``hf://OWNER/NAME``, a repository on the Hugging Face Hub.

    Raises:
        ConfigError: the model has a part that wavegen does not have, or its project cannot be imported at all.
        CheckpointError: a file is missing or damaged, or holds something other than weights.
    """
    if is_remote(folder):
        if source not in _FILES:
            raise ConfigError(
                f"{source} has no repositories with fixed file names", where=folder, remedy="give a folder"
            )
        folder = download(folder, *_FILES[source])
    return SOURCES[source](Path(folder))

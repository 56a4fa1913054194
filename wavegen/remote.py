"""Files of repositories on the Hugging Face Hub, named ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``."""

import re
from pathlib import Path

from wavegen.errors import CheckpointError

_SCHEME = re.compile(r"hf:/{1,2}")  # a Path has lost one of the slashes
_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def is_remote(where: Path | str) -> bool:
    """Whether this names a repository, not a place on this machine."""
    return _SCHEME.match(Path(where).as_posix()) is not None


def download(where: Path | str, *names: str) -> Path:
    """Download files of a repository, or find them in the Hub's own cache.

    Args:
        where: ``hf://OWNER/NAME``, with ``@REVISION`` for a branch, tag or commit.
        names: the files.

    Returns:
        The folder that holds them.

    Raises:
        CheckpointError: the address is malformed, ``huggingface_hub`` is not installed, or a file cannot be had.
    """
    address = _ADDRESS.fullmatch(Path(where).as_posix())
    if address is None:
        raise CheckpointError("is not an address of a repository", where=where, remedy="give hf://OWNER/NAME")
    repository, revision = address.groups()
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        remedy = "pip install huggingface_hub, or download the repository and give its folder"
        raise CheckpointError("needs the package huggingface_hub", where=f"hf://{repository}", remedy=remedy) from error
    folder = Path()
    for name in names:
        try:
            folder = Path(hf_hub_download(repository, name, revision=revision, library_name="wavegen")).parent
        except (OSError, ValueError, EntryNotFoundError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise CheckpointError(
                f"cannot get {name}: {reason.rstrip('.')}",
                where=f"hf://{repository}",
                remedy="check the address and the network",
            ) from error
    return folder

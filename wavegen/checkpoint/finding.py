"""Where models and checkpoints lie: in runs, in the package, or at an address."""

from pathlib import Path

from wavegen.checkpoint.tensor_files import read_header
from wavegen.errors import CheckpointError
from wavegen.models import ModelConfig
from wavegen.remote import download, is_remote

MODEL = "model.safetensors"
DEFAULT = "default"
DEFAULT_VOICE = Path(__file__).parent.parent / "voice" / "default.safetensors"
CHECKPOINTS, CHECKPOINT = "checkpoints", "step-*.safetensors"


def find_model(where: Path | str | None, runs: Path = Path("runs")) -> Path:
    """Find the model file of a run, or of the voice that wavegen ships.

    Args:
        where: a run's folder, which may still be training; a file; ``"default"`` for the voice that wavegen ships;
            ``hf://OWNER/NAME`` for a repository on the Hugging Face Hub; or None for the newest finished run, or that
            voice if no run is found.
        runs: the folder below which finished runs are looked for.

    Raises:
        CheckpointError: the folder or repository contains no model.
    """
    if where is None:
        finished = (path for path in finished_runs(runs) if not holds_another_model(path))
        return next(finished, DEFAULT_VOICE)
    if str(where) == DEFAULT:  # ./default is a folder of that name
        return DEFAULT_VOICE
    if is_remote(where):
        return download(where, MODEL) / MODEL
    where = Path(where)
    if not where.is_dir():
        return where
    if (where / MODEL).exists():
        return where / MODEL
    checkpoints = list_checkpoints(where)
    if not checkpoints:
        raise CheckpointError("contains neither a model nor checkpoints", where=where, remedy="give a run's folder")
    return checkpoints[-1]


def finished_runs(runs: Path) -> list[Path]:
    """The model files of the finished runs below a folder, newest first."""
    return sorted(runs.glob(f"**/{MODEL}"), key=lambda path: path.stat().st_mtime, reverse=True)


def holds_another_model(path: Path, name: str | None = None) -> bool:
    """Whether a file holds a network that is not a vocoder, with a name; False if the file is damaged."""
    try:
        section = read_header(path).get(ModelConfig.section)
    except CheckpointError:
        return False
    return isinstance(section, dict) and name in (None, section.get("name"))


def list_checkpoints(run: Path) -> list[Path]:
    """The training checkpoints of a run, oldest first."""
    return sorted((run / CHECKPOINTS).glob(CHECKPOINT))

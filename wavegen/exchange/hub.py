"""A model as a repository of the Hugging Face Hub: weights, config and a card."""

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wavegen.checkpoint import (
    DEFAULT_VOICE,
    EMA,
    MODEL,
    WEIGHTS,
    find_model,
    load_checkpoint,
    load_vocoder,
    save_checkpoint,
)
from wavegen.config import Config, to_yaml
from wavegen.errors import MissingDataError
from wavegen.files import results_folder
from wavegen.mel import PROFILES, MelSpec
from wavegen.vocoders import Vocoder

CONFIG, CARD, SCORES = "config.json", "README.md", "scores.csv"
UNKNOWN = "unknown"  # the Hub's own word for a licence that is not stated

Scores = dict[str, dict[str, float]]
"""System -> metric -> mean over the clips."""


class FrontMatter(Config):
    """What the head of a card states, for programs.

    Attributes:
        license: the licence's identifier on the Hub, such as ``"mit"``.
        library_name: the library that reads the model.
        pipeline_tag: the task that the Hub lists it under.
        tags: further words to find it by.
        data: its training data.
        scores: its scores.
        mel: the definition of the mels that it reads.
    """

    license: str
    library_name: Literal["wavegen"] = "wavegen"
    pipeline_tag: Literal["audio-to-audio"] = "audio-to-audio"
    tags: tuple[str, ...]
    data: str
    scores: Scores
    mel: MelSpec


def write_hub_folder(
    model: Path | str, folder: Path, *, licence: str | None = None, data: str | None = None, scores: Path | None = None
) -> Path:
    """Write a model as a folder that can be uploaded to the Hub, and that ``wavegen.load`` reads.

    It holds ``model.safetensors``, the EMA weights alone with wavegen's header; ``config.json``, that header for other
    programs; and ``README.md``, the card.

    Args:
        model: that of ``find_model``.
        folder: the folder to write. It must be new or empty, or hold an earlier export.
        licence: the licence's identifier on the Hub; by default ``"unknown"``, or that of the shipped voice.
        data: the training data, for the card; by default those that the model file names.
        scores: a folder with ``scores.csv``, as ``wavegen-evaluate`` writes; by default the samples of the run.

    Returns:
        The model's file.

    Raises:
        CheckpointError: the model does not exist, or is damaged.
        MissingDataError: ``scores`` holds no scores.
        OutputError: the folder holds something else, or cannot be written.
    """
    path = find_model(model)
    tensors, header = load_checkpoint(path)
    prefix = EMA if any(name.startswith(EMA) for name in tensors) else WEIGHTS
    weights = {EMA + name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    del header["format"]
    kept: dict[str, Any] = {
        name: header[name] for name in ("vocoder", "mel", "speakers", "recipe", "step", "imported") if name in header
    }

    vocoder = load_vocoder(path)
    front = FrontMatter(
        license=licence or ("mit" if path == DEFAULT_VOICE else UNKNOWN),
        tags=("vocoder", "mel-spectrogram", "speech-synthesis", kept["vocoder"]["name"]),
        data=data or _data(kept),
        scores=_scores(path.parent / "samples" if scores is None else scores, required=scores is not None),
        mel=vocoder.mel,
    )
    with results_folder(folder, [CARD, CONFIG, MODEL], is_ours=_is_export) as temporary:
        save_checkpoint(temporary / MODEL, weights, {"kind": "model", **kept})
        config = {"library_name": "wavegen", **kept}
        (temporary / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(_card(front, vocoder, kept), encoding="utf-8")
    return folder / MODEL


def _is_export(model: Path) -> bool:
    try:
        config = json.loads((model.parent / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library_name") == "wavegen"


def _data(header: Mapping[str, Any]) -> str:
    """What a model's header tells of its training data."""
    if "imported" in header:
        return f"not stated; the weights were imported from {header['imported']['from']}"
    description = header.get("recipe", {}).get("description")
    return f"not stated; the recipe is described as: {description}" if description else "not stated"


def _scores(folder: Path, *, required: bool) -> Scores:
    """The mean of each metric of each system."""
    path = folder / SCORES
    if not path.is_file():
        if required:
            raise MissingDataError(f"has no {SCORES}", where=folder, remedy="give a folder that wavegen-evaluate wrote")
        return {}
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for metric, cell in row.items():
                if metric not in ("clip", "system", "notes") and cell:
                    values[row["system"]][metric].append(float(cell))
    return {
        system: {metric: float(f"{statistics.fmean(cells):.4g}") for metric, cells in columns.items()}
        for system, columns in values.items()
    }


def _card(front: FrontMatter, vocoder: Vocoder, header: Mapping[str, Any]) -> str:
    """The card: a head for programs, then the same for people."""
    mel = front.mel
    millions = sum(parameter.numel() for parameter in vocoder.parameters()) / 1e6
    about = [
        f"It turns mel spectrograms into sound at {mel.sample_rate_hz} Hz, {mel.hop_length} samples per frame.",
        f"It has {millions:.1f} million parameters.",
    ]
    if "imported" in header:
        about.append(f"Its weights were imported from {header['imported']['from']}.")
    if vocoder.speakers:
        about.append(f"It knows the speakers {', '.join(vocoder.speakers)}.")
    definition = [
        (name, f"{len(value)} values" if isinstance(value, list) and len(value) > 2 else value)
        for name, value in mel.model_dump(mode="json", exclude_defaults=True).items()
    ]
    warning = ["A mel of another definition gives wrong sound, and its numbers do not show it."]
    if profile := next((name for name, spec in PROFILES.items() if spec == mel), None):
        warning.insert(0, f"This is wavegen's profile `{profile}`.")
    licence = front.license
    if licence == UNKNOWN:
        licence = "not stated; ask whoever trained the model before you use it"
    return f"""---
{to_yaml(front)}---

# A {header["vocoder"]["name"]} vocoder for wavegen

{" ".join(about)}

```python
import wavegen

vocoder = wavegen.load("hf://OWNER/NAME")  # or the path of this folder
samples = vocoder.synthesize(mel)  # [batch, {mel.n_mels}, frames] to [batch, frames * {mel.hop_length}]
```

## Mel definition

{" ".join(warning)}

| field | value |
|---|---|
{_rows(definition)}

## Scores

{_score_table(front.scores)}

## Data and licence

Data: {front.data}.

Licence: {licence}.
"""


def _rows(pairs: Sequence[tuple[str, Any]]) -> str:
    return "\n".join(f"| {key} | {value} |" for key, value in pairs)


def _score_table(scores: Scores) -> str:
    if not scores:
        return "Not measured."
    metrics = list(dict.fromkeys(metric for columns in scores.values() for metric in columns))
    head = f"| | {' | '.join(metrics)} |\n|{'---|' * (len(metrics) + 1)}\n"
    rows = [
        (system, " | ".join(str(columns.get(metric, "-")) for metric in metrics)) for system, columns in scores.items()
    ]
    return f"Means over clips.\n\n{head}{_rows(rows)}"

"""Copies the weights of a pickle to a safetensors file: ``python -I _unpickle.py FILE OUT [KEY …]``.

``foreign.read_weights`` runs this file as a process of its own, which knows nothing of its caller: no environment, no
input, a folder of its own. torch refuses every name in the pickle that is not part of a tensor (``weights_only=True``).
What it read is then searched for plain tensors; anything else ends the process with one line on standard output.
"""

import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import save_file

REFUSED = 3  # exit code


def main(path: Path, out: Path, keys: list[str]) -> None:
    """Copy the tensors of a dictionary.

    Args:
        path: a file that ``torch.save`` wrote.
        out: the safetensors file to write.
        keys: the path to the dictionary within the file, such as ``["model", "generator"]``; empty
            if it is all of the file.
    """
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > size:  # torch does not compress
                refuse("unpacks to more than it holds")

    # Read it.
    warnings.simplefilter("ignore")  # standard error is not shown
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        refuse(f"holds more than weights ({name[1]})" if name else "is not a file of plain weights")
    except Exception as error:  # whatever damage leads to
        refuse(f"is damaged or cut short ({type(error).__name__})")

    # Find the dictionary, and check that it holds plain tensors and nothing else.
    for key in keys:
        if not isinstance(weights, dict) or key not in weights:
            refuse(f"holds no {'.'.join(keys)}")
        weights = weights[key]
    if not isinstance(weights, dict) or not weights:
        refuse("holds no dictionary of weights")
    for name, weight in weights.items():
        if not isinstance(name, str) or not is_plain(weight):
            refuse(f"its entry {str(name)!r:.60} is not a plain tensor of floating-point numbers")
    # A tensor may repeat a few numbers of the file to any size.
    if sum(weight.numel() * weight.element_size() for weight in weights.values()) > size:
        refuse("its tensors are larger than the file")
    copies = {name: weight.detach().clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}
    save_file(copies, out)  # which refuses tensors that share memory


def is_plain(weight: Any) -> bool:
    """Whether this is a dense tensor of floating-point numbers in memory."""
    if not isinstance(weight, torch.Tensor) or weight.layout != torch.strided or weight.is_meta:
        return False
    return weight.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def refuse(what: str) -> NoReturn:
    """End the process; the caller shows ``what``."""
    print(what)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

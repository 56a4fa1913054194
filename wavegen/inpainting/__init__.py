"""Repairing recordings: where the damage is, what an inpainter and a vocoder put there, and the files."""

from wavegen.audio.interpolation import interpolate
from wavegen.inpainting.files import repair_file
from wavegen.inpainting.holes import Hole, detect_holes, holes_in, parse_holes, read_holes
from wavegen.inpainting.render import extend_band, fill_holes

__all__ = [
    "Hole",
    "detect_holes",
    "extend_band",
    "fill_holes",
    "holes_in",
    "interpolate",
    "parse_holes",
    "read_holes",
    "repair_file",
]

"""Repairing recordings: where the damage is, what an inpainter and a vocoder put there, and the files."""

from wavegen.audio.interpolation import interpolate
from wavegen.inpainting.files import repair_file
from wavegen.inpainting.holes import Hole, detect_holes, holes_in, parse_holes, read_holes
from wavegen.inpainting.live import LiveRepair, live_vocoder
from wavegen.inpainting.packets import StreamRepair, repair_as_stream
from wavegen.inpainting.render import extend_band, fill_holes

__all__ = [
    "Hole",
    "LiveRepair",
    "StreamRepair",
    "detect_holes",
    "extend_band",
    "fill_holes",
    "holes_in",
    "interpolate",
    "live_vocoder",
    "parse_holes",
    "read_holes",
    "repair_as_stream",
    "repair_file",
]

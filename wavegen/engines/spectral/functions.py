"""The compiled functions of the engine as Python calls them: checked for nothing, so only the engine may call them."""

from typing import Any, NamedTuple

from numba import njit

from wavegen.engines import simd
from wavegen.engines.compilation import CompiledOnce
from wavegen.engines.packed import arena, int8, products
from wavegen.engines.spectral import bands, excitation, filters, predictors, rows, spectra
from wavegen.source import _kernels


class Functions(NamedTuple):
    """Functions of the modules that are compiled, by name; see there."""

    invert: Any
    frame_signal: Any
    overlap_add: Any
    inverse_envelope: Any
    impose: Any
    project: Any
    convolve_and_normalise: Any
    run_blocks: Any
    run_layer: Any
    all_pole: Any
    excite: Any
    predict: Any


def _define(fingerprint: int, cached: bool) -> Functions:
    """Define the functions; ``CompiledOnce`` says why each returns the fingerprint."""
    compiled = njit(nogil=True, cache=cached, error_model="numpy", _nrt=False)

    @compiled
    def invert(*arguments: Any) -> Any:
        bands.invert(*arguments)
        return fingerprint

    @compiled
    def frame_signal(*arguments: Any) -> Any:
        spectra.frame_signal(*arguments)
        return fingerprint

    @compiled
    def overlap_add(*arguments: Any) -> Any:
        spectra.overlap_add(*arguments)
        return fingerprint

    @compiled
    def inverse_envelope(*arguments: Any) -> Any:
        spectra.inverse_envelope(*arguments)
        return fingerprint

    @compiled
    def impose(*arguments: Any) -> Any:
        spectra.impose(*arguments)
        return fingerprint

    @compiled
    def project(*arguments: Any) -> Any:
        spectra.project(*arguments)
        return fingerprint

    @compiled
    def convolve_and_normalise(*arguments: Any) -> Any:
        rows.convolve_and_normalise(*arguments)
        return fingerprint

    @compiled
    def run_blocks(*arguments: Any) -> Any:
        rows.run_blocks(*arguments)
        return fingerprint

    @compiled
    def run_layer(*arguments: Any) -> Any:
        rows.run_layer(*arguments)
        return fingerprint

    @compiled
    def all_pole(*arguments: Any) -> Any:
        filters.all_pole(*arguments)
        return fingerprint

    @compiled
    def excite(*arguments: Any) -> Any:
        excitation.excite(*arguments)
        return fingerprint

    @compiled
    def predict(*arguments: Any) -> Any:
        predictors.predict(*arguments)
        return fingerprint

    return Functions(
        invert, frame_signal, overlap_add, inverse_envelope, impose, project, convolve_and_normalise, run_blocks,
        run_layer, all_pole, excite, predict,
    )  # fmt: skip


COMPILED = (simd, arena, int8, products, bands, spectra, rows, filters, excitation, predictors, _kernels)
"""The modules whose functions and constants are compiled; the cache is keyed by their source."""
FUNCTIONS = CompiledOnce(_define, COMPILED)

"""The source of a voice from a magnitude spectrum: prediction, excitation, pitch. Importing it loads torch only."""

from wavegen.source.excitation import PulseState, initial_pulse_state, pulse_train
from wavegen.source.linear_prediction import (
    LinearPrediction,
    Predictor,
    levinson,
    prediction_error,
    synthesise_from_error,
)
from wavegen.source.pitch import Pitch, PitchNetwork
from wavegen.source.shaped import HIGHEST_F0_HZ, ShapedSource, SourceState, hold_last

__all__ = [
    "HIGHEST_F0_HZ",
    "LinearPrediction",
    "Pitch",
    "PitchNetwork",
    "Predictor",
    "PulseState",
    "ShapedSource",
    "SourceState",
    "hold_last",
    "initial_pulse_state",
    "levinson",
    "prediction_error",
    "pulse_train",
    "synthesise_from_error",
]

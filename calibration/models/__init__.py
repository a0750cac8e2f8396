"""Calibration models, by the name that ``mcatrain fit --model`` takes."""

from calibration.models.amplitude_response import AmplitudeResponse
from calibration.models.base import CalibrationModel
from calibration.models.drift import Drift
from calibration.models.read_noise import ReadNoise
from calibration.models.relaxation import Relaxation
from calibration.models.set_response import SetResponse
from calibration.models.step_response import StepResponse
from calibration.models.table import Table

MODELS: dict[str, type[CalibrationModel]] = {
    model.name: model
    for model in (SetResponse, Drift, ReadNoise, StepResponse, Table, Relaxation, AmplitudeResponse)
}

__all__ = [
    "MODELS",
    "AmplitudeResponse",
    "Drift",
    "ReadNoise",
    "Relaxation",
    "SetResponse",
    "StepResponse",
    "Table",
]

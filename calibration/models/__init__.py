"""Calibration models, by the name that ``mcatrain fit --model`` takes."""

from calibration.models.base import CalibrationModel
from calibration.models.relaxation import Relaxation
from calibration.models.set_response import SetResponse

MODELS: dict[str, type[CalibrationModel]] = {
    model.name: model for model in (SetResponse, Relaxation)
}

__all__ = ["MODELS", "Relaxation", "SetResponse"]

"""Calibration models, by the name that ``mcatrain fit --model`` takes."""

from calibration.models.set_response import SetResponse

MODELS = {SetResponse.name: SetResponse}

__all__ = ["MODELS", "SetResponse"]

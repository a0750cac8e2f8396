"""Training of neural networks on simulated analog memory, by MCA, by RPU, or digitally."""

from devicemodels.errors import InputError
from mcatrain.clock import Clock
from mcatrain.nn.attention import AnalogAttention
from mcatrain.nn.conv import AnalogConv
from mcatrain.nn.convert import convert, unconvert
from mcatrain.nn.linear import AnalogLinear
from mcatrain.nn.options import LayerOptions
from mcatrain.nn.recurrent import AnalogRecurrent
from mcatrain.optim.mca import MCA
from mcatrain.optim.rpu import RPU
from mcatrain.periphery import Converters, Periphery
from mcatrain.run.frames import Runs, load_runs
from mcatrain.tile import Tile, tiles

__version__ = "0.1.0"

__all__ = [
    "MCA",
    "RPU",
    "AnalogAttention",
    "AnalogConv",
    "AnalogLinear",
    "AnalogRecurrent",
    "Clock",
    "Converters",
    "InputError",
    "LayerOptions",
    "Periphery",
    "Runs",
    "Tile",
    "convert",
    "load_runs",
    "tiles",
    "unconvert",
]

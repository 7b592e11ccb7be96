"""Aggregators: coefficients of the update from the Gramian and the task weights, one method a file.

linear, equal                       the weighted sum of the gradients, and the plain one of the same size
mgda, pcgrad, cagrad, imtl_g,
aligned_mtl, nash_mtl               published methods; solve_nash and NashSolution say how Nash-MTL was solved
came_grad_coefficients              CAME-Grad as an aggregator
came_grad_stages                    with all that leads to its coefficients, CAMEGradCoefficients
came_grad, CAMEGradResult           CAME-Grad on the gradients themselves
CAMEGradOptions, DEFAULTS           its hyperparameters, checked, and those of the paper
ScheduledScalarization,
WeightSchedule, ScheduleError       weights that are a function of the step, and the file that keeps them
AGGREGATORS, aggregator, TORCHJD,
parse_options                       aggregators by name, with options written as in ``cagrad:c=0.4``
Aggregator, JacobianAggregator,
check_aggregator                    what an aggregator is
"""

from optimizers.aggregators._aligned_mtl import aligned_mtl
from optimizers.aggregators._cagrad import cagrad
from optimizers.aggregators._came_grad import (
    DEFAULTS,
    CAMEGradCoefficients,
    CAMEGradOptions,
    Center,
    Fusion,
    came_grad_coefficients,
    came_grad_stages,
)
from optimizers.aggregators._came_grad_update import CAMEGradResult, came_grad
from optimizers.aggregators._imtl_g import imtl_g
from optimizers.aggregators._linear import linear
from optimizers.aggregators._mgda import mgda
from optimizers.aggregators._nash_mtl import NashSolution, nash_mtl, solve_nash
from optimizers.aggregators._pcgrad import pcgrad
from optimizers.aggregators._schedule import (
    ScheduledScalarization,
    ScheduleError,
    WeightSchedule,
    schedule_heading,
    schedule_row,
)
from optimizers.aggregators.base import Aggregator, JacobianAggregator, check_aggregator
from optimizers.aggregators.by_name import AGGREGATORS, TORCHJD, aggregator, equal, parse_options

__all__ = [
    "AGGREGATORS",
    "DEFAULTS",
    "TORCHJD",
    "Aggregator",
    "CAMEGradCoefficients",
    "CAMEGradOptions",
    "CAMEGradResult",
    "Center",
    "Fusion",
    "JacobianAggregator",
    "NashSolution",
    "ScheduleError",
    "ScheduledScalarization",
    "WeightSchedule",
    "aggregator",
    "aligned_mtl",
    "cagrad",
    "came_grad",
    "came_grad_coefficients",
    "came_grad_stages",
    "check_aggregator",
    "equal",
    "imtl_g",
    "linear",
    "mgda",
    "nash_mtl",
    "parse_options",
    "pcgrad",
    "schedule_heading",
    "schedule_row",
    "solve_nash",
]

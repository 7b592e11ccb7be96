"""A conformance suite for aggregators: what is true of a method, measured on matrices that could refute it.

    pytest --pyargs optimizers.testing --aggregator mypkg:MyAggregator
    python -m optimizers.testing mypkg:MyAggregator

print a table property × verdict, with the smallest counterexample that hypothesis found. From Python:

    conformance   the verdicts on a target
    subject       what the checks call: a target of any accepted kind behind one interface
    PROPERTIES    the named checks, with their statements
    strategies    hypothesis strategies for gradient matrices of known kinds

A target is a function ``(gramian, task_weights) -> coefficients``, a function of the (K, d) matrix giving (d,), or an
aggregator or weighting of TorchJD, class or instance. Hypothesis is needed: ``pip install 'sde-mtl[testing]'``.
"""

import importlib

try:
    importlib.import_module("hypothesis")
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise ImportError("optimizers.testing needs hypothesis; pip install 'sde-mtl[testing]'") from error

from optimizers.testing import strategies
from optimizers.testing._subject import Subject, load, subject
from optimizers.testing.properties import PROPERTIES, Property
from optimizers.testing.verdict import Verdict, conformance, table

__all__ = [
    "PROPERTIES",
    "Property",
    "Subject",
    "Verdict",
    "conformance",
    "load",
    "strategies",
    "subject",
    "table",
]

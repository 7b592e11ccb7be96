"""A training run: set-up, batches, step, checkpoints, journal.

setup                                   device, corpus, model, optimizer
run                                     model, optimizer and random states in progress, and the step
batches, schedule, activation_memory    what a step sees, its learning rate, and its memory
validation                              losses on studies that were not trained on
checkpoint, journal, coefficients, logging   what is written on the way
"""

from rrg.training.coefficients import CoefficientLog, mean_coefficients
from rrg.training.journal import Journal
from rrg.training.logging import log_frozen, open_log, record
from rrg.training.run import TrainingRun
from rrg.training.setup import build_model, load_corpus, optimizer_meta, select_device
from rrg.training.validation import lowest, named, validation_losses

__all__ = [
    "CoefficientLog",
    "Journal",
    "TrainingRun",
    "build_model",
    "load_corpus",
    "log_frozen",
    "lowest",
    "mean_coefficients",
    "named",
    "open_log",
    "optimizer_meta",
    "record",
    "select_device",
    "validation_losses",
]

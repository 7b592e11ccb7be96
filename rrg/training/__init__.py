"""A training run: set-up, batches, step, checkpoints, journal.

setup                                   device, corpus, model, optimizer
run                                     model, optimizer and random states in progress, and the step
batches, schedule, activation_memory    what a step sees, its learning rate, and its memory
checkpoint, journal, logging            what is written on the way
"""

from rrg.training.journal import Journal
from rrg.training.logging import log_frozen, open_log, record
from rrg.training.run import TrainingRun
from rrg.training.setup import build_model, load_corpus, optimizer_meta, select_device

__all__ = [
    "Journal",
    "TrainingRun",
    "build_model",
    "load_corpus",
    "log_frozen",
    "open_log",
    "optimizer_meta",
    "record",
    "select_device",
]

"""The training step around any torch optimizer.

    losses → task gradients → Gramian → coefficients → weighted sum → .grad

step            what users call, and the line above
came_grad       the same with CAME-Grad as its aggregator
micro_batches   losses, checked; their task gradients, added up
joint_update    from task gradients to the update
coefficients    the aggregator's solver, averages of Gramians, reuse of coefficients
trainable       parameters, shared or not, and their .grad
features        the line stopped at a shared representation
distributed     averages over processes
diagnostics     what a step reports
options         checks of options and of saved states
"""

from optimizers.training.came_grad import CAMEGrad, CAMEGradAggregator
from optimizers.training.diagnostics import GradientMemory, StepDiagnostics
from optimizers.training.step import MultiTaskOptimizer

__all__ = ["CAMEGrad", "CAMEGradAggregator", "GradientMemory", "MultiTaskOptimizer", "StepDiagnostics"]

"""Task gradients, their Gramian, their weighted sum, and refusals of what is none of these.

task_gradients, partial_gradients   one gradient a task, by sequential ``autograd.grad``
gramian, gramian_of_parameters      their inner products, accumulated in float64
weighted_sum                        the update, from gradients given parameter by parameter
check_gradients, check_gramian,
check_task_weights                  errors that name what is wrong
"""

from optimizers.gradients._gramian import gramian, gramian_of_parameters
from optimizers.gradients._task_gradients import partial_gradients, task_gradients
from optimizers.gradients._weighted_sum import weighted_sum
from optimizers.gradients.checks import check_gradients, check_gramian, check_task_weights

__all__ = [
    "check_gradients",
    "check_gramian",
    "check_task_weights",
    "gramian",
    "gramian_of_parameters",
    "partial_gradients",
    "task_gradients",
    "weighted_sum",
]

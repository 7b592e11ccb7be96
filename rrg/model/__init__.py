"""The report generator and the losses of its tasks.

config                          tasks and architecture
generator                       images → report, condition states, embeddings
encoder, text_encoder, decoder  its parts: images, reports, and the language model with its search
retrieval                       the memory of training reports
tasks                           the losses
"""

from rrg.model.config import TASKS, ModelConfig
from rrg.model.generator import Output, ReportGenerator, needed
from rrg.model.tasks import DEFAULT_WEIGHTS, task_losses

__all__ = ["DEFAULT_WEIGHTS", "TASKS", "ModelConfig", "Output", "ReportGenerator", "needed", "task_losses"]

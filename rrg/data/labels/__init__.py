"""Labels of the 14 conditions: from the text of a report by rules, and from the experts' tags.

``python -m rrg.data.labels`` measures how far the two agree.
"""

from rrg.data.labels.mesh import label_findings, mesh_findings, mesh_labels
from rrg.data.labels.rules import label

__all__ = ["label", "label_findings", "mesh_findings", "mesh_labels"]

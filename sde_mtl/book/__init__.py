"""What the pages of the book call beside the packages that they explain.

glue, Table, checks, legible         values, tables and figures of a notebook
kept_result, provenances             results that take long to make, and the commands that made them
read_analyses, read_excerpt,         what those files hold; ``python -m sde_mtl.book`` makes phases and excerpts
read_phases, read_training
claims_table, verdict_bars           the claims as a table and as a picture
answer                               the numbers of the introduction's answer
differences, forest                  trained report generators against each other
harm_under_noise, predicted_harm     how often noise makes the weighted sum harm a task
TwoHeads, batches, cosine_figure     a model with two tasks that trains in a notebook
read_import_graph, draw_house        which module imports which, and the picture of it
"""

from sde_mtl.book._glue import glue
from sde_mtl.book.analyses import AnalysisError, read_analyses
from sde_mtl.book.claims import claims_table, verdict_bars
from sde_mtl.book.excerpts import excerpt, read_excerpt
from sde_mtl.book.house import draw_house
from sde_mtl.book.import_graph import read_import_graph
from sde_mtl.book.noisy_harm import HarmShare, harm_under_noise, predicted_harm
from sde_mtl.book.notebook import Table, checks, legible
from sde_mtl.book.phases import read_phases, write_phases
from sde_mtl.book.results import Provenance, kept_result, provenances
from sde_mtl.book.summary import answer
from sde_mtl.book.training import Difference, differences, forest, read_training
from sde_mtl.book.two_heads import TwoHeads, batches, cosine_figure

__all__ = [
    "AnalysisError",
    "Difference",
    "HarmShare",
    "Provenance",
    "Table",
    "TwoHeads",
    "answer",
    "batches",
    "checks",
    "claims_table",
    "cosine_figure",
    "differences",
    "draw_house",
    "excerpt",
    "forest",
    "glue",
    "harm_under_noise",
    "kept_result",
    "legible",
    "predicted_harm",
    "provenances",
    "read_analyses",
    "read_excerpt",
    "read_import_graph",
    "read_phases",
    "read_training",
    "verdict_bars",
    "write_phases",
]

"""Scores of generated reports: n-gram overlap, and findings; and the page that shows them.

nlg, captions                   BLEU and ROUGE-L; CIDEr and METEOR
clinical                        clinical efficacy, on the states of the 14 conditions
labeller, chexbert, wordpiece   what reads those states from a text
samples                         reports, images and scores as a page
"""

from rrg.metrics.captions import cider, meteor
from rrg.metrics.clinical import LABEL_SETS, POLICIES, clinical_efficacy, majority, score_name, tabled
from rrg.metrics.labeller import Labeller, RuleLabeller, load_labeller
from rrg.metrics.nlg import bleu, rouge_l
from rrg.metrics.samples import number, write_samples

__all__ = [
    "LABEL_SETS",
    "POLICIES",
    "Labeller",
    "RuleLabeller",
    "bleu",
    "cider",
    "clinical_efficacy",
    "load_labeller",
    "majority",
    "meteor",
    "number",
    "rouge_l",
    "score_name",
    "tabled",
    "write_samples",
]

"""Studies: reports and images from an annotation (r2gen), or real reports (openi) or ones from a grammar (phantom) with
images rendered from their findings.

    study                     what a study and a corpus are
    annotations, problems     an annotation.json read and checked
    openi, archives           the reports of the Indiana University collection
    grammar, phantom          made-up reports, and the drawing that stands for their radiograph
    images                    pixels of a study
    labels                    the 14 conditions of a report
    tokenizer, corpus         a corpus by name, and as tensors
"""

from rrg.data.corpus import ReportDataset, load
from rrg.data.images import DEVIATION, MEAN, BrokenImage, Pixels, study_images
from rrg.data.openi import attribution, read_reports
from rrg.data.study import CONDITIONS, SPLITS, Corpus, LabelState, Split, Study
from rrg.data.tokenizer import BOS, EOS, PAD, Tokenizer

__all__ = [
    "BOS",
    "CONDITIONS",
    "DEVIATION",
    "EOS",
    "MEAN",
    "PAD",
    "SPLITS",
    "BrokenImage",
    "Corpus",
    "LabelState",
    "Pixels",
    "ReportDataset",
    "Split",
    "Study",
    "Tokenizer",
    "attribution",
    "load",
    "read_reports",
    "study_images",
]

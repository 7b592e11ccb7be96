"""Make a data set in R2Gen's format, an annotation.json and its images: IU X-Ray, MIMIC-CXR, or a matched pair.

Each preparation writes its annotation last and whole; one that was interrupted goes on where it was.
"""

from rrg.prepare.iu_xray import IuXrayConfig, prepare_iu_xray
from rrg.prepare.mimic_cxr import MimicCxrConfig, prepare_mimic_cxr
from rrg.prepare.pair import PairConfig, prepare_pair

__all__ = [
    "IuXrayConfig",
    "MimicCxrConfig",
    "PairConfig",
    "prepare_iu_xray",
    "prepare_mimic_cxr",
    "prepare_pair",
]

r"""Rule-based labels: report text → 14 conditions × {blank, positive, negative, uncertain}.

In the manner of NegEx and the CheXpert labeller: mentions are found sentence by sentence, each is classified
by the negation or uncertainty cues whose scope reaches it, and a condition takes the strongest of its
mentions (positive, then uncertain, then negative). "Likely", "compatible with" and the like commit the
reader and count as positive. Rules written for this project; agreement with the experts' MeSH tags is
measured by ``python -m rrg.data.labels`` and shown in ``book/labeller.md``.
"""

import re

from rrg.data.study import CONDITIONS, LabelState

NORMAL = r"(?:normal|unremarkable|within normal limits|stable|not enlarged|clear|intact)"
BIG = r"(?:enlarged|enlargement|large|prominent|prominence|widen\w*|wide)"
HEART = r"(?:heart|cardiac (?:silhouette|contours?|shadow|size)|cardiomediastinal (?:silhouette|contours?))"

MENTIONS: dict[str, str] = {
    "Enlarged Cardiomediastinum": rf"{BIG} (?:of the )?(?:superior |upper )?(?:cardio)?mediastin\w+"
    rf"|mediastin(?:um|al)(?: \w+){{0,4}} {BIG}|cardiomediastinal (?:silhouette|contours?)(?: \w+){{0,4}} {BIG}",
    "Cardiomegaly": rf"cardiomegaly|{HEART}(?: \w+){{0,6}} (?:enlarged|enlargement|large|prominent|upper limits)"
    rf"|(?:enlarged|prominent|enlargement of the) (?:heart|cardiac)|cardiac enlargement",
    "Lung Opacity": r"opacit\w+|opacification|infiltrat\w+|air ?space (?:disease|process)|interstitial (?:disease"
    r"|changes|prominence|thickening|infiltrates)|airspace consolidation|(?:prominent|increased|coarse\w*)"
    r"(?: \w+){0,2} (?:interstitial|bronchovascular|lung) markings|markings(?: \w+){0,4} (?:prominent|increased)",
    "Lung Lesion": r"nodul\w+|mass(?:es)?\b|lesions?|neoplas\w+|carcinoma|tumou?rs?|malignan\w+|metasta\w+|cavitary",
    "Edema": r"edema|(?:vascular|venous|pulmonary) congestion|congestive (?:heart )?failure|heart failure|chf\b"
    r"|cephalization|(?:pulmonary )?vascular (?:prominence|engorgement|redistribution)",
    "Consolidation": r"consolidat\w+",
    "Pneumonia": r"pneumonia\w*|pneumonitis|infectious (?:process|etiology|infiltrate)|infection",
    "Atelectasis": r"atelecta\w+|volume loss|(?:lobe|lobar|lung) collapse",
    "Pneumothorax": r"(?:hydro)?pneumothora(?:x|ces)",
    "Pleural Effusion": r"(?<!pericardial )effusions?|pleural fluid|hydropneumothorax|hemothorax",
    "Pleural Other": r"pleural(?: \w+){0,2} (?:thickening|plaques?|scarring|calcifications?|disease|reaction)"
    r"|fibrothorax|(?:apical|pleuroparenchymal) (?:pleural )?(?:thickening|capping|cap)",
    "Fracture": r"fractur\w+",
    "Support Devices": r"catheters?|\btubes?\b|picc|port(?:-a-cath| ?acath)?\b(?! of)|pace ?makers?|pacing|icd\b"
    r"|defibrillator|\bleads?\b|stents?\b|prosthe\w+|(?:valve|aortic valve|mitral valve) replacement"
    r"|sternotomy|\bwires?\b|\bclips?\b|hardware|sutures?\b|medical devices?|central (?:venous )?line"
    r"|\bstimulator|tracheostomy|fusion (?:plate|hardware)|\bscrews?\b|\brods?\b|cabg",
}
DENIALS: dict[str, str] = {
    "Enlarged Cardiomediastinum": rf"(?:cardio)?mediastin\w+(?: \w+){{0,9}} {NORMAL}"
    rf"|{NORMAL} (?:cardio)?mediastin\w+",
    "Cardiomegaly": rf"{HEART}(?: \w+){{0,9}} {NORMAL}|{NORMAL} {HEART}",
    "Lung Opacity": r"lungs?(?: \w+){0,5} clear|clear lungs|lung fields(?: \w+){0,3} clear",
    "Pleural Effusion": r"(?:costophrenic|pleural) (?:\w+ ){0,3}(?:sharp|clear|normal|unremarkable)",
    "Edema": rf"(?:pulmonary )?vascula\w+(?: \w+){{0,6}} {NORMAL}",
    "Fracture": r"(?:ribs|bon\w+|osseous|skeletal)(?: \w+){0,4} (?:intact|normal|unremarkable)",
}
NEGATION = (
    r"\b(?:no|not|without|negative for|free of|clear of|absence of|absent|denies|never|nor|neither|rather than"
    r"|resolution of|resolved|removal of|removed|ruled? out|exclude[sd]?|non)\b"
)
POST_NEGATION = (
    r"\b(?:(?:is|are|was|were|has been|have been) (?:not|no longer|absent|resolved|removed|excluded|ruled out)"
    r"|not (?:seen|identified|visualized|evident|present|appreciated)|(?:has|have) (?:resolved|cleared)|absent)\b"
)
UNCERTAINTY = (
    r"\b(?:possibl\w+|possibility|probabl\w+|perhaps|may|might|could|questionable|question of|suspect\w*"
    r"|suspicious|suggest\w*|concern\w*|cannot (?:be )?(?:exclude\w*|ruled out|rule out)|difficult to exclude"
    r"|not (?:be )?(?:entirely |completely )?excluded|versus|vs|equivocal|borderline|worrisome|potential\w*"
    r"|indeterminate|upper limits)\b"
)
UNDECIDED = r"\b(?:cannot|can not|could not|not|difficult to)(?: \w+){0,3} (?:exclude\w*|ruled? out)\b"
COMMA = re.compile(r"[,;:]")

_MENTIONS = {name: re.compile(pattern) for name, pattern in MENTIONS.items()}
_DENIALS = {name: re.compile(pattern) for name, pattern in DENIALS.items()}
_NEGATION, _POST = re.compile(NEGATION), re.compile(POST_NEGATION)
_UNCERTAIN, _UNDECIDED = re.compile(UNCERTAINTY), re.compile(UNDECIDED)
_CONJUNCTION = re.compile(r"\b(?:but|however|although|though|except|which|aside from|other than|apart from)\b")
_NOT_NEW = re.compile(r"\bno (?:significant |interval |acute |definite )*(?:change|interval)\b")
_STRENGTH = (LabelState.BLANK, LabelState.NEGATIVE, LabelState.UNCERTAIN, LabelState.POSITIVE)


def label(text: str) -> tuple[int, ...]:
    """The 14 states of a report, in the order of ``CONDITIONS``.

    "No Finding" is positive if no other condition but Support Devices is positive or uncertain, else blank.

    Args:
        text: a report as written, or cleaned.

    Returns:
        14 :class:`LabelState` numbers.

    Example:
        >>> states = label("The heart is mildly enlarged. No pneumothorax. Possible left effusion.")
        >>> [(c, LabelState(s).name) for c, s in zip(CONDITIONS, states) if s]
        [('Cardiomegaly', 'POSITIVE'), ('Pneumothorax', 'NEGATIVE'), ('Pleural Effusion', 'UNCERTAIN')]
    """
    states = dict.fromkeys(CONDITIONS, LabelState.BLANK)
    for sentence in _sentences(text):
        for condition, pattern in _MENTIONS.items():
            for match in pattern.finditer(sentence):
                _strengthen(states, condition, _classify(sentence, match))
        for condition, pattern in _DENIALS.items():
            match_ = pattern.search(sentence)
            if match_ is not None and not re.search(r"\b(?:not|abnormal)\b", match_.group()):
                _strengthen(states, condition, LabelState.NEGATIVE)
    abnormal = (LabelState.POSITIVE, LabelState.UNCERTAIN)
    others = [c for c in CONDITIONS if c not in ("No Finding", "Support Devices")]
    if not any(states[c] in abnormal for c in others):
        states["No Finding"] = LabelState.POSITIVE
    return tuple(int(states[c]) for c in CONDITIONS)


def _sentences(text: str) -> list[str]:
    return [" ".join(s.split()) for s in re.split(r"[.;!?](?=\s|$)|\n", text.lower()) if s.strip()]


def _classify(sentence: str, mention: re.Match[str]) -> LabelState:
    before = _CONJUNCTION.split(sentence[: mention.start()])[-1]
    after = _CONJUNCTION.split(sentence[mention.end() :])[0]
    near = COMMA.split(after)[0]
    whole = before + mention.group() + near
    if _UNDECIDED.search(whole):
        return LabelState.UNCERTAIN
    before = _NOT_NEW.sub("", before)
    if _NEGATION.search(before) or _POST.search(near):
        return LabelState.NEGATIVE
    if _UNCERTAIN.search(whole):
        return LabelState.UNCERTAIN
    return LabelState.POSITIVE


def _strengthen(states: dict[str, LabelState], condition: str, state: LabelState) -> None:
    if _STRENGTH.index(state) > _STRENGTH.index(states[condition]):
        states[condition] = state

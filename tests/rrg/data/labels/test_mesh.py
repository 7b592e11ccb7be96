from rrg.data.labels.mesh import label_findings, mesh_findings, mesh_labels
from rrg.data.study import Finding, LabelState

B, P = LabelState.BLANK, LabelState.POSITIVE


def test_mesh() -> None:
    assert mesh_labels(["normal"]) == {"No Finding"}
    assert mesh_labels(["thickening/pleura/apex"]) == {"Pleural Other"}
    assert mesh_labels(["cardiac shadow/enlarged/mild"]) == {"Cardiomegaly"}
    assert mesh_labels(["scoliosis"]) == frozenset()
    assert mesh_findings(["opacity/lung/upper lobe/left/patchy"]) == (Finding("Lung Opacity", "left", "upper", 0.6),)
    assert mesh_findings(["nodule/lung/bilateral/severe"])[0].side == "both"
    assert mesh_findings(["scoliosis/mild"]) == ()


def test_findings_from_labels() -> None:
    states = [B] * 14
    states[1], states[13] = P, P
    assert label_findings(states) == (Finding("Cardiomegaly"),)

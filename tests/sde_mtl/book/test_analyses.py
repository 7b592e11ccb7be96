import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from sde_mtl.book import AnalysisError, kept_result, read_analyses
from sde_mtl.figures.gradient_logs import diffusion, effective, prediction_against_measurement
from sde_mtl.gradient_logs import Interval

KEPT = ("analysis-demo.json", "analysis-radiographs.json")


def bars(axis: Axes) -> list[ErrorbarContainer]:
    return [c for c in axis.containers if isinstance(c, ErrorbarContainer)]


def without_nan(value: Any) -> Any:
    """The value with None, as files have it, for NaN."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("name", KEPT)
def test_reading_back_loses_nothing(name: str) -> None:
    path = kept_result(name)
    written = json.loads(path.read_text())["logs"]
    read = read_analyses(path)
    for analysis, log in zip(read, written, strict=True):
        now = analysis.as_dict()
        if "conflict_rate" in log:  # written when that was its name
            log["any_conflict_with_first"] = log.pop("conflict_rate")
        assert without_nan({name: now[name] for name in log}) == log
        assert all(not value for name, value in now.items() if name not in log), "what was not measured is empty"
    assert isinstance(read[0].diffusion[0].ratio, Interval)
    assert isinstance(read[0].empirical[0].effective[0].drift, Interval)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"logs": [{}]}', '{"logs": [{"name": "x"}]}'])
def test_a_foreign_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(AnalysisError, match=r"foreign\.json is no output of 'sde-mtl analyze"):
        read_analyses(path)
    with pytest.raises(AnalysisError, match=r"missing\.json"):
        read_analyses(tmp_path / "missing.json")


def test_ratios_are_drawn_where_they_were_measured_and_none_is_cut_off() -> None:
    groups = {name: read_analyses(kept_result(name)) for name in KEPT}
    figure = diffusion(*groups.values(), titles=list(groups))
    assert [axis.get_title() for axis in figure.axes] == list(groups)
    for axis, analyses in zip(figure.axes, groups.values(), strict=True):
        for container, analysis in zip(bars(axis), analyses, strict=True):
            drawn = np.asarray(container.lines[0].get_ydata())
            assert drawn.tolist() == [d.ratio.value for d in analysis.diffusion]
        assert axis.get_ylim()[1] > max(d.ratio.high for a in analyses for d in a.diffusion)


def test_effective_diffusion_is_drawn_with_both_predictions() -> None:
    (analysis, *_) = read_analyses(kept_result(KEPT[0]))
    axis = effective([analysis]).axes[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axis.lines}
    assert lines["linear: delta method (T4)"] == [p.restored_delta for p in analysis.empirical]
    assert lines["linear: Gaussian gradients"] == [p.restored_gaussian for p in analysis.empirical]
    assert np.asarray(bars(axis)[0].lines[0].get_ydata()).tolist() == [p.restored.value for p in analysis.empirical]


def test_predictions_are_drawn_against_measurements() -> None:
    analyses = read_analyses(kept_result(KEPT[0]))
    delta, gauss = bars(prediction_against_measurement(analyses).axes[0])
    points = [p for a in analyses for p in a.empirical]
    assert np.asarray(delta.lines[0].get_xdata()).tolist() == [p.restored_delta for p in points]
    assert np.asarray(gauss.lines[0].get_xdata()).tolist() == [p.restored_gaussian for p in points]
    assert np.asarray(gauss.lines[0].get_ydata()).tolist() == [p.restored.value for p in points]

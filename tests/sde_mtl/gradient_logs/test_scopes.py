import io
import json
from pathlib import Path

import numpy as np
import pytest
from logs import write_log
from rich.console import Console
from safetensors.numpy import load_file, save_file

from sde_mtl.book import read_analyses
from sde_mtl.cli import Analyze
from sde_mtl.gradient_logs import GradientLogError, LogAnalysis, analyze, read_log, verdicts
from sde_mtl.gradient_logs.tables import scope_table, weights_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", head=4.0, mean_cosine=-0.9, correlation=-0.6)


@pytest.fixture
def found(folder: Path) -> LogAnalysis:
    return analyze(read_log(folder), replicates=50)


def test_the_shared_log_is_the_trunk(folder: Path) -> None:
    log = read_log(folder)
    shared = log.shared
    assert [group.name for group in log.groups] == ["trunk", "head (rg)", "head (dc)"]
    assert log.gramian_groups.sum(1) == pytest.approx(log.gramian)
    off = ~np.eye(2, dtype=bool)
    assert shared.gramian[:, off] == pytest.approx(log.gramian[:, off])
    assert log.gramian[:, 0, 0] - shared.gramian[:, 0, 0] == pytest.approx(16)
    assert shared.meta["parameters"] == 40
    assert shared.frozen[0].mean_gramian == pytest.approx(log.frozen[0].mean_gramian - 16 * np.eye(2))
    assert shared.shared is None


def test_heads_leave_conflict_and_hide_harm(found: LogAnalysis) -> None:
    shared, whole = found.scopes["shared"], found.scopes["all"]
    assert shared.any_conflict_with_first.value == whole.any_conflict_with_first.value
    assert shared.harm_rate.value > whole.harm_rate.value + 0.2
    assert shared.mean_cosine.value < whole.mean_cosine.value < 0
    assert found.scope is shared


def test_coefficients_are_those_of_came_grad_at_each_step(folder: Path, found: LogAnalysis) -> None:
    import torch

    from optimizers import came_grad_coefficients

    c = came_grad_coefficients(torch.from_numpy(read_log(folder).shared.gramian), [1.0, 2.0]).numpy()
    shared = found.scopes["shared"]
    assert np.array(shared.coefficients) == pytest.approx(c / c.sum(1, keepdims=True))
    assert [w.value for w in shared.mean_weights] == pytest.approx((c.mean(0) / c.mean(0).sum()).tolist())
    factor = shared.mean_weights[1].value / shared.mean_weights[0].value / 2
    assert shared.hidden_factors[1].value == pytest.approx(factor)
    assert shared.hidden_factors[1].low < factor < shared.hidden_factors[1].high


def test_verdicts_are_about_the_shared_parameters(found: LogAnalysis) -> None:
    rows = {row.claim: row for row in verdicts([found])}
    expected = next(row for claim, row in rows.items() if claim.startswith("drift deviation in expectation"))
    assert expected.outcome == "seen"
    assert "z = −" in expected.measured.replace("-", "−")
    conflict = rows["task gradients conflict (g₀ᵀg_k < 0)"]
    assert "percentage points" in conflict.measured
    assert "by chance 50.0%" in conflict.measured


def test_what_is_absent_is_bounded(tmp_path: Path) -> None:
    agreeing = analyze(
        read_log(write_log(tmp_path / "log", mean_cosine=0.95, correlation=0.9, head=0.1)), replicates=50
    )
    rows = {row.claim.split(",")[0].split(" at step")[0]: row for row in verdicts([agreeing])}
    harm = rows["drift deviation: the weighted sum harms a task"]
    assert (harm.outcome, harm.measured.split(" of steps")[0]) == ("not seen", "0, at most 4.9%")
    assert "at least 0." in rows["drift deviation in expectation"].measured


def test_a_log_of_version_1_tells_of_all_parameters_and_says_so(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "old")
    log = read_log(folder)
    assert (log.shared, log.groups, log.gramian_groups) == (None, (), None)
    found = analyze(log, replicates=50)
    assert list(found.scopes) == ["all"]
    console = Console(record=True, width=200, quiet=False, file=io.StringIO())
    Analyze((folder,), replicates=50).run(console)
    assert console.export_text().count("this log does not tell the shared parameters apart") == 1


def test_the_old_name_still_works(found: LogAnalysis) -> None:
    with pytest.warns(DeprecationWarning, match="it is any_conflict_with_first; .*pair_conflict_share"):
        assert found.conflict_rate == found.any_conflict_with_first


def test_an_analysis_is_written_drawn_and_read_back(folder: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    Analyze((folder,), replicates=50, out=tmp_path / "out").run(console)
    written = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert written["figures"][0] == "hidden_weights.svg"
    assert all((tmp_path / "out" / name).stat().st_size > 1000 for name in written["figures"])
    (again,) = read_analyses(tmp_path / "out" / "analysis.json")
    direct = analyze(read_log(folder), replicates=50)
    assert again.scopes["shared"].hidden_factors == direct.scopes["shared"].hidden_factors
    assert again.scopes["shared"].frozen[0].with_joint == direct.scopes["shared"].frozen[0].with_joint
    assert [row.as_dict() for row in verdicts([again])] == written["verdicts"]
    assert console.export_text().index("what does CAME-Grad optimize here?") < 200
    for table in (weights_table([again]), scope_table([again])):
        assert table.row_count >= 6


def test_groups_of_another_number_are_refused(folder: Path) -> None:
    path = folder / "steps-000000.safetensors"
    shard = load_file(path)
    shard["gramian_groups"] = np.ascontiguousarray(shard["gramian_groups"][:, :2])
    save_file(shard, path)
    with pytest.raises(
        GradientLogError, match=r"Gramians of groups of shape \(25, 2, 2, 2\), expected \(25, 3, 2, 2\)"
    ):
        read_log(folder)


def test_a_log_that_an_older_version_began_is_one_of_all_parameters(folder: Path) -> None:
    path = folder / "steps-000000.safetensors"
    shard = load_file(path)
    save_file({name: shard[name] for name in ("step", "losses", "gramian", "projected")}, path)
    assert read_log(folder).shared is None

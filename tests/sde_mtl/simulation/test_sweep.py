import json
from pathlib import Path
from textwrap import dedent

import pyarrow.parquet as pq
import pytest
import torch

from optimizers.aggregators.by_name import aggregator
from sde_mtl.cli import main
from sde_mtl.problems import AdditiveNoise, Quadratic
from sde_mtl.simulation import Recursion, simulate, sweep_file
from sde_mtl.simulation import sweep as sweep_module
from sde_mtl.simulation.sweep import run_point, run_sweep
from sde_mtl.simulation.sweep_file import SweepError, read_sweep

assert sweep_file.__doc__
EXAMPLE = (
    dedent(sweep_file.__doc__.split("::\n")[1])
    .replace("steps = 500", "steps = 20")
    .replace("paths = 2000", "paths = 50\nrecord = 3")
)
"""The module's own example, made small."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(EXAMPLE)
    return path


def test_rows_are_those_of_the_simulations(file: Path) -> None:
    out = file.with_suffix(".parquet")
    table = run_sweep(read_sweep(file), out, jobs=1, backend="threading")
    assert table.equals(pq.read_table(out))
    assert len(table) == 2 * 2 * 3 * 2
    rows = [r for r in table.to_pylist() if (r["aggregator.nu"], r["noise.correlation"], r["step"]) == (0.6, -0.6, 20)]
    problem = Quadratic([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 0.7]]], [[1.0, 0.0], [-1.0, 0.5]])
    noise = AdditiveNoise.correlated([1.0, 1.0], correlation=-0.6, dimension=2)
    training = Recursion(problem, noise, aggregator("came-grad", nu=0.6), [1.0, 4.0], 0.01)
    direct = simulate(training, [2.0, 2.0], 20, paths=50)
    assert [r["coordinate"] for r in rows] == [0, 1]
    assert [r["mean"] for r in rows] == pytest.approx(direct.mean[0].tolist(), rel=1e-12)
    assert [r["variance"] for r in rows] == pytest.approx(direct.covariance[0].diagonal().tolist(), rel=1e-10)
    assert json.loads(pq.read_schema(out).metadata[b"sde_mtl.sweep"])["torch"] == torch.__version__
    assert not list(out.parent.glob("*.parts"))


def test_an_interrupted_sweep_continues(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, done = file.with_suffix(".parquet"), []

    def stopping(point):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(point)
        return run_point(point)

    monkeypatch.setattr(sweep_module, "run_point", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(read_sweep(file), out, jobs=1, backend="threading")
    assert not out.exists()
    parts = sorted((file.parent / "grid.parquet.parts").glob("*.parquet"))
    assert len(parts) >= 1
    parts[0].write_bytes(parts[0].read_bytes()[:40])  # a truncated part counts as missing
    again = []
    monkeypatch.setattr(sweep_module, "run_point", lambda point: again.append(point) or run_point(point))
    table = run_sweep(read_sweep(file), out, jobs=1, backend="threading")
    assert len(again) == 4 - len(parts) + 1
    assert len(table) == 24


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"came-grad"', '"came-grid"', "unknown aggregator 'came-grid'"),
        ('name = "came-grad"', "", "missing 'name'"),
        ("[0.2, 0.6]", "[0.2, 1.6]", r"aggregator.nu = 1.6, noise.correlation = -0.6: .*nu"),
        ("[-0.6, 0.0]", "[-1.6]", "noise.correlation = -1.6: covariance must be positive semidefinite"),
        ('"aggregator.nu"', '"optimizer.nu"', '"table.key" with a table of'),
        ("[0.2, 0.6]", "0.2", "must be a list of values"),
        ("paths = 50", "paths = 0", r"run.paths = 0 >= 2"),
        ("steps = 20", "step = 20", r"\[run\] has no step; it has"),
        ("initial = [2.0, 2.0]", "initial = [2.0]", "run.initial 2 numbers"),
        ('"quadratic"', '"cubic"', "problem.kind = 'cubic' must be one of quadratic"),
        ('"additive"', '"minibatch"', 'needs problem.kind = "regression"'),
        ("[noise]", "[noises]", r"unknown tables \['noises'\]"),
        ("[noise]", "[noise", "is no TOML"),
        ("record = 3", 'dynamics = "ode"', "run.dynamics = 'ode' must be one of"),
        ("record = 3", 'dynamics = "linear-sde"', "needs the linear aggregator"),
        ("record = 3", "time_step = 0.01", "time_step belongs to the SDEs"),
    ],
)
def test_bad_files_are_told_before_any_work(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(EXAMPLE.replace(old, new))
    with pytest.raises(SweepError, match=message):
        read_sweep(file)


def test_divergence_is_a_column(file: Path) -> None:
    steep = EXAMPLE.replace("learning_rate = 0.01", "learning_rate = 1.5").replace("steps = 20", "steps = 200")
    file.write_text(steep.replace('"came-grad"', '"linear"').replace('"aggregator.nu" = [0.2, 0.6]', ""))
    rows = run_point(read_sweep(file).points[0])
    assert all(row["diverged"] == 50 for row in rows)


def test_targets_and_minibatches(file: Path) -> None:
    file.write_text("""
[problem]
kind = "regression"
samples = 40
dimension = 2
tasks = 2
[noise]
kind = "minibatch"
batch_size = 4
[aggregator]
name = "cagrad"
[run]
task_weights = [1.0, 1.0]
initial = [3.0, 3.0]
learning_rate = 0.1
steps = 30
paths = 40
target = {coordinate = 0, above = 3.5}
dynamics = "effective-sde"
""")
    rows = run_point(read_sweep(file).points[0])
    assert 0 <= rows[0]["arrived"] < 1
    assert rows[0]["passage_rate"] < rows[0]["passage_rate_error"] * 40**0.5 + 1e-12


def test_a_local_dask_cluster_of_two_workers_gives_the_same(file: Path) -> None:
    distributed = pytest.importorskip("distributed")
    sweep = read_sweep(file)
    local = run_sweep(sweep, file.parent / "local.parquet", jobs=1, backend="threading")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        remote = run_sweep(sweep, file.parent / "remote.parquet", backend="dask", scheduler=address)
    assert remote.equals(local)
    with pytest.raises(SweepError, match="belong together"):
        run_sweep(sweep, file.parent / "x.parquet", backend="dask")


def test_the_command_shows_what_it_wrote(file: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["sde-mtl", "sweep", str(file), "--backend", "threading", "--jobs", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "4 points over aggregator.nu, noise.correlation: 24 rows" in " ".join(capsys.readouterr().out.split())

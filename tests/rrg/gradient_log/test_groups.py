import json
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from optimizers import gramian, task_gradients
from rrg.gradient_log.groups import GroupedProducts, positions_of, split_by_reach
from rrg.gradient_log.writer import GradientLogWriter
from rrg.model import ModelConfig, ReportGenerator, task_losses
from rrg.model.config import TASKS
from sde_mtl import read_log

META = {"tasks": ["a", "b"], "task_weights": [1, 1]}
SMALL = ModelConfig((8, 16), (1, 1), decoder_width=16, decoder_layers=1, text_layers=1, embedding_width=8)
SUBSETS = [("rg",), ("rg", "dc"), ("ita", "re"), ("dc", "re"), TASKS]


def flat(gradients: list[list[torch.Tensor]], positions: list[int]) -> torch.Tensor:
    return torch.stack([torch.cat([row[p].reshape(-1) for p in positions]) for row in gradients])


def of_model(tasks: tuple[str, ...], encoder: str = "convnext") -> tuple[ReportGenerator, list[list[torch.Tensor]]]:
    torch.manual_seed(0)
    config = ModelConfig(**{**vars(SMALL), "encoder": encoder})
    model = ReportGenerator(config, vocabulary_size=30, max_length=10, tasks=tasks, image_size=32, memory_size=4)
    batch = {
        "pixel_values": torch.randn(4, 1, 1, 32, 32), "input_ids": torch.randint(3, 30, (4, 10)),
        "labels": torch.randint(0, 4, (4, 14)), "index": torch.arange(4),
    }  # fmt: skip
    if "re" in tasks:
        model.memory.update(batch["index"], torch.randn(4, 8), batch["labels"])
    output = model(batch["pixel_values"], batch["input_ids"], batch["labels"], None, batch["index"])
    return model, task_gradients(task_losses(model, output, batch), list(model.parameters()))


@pytest.mark.parametrize("tasks", SUBSETS)
def test_parts_of_the_model_hold_every_parameter_once_and_are_reached_as_a_whole(tasks: tuple[str, ...]) -> None:
    model, gradients = of_model(tasks)
    named = model.parameter_groups()
    parameters = list(model.parameters())
    assert sorted(id(p) for p in chain(*named.values())) == sorted(map(id, parameters))
    groups = split_by_reach(positions_of(named, parameters), gradients, tasks)
    assert [group.name for group in groups] == list(positions_of(named, parameters)), "no part is split"
    shared = {p for group in groups if group.shared for p in group.tensors}
    assert shared == {i for i, p in enumerate(parameters) if any(p is q for q in model.shared_parameters())}


def test_blocks_of_a_vit_are_told_apart() -> None:
    model, _ = of_model(("rg", "dc"), encoder="vit")
    names = [name for name in model.parameter_groups() if name.startswith("encoder")]
    assert len(names) == 5, names
    assert names[0] == "encoder stem"


def test_groups_sum_to_the_whole_and_differ_from_the_shared_in_the_diagonal_only() -> None:
    model, gradients = of_model(TASKS)
    everything = list(range(len(gradients[0])))
    groups = split_by_reach(positions_of(model.parameter_groups(), list(model.parameters())), gradients, TASKS)
    found = GroupedProducts(groups, dim=64, seed=0)(gradients)
    whole = gramian(flat(gradients, everything))
    assert torch.allclose(found["gramian_groups"].sum(0), whole, rtol=1e-9)
    members = torch.tensor([group.shared for group in groups])
    shared = found["gramian_groups"][members].sum(0)
    off = ~torch.eye(4, dtype=torch.bool)
    assert torch.allclose(shared[off], whole[off], rtol=1e-6, atol=1e-9 * float(whole.max()))
    assert (shared.diagonal() < whole.diagonal()).sum() >= 2, "rg and dc have heads"


def test_projections_keep_products_of_the_shared_and_of_all_on_average() -> None:
    """Within 5 SE over 300 sketches; the diagonal of all would not fit the shared projection."""
    torch.manual_seed(1)
    own = torch.zeros(2, 300), torch.zeros(2, 200)
    own[0][0], own[1][1] = torch.randn(300), torch.randn(200)
    gradients = [[torch.randn(400), own[0][task], own[1][task]] for task in range(2)]
    groups = split_by_reach({"trunk": [0], "heads": [1, 2]}, gradients, ["a", "b"])
    assert [(group.name, group.shared) for group in groups] == [
        ("trunk", True), ("heads (a)", False), ("heads (b)", False),
    ]  # fmt: skip
    exact = {"projected": gramian(flat(gradients, [0, 1, 2])), "projected_shared": gramian(flat(gradients, [0]))}
    drawn = [GroupedProducts(groups, 64, seed)(gradients) for seed in range(0, 3000, 10)]
    for name, expected in exact.items():
        found = torch.stack([gramian(products[name]) for products in drawn])
        error = found.std(0) / len(drawn) ** 0.5
        assert ((found.mean(0) - expected).abs() < 5 * error).all()
    wrong = torch.stack([gramian(products["projected_shared"]) for products in drawn]).mean(0)
    assert (wrong - exact["projected"]).diagonal().abs().min() > 10


def test_a_vector_is_projected_as_a_gradient_is() -> None:
    gradients = [[torch.randn(40), torch.zeros(30)], [torch.randn(40), torch.randn(30)]]
    products = GroupedProducts(split_by_reach({}, gradients, ["a", "b"]), 32, 0)
    assert torch.allclose(products.project(gradients[1]), products(gradients)["projected"][1], atol=1e-6)


def test_a_task_that_reaches_a_group_later_is_counted_there() -> None:
    first = [[torch.ones(3), torch.zeros(2)], [torch.ones(3), torch.zeros(2)]]
    products = GroupedProducts(split_by_reach({"trunk": [0], "late": [1]}, first, ["a", "b"]), 16, 0)
    later = [[torch.ones(3), torch.ones(2)], [torch.ones(3), torch.zeros(2)]]
    found = products(later)
    assert found["gramian_groups"][1].tolist() == [[2, 0], [0, 0]]
    assert float(found["projected"][0].square().sum()) > float(found["projected_shared"][0].square().sum())


def test_wrong_groups_are_refused(tmp_path: Path) -> None:
    gradients = [[torch.ones(2), torch.ones(2)]] * 2
    for named in ({"x": [0, 0]}, {"x": [0], "y": [0, 1]}, {"x": [2]}):
        with pytest.raises(ValueError, match="each of the 2 parameters at most once"):
            split_by_reach(named, gradients, ["a", "b"])
    log = GradientLogWriter(tmp_path / "log", META, 5, dim=4)
    with pytest.raises(ValueError, match="of 5 parameters, got gradients of 4"):
        log.observe(gradients, torch.eye(2).double())


def test_a_resumed_log_keeps_its_groups(tmp_path: Path) -> None:
    """Also where the first gradients after it would have made others."""
    torch.manual_seed(0)
    steps = [[[torch.randn(4), torch.randn(3)], [torch.randn(4), torch.zeros(3)]] for _ in range(4)]
    steps[2][1][0] = torch.zeros(4)

    def write(folder: Path, first: int, last: int, resume: int | None) -> None:
        named = {"trunk": [0], "head": [1]}
        with GradientLogWriter(folder, META, 7, dim=8, groups=named, shard_steps=2, resume_step=resume) as log:
            for step in range(first, last):
                log.observe(steps[step], gramian(flat(steps[step], [0, 1])))
                log.end_step(step, [1.0, 1.0])

    write(tmp_path / "whole", 0, 4, None)
    write(tmp_path / "resumed", 0, 2, None)
    write(tmp_path / "resumed", 2, 4, 2)
    whole, resumed = read_log(tmp_path / "whole"), read_log(tmp_path / "resumed")
    assert whole.groups == resumed.groups
    assert [(group.name, group.reached_by, group.shared) for group in resumed.groups] == [
        ("trunk", ("a", "b"), True), ("head", ("a",), False),
    ]  # fmt: skip
    for name in ("gramian", "gramian_groups", "projected", "projected_shared"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name))
    assert json.loads((tmp_path / "resumed" / "meta.json").read_text())["version"] == 2


def test_frozen_groups_are_exact(tmp_path: Path) -> None:
    """Products of different micro-batches by the mean Gramian, for each group, are those of all pairs."""
    trunk, head = torch.nn.Parameter(torch.randn(5)), torch.nn.Parameter(torch.randn(3))
    batches = [torch.randn(3, 8).double() for _ in range(6)]
    log = GradientLogWriter(tmp_path / "log", META, 8, dim=16, groups={"trunk": [0], "head": [1]})
    log.log_frozen(
        0, batches, lambda b: [b[0, :5].float() @ trunk + b[1, :3].float() @ head, b[2, :5].float() @ trunk],
        [trunk, head],
    )  # fmt: skip
    log.observe([[torch.ones(5), torch.ones(3)], [torch.ones(5), torch.zeros(3)]], torch.eye(2).double())
    log.end_step(0, [0.0, 0.0])
    log.flush()
    frozen = read_log(tmp_path / "log").frozen[0]
    first = np.stack([[b[0, :5].float().numpy(), b[2, :5].float().numpy()] for b in batches]).astype(float)
    pairs = [first[a] @ first[b].T for a, b in combinations(range(6), 2)]
    expected = np.mean([(p + p.T) / 2 for p in pairs], 0)
    measured = (36 * frozen.mean_gramian_groups[0] - frozen.gramian_groups[:, 0].sum(0)) / 30
    assert measured == pytest.approx(expected, rel=1e-6)
    folded = frozen.projected.reshape(6, 2, 4, 4).sum(2)
    assert frozen.projected_groups.sum(1) == pytest.approx(folded, abs=1e-5)
    assert frozen.projected_groups[:, 1, 1] == pytest.approx(np.zeros((6, 4))), "the head is reached by one task"
    assert frozen.mean_gramian_groups.sum(0) == pytest.approx(frozen.mean_gramian, rel=1e-12)

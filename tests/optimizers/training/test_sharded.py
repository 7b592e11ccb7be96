"""Sharded parameters are refused, saying what to use instead."""

import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Replicate, distribute_tensor

from optimizers import CAMEGrad

REFUSED = r"FSDP2-sharded parameters \(DTensor\) are not supported.*Use DistributedDataParallel, or.*ZeroRedundancy"


@pytest.fixture(scope="module", autouse=True)
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    file = tmp_path_factory.mktemp("gloo") / "rendezvous"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_fsdp2_is_refused(model: nn.Module, mesh: DeviceMesh) -> None:
    fully_shard(model, mesh=mesh)
    with pytest.raises(TypeError, match=REFUSED):
        CAMEGrad(sgd(model))


def test_one_distributed_tensor_is_enough(model: nn.Module, mesh: DeviceMesh) -> None:
    model.trunk.bias = nn.Parameter(distribute_tensor(model.trunk.bias.data, mesh, [Replicate()]))
    with pytest.raises(TypeError, match=REFUSED):
        CAMEGrad(sgd(model))


def test_sharding_after_the_optimizer_was_built_is_noticed(model: nn.Module, x: Tensor, mesh: DeviceMesh) -> None:
    """The optimizer holds the parameters that the model had before; no loss reaches them."""
    optimizer = CAMEGrad(sgd(model))
    network = nn.Sequential(model.trunk, nn.Tanh(), model.report)
    fully_shard(network, mesh=mesh)
    output = network(x)
    with pytest.raises(ValueError, match="reach no parameter of the optimizer: was the model replaced, or sharded"):
        optimizer.step([output[:, 0].mean(), output.square().mean()])


def test_a_group_added_later_is_looked_at(model: nn.Module, x: Tensor, mesh: DeviceMesh) -> None:
    optimizer = CAMEGrad(sgd(model))
    late = nn.Parameter(distribute_tensor(torch.ones(3), mesh, [Replicate()]))
    optimizer.optimizer.add_param_group({"params": [late]})
    with pytest.raises(TypeError, match=REFUSED):
        optimizer.step(model.losses(x))


@pytest.mark.parametrize("use_orig_params", [False, True])
def test_the_older_fsdp_is_refused(model: nn.Module, use_orig_params: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and of one process
        network = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=use_orig_params)
    with pytest.raises(TypeError, match="FSDP-sharded parameters are not supported"):
        CAMEGrad(sgd(network))

"""Prepare data, train report generators, compare optimizers, evaluate them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from rich.console import Console
from tyro.conf import OmitArgPrefixes, subcommand

from rrg import compare, demo, evaluate, train
from rrg.command import command_line
from rrg.compare import CompareConfig
from rrg.config import TrainConfig
from rrg.demo import DemoConfig
from rrg.evaluate import EvaluateConfig
from rrg.prepare import (
    IuXrayConfig,
    MimicCxrConfig,
    PairConfig,
    prepare_iu_xray,
    prepare_mimic_cxr,
    prepare_pair,
)

Source = (
    Annotated[IuXrayConfig, subcommand("iu-xray", prefix_name=False)]
    | Annotated[MimicCxrConfig, subcommand("mimic-cxr", prefix_name=False)]
    | Annotated[PairConfig, subcommand("pair", prefix_name=False)]
)


@dataclass(frozen=True)
class Prepare:
    """Write an annotation.json and its images, as R2Gen uses, for rrg train --dataset r2gen."""

    source: OmitArgPrefixes[Source]


Command = (
    Annotated[Prepare, subcommand("prepare")]
    | Annotated[TrainConfig, subcommand("train")]
    | Annotated[CompareConfig, subcommand("compare")]
    | Annotated[EvaluateConfig, subcommand("evaluate")]
    | Annotated[DemoConfig, subcommand("demo")]
)
RUN: dict[type, Callable[[Any, Console], object]] = {
    IuXrayConfig: prepare_iu_xray,
    MimicCxrConfig: prepare_mimic_cxr,
    PairConfig: prepare_pair,
    TrainConfig: train.cli,
    CompareConfig: compare.cli,
    EvaluateConfig: evaluate.cli,
    DemoConfig: demo.cli,
}


def run(command: Any, console: Console) -> None:
    """Do what a :data:`Command` says."""
    options = command.source if isinstance(command, Prepare) else command
    RUN[type(options)](options, console)


def main() -> None:
    """Entry point of ``rrg``."""
    command_line(
        Command, run, __doc__, "interrupted; the same command continues, rrg train with --resume", prog="rrg", width=132
    )


if __name__ == "__main__":
    main()

"""Prepare data, train report generators, compare optimizers, evaluate them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, subcommand

from rrg import compare, demo, evaluate, train
from rrg.compare import CompareConfig
from rrg.config import TrainConfig
from rrg.demo import DemoConfig
from rrg.errors import shown
from rrg.evaluate import EvaluateConfig
from rrg.prepare.iu_xray import IuXrayConfig, prepare_iu_xray
from rrg.prepare.mimic_cxr import MimicCxrConfig, prepare_mimic_cxr
from rrg.prepare.pair import PairConfig, prepare_pair

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


def main() -> None:
    """Entry point of ``rrg``."""
    console = Console(width=None if sys.stdout.isatty() else 132)
    with shown(console, "interrupted; the same command continues, rrg train with --resume"):
        command: Any = tyro.cli(Command, prog="rrg", description=__doc__)
        options = command.source if isinstance(command, Prepare) else command
        RUN[type(options)](options, console)


if __name__ == "__main__":
    main()

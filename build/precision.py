#!/usr/bin/env python3
"""Put the precision into the ONNX graph: FP16, INT8 (Q/DQ), both; see nudenet_build/graph/precision.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nudenet_build.graph.export import DEFAULT_OUTPUT, DYNAMIC_OUTPUT, write_graph
from nudenet_build.graph.onnx_file import GraphError
from nudenet_build.graph.precision import Precision, PrecisionError, convert, summarise
from nudenet_build.outputs import check_output


def main(
    precision: Annotated[Precision, typer.Option(case_sensitive=False, help="Precision of the new graph.")],
    calibration_data: Annotated[Path | None, typer.Option(help="calib_data.npy, for INT8.")] = None,
    onnx_path: Annotated[
        Path | None,
        typer.Option("--onnx", help="FP32 graph. Default: model.onnx for INT8_FP16, else model.dynamic.onnx."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Default: model.<precision>.onnx beside the FP32 graph.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Layer group not to quantise instead of the measured ones.")
    ] = None,
    all_layers: Annotated[bool, typer.Option("--all-layers", help="Quantise every layer.")] = False,
) -> None:
    """Write a graph beside the FP32 one: FP16, INT8 (for the CPU engine), or INT8_FP16 (for TensorRT)."""
    onnx_path = onnx_path or (DEFAULT_OUTPUT if precision is Precision.INT8_FP16 else DYNAMIC_OUTPUT)
    target = output or onnx_path.parent / precision.file_name
    try:
        check_output(target, onnx_path, calibration_data)
        model = convert(precision, onnx_path, calibration_data, () if all_layers else keep)
        write_graph(model, target)
    except (GraphError, PrecisionError, OSError) as error:
        typer.echo(f"precision: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{target}: {summarise(model)}")


if __name__ == "__main__":
    typer.run(main)

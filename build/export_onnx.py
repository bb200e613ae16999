#!/usr/bin/env python3
"""Export the NudeNet detector as the ONNX graphs that `nudenet_trt` serves; nudenet_build/graph/export.py says how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nudenet_build.graph.export import (
    DEFAULT_OUTPUT,
    ExportError,
    build_dynamic_model,
    build_model,
    find_source,
    write_graph,
)
from nudenet_build.graph.onnx_file import GraphError
from nudenet_build.outputs import check_output
from nudenet_steps.preprocess.canvas import SPECIFIED


def export(
    output: Annotated[Path, typer.Option(help="Where to write the ONNX file.")] = DEFAULT_OUTPUT,
    height: Annotated[int | None, typer.Option(help="Input height in pixels: write this one size only.")] = None,
    width: Annotated[int | None, typer.Option(help="Input width in pixels: write this one size only.")] = None,
    source: Annotated[Path | None, typer.Option(help="320n.onnx; default: the nudenet package's.")] = None,
) -> None:
    """Export the NudeNet detector to ONNX with the tensors that nudenet_trt serves.

    Two graphs: model.onnx for 180x320, as nudenet_trt's config.pbtxt has it, and model.dynamic.onnx beside it for any
    canvas. With --height and --width one graph of that size.
    """
    chosen = height is not None or width is not None
    height = SPECIFIED.height if height is None else height
    width = SPECIFIED.width if width is None else width
    try:
        network = source or find_source()
        check_output(output, network)
        beside = output.with_suffix(f".dynamic{output.suffix}")
        dynamic = None
        if not chosen:
            check_output(beside, network)
            dynamic = build_dynamic_model(network)
        model = build_model(network, height, width)
        write_graph(model, output)
        if dynamic is not None:
            write_graph(dynamic, beside)
    except (ExportError, GraphError, OSError) as error:
        typer.echo(f"export_onnx: {error}", err=True)
        raise typer.Exit(2) from error
    rows = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    typer.echo(f"{output}: input [batch,3,{height},{width}] -> output [batch,{rows},6]")
    if dynamic is not None:
        typer.echo(f"{beside}: input [batch,3,height,width] -> output [batch,candidates,6]")


if __name__ == "__main__":
    typer.run(export)

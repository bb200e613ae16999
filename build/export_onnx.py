#!/usr/bin/env python3
"""Export the NudeNet detector as the ONNX graph that `nudenet_trt` serves; nudenet_build/graph/export.py says how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nudenet_build.graph.export import DEFAULT_OUTPUT, ExportError, build_model, find_source, write_atomically


def export(
    output: Annotated[Path, typer.Option(help="Where to write the ONNX file.")] = DEFAULT_OUTPUT,
    height: Annotated[int, typer.Option(help="Input height in pixels.")] = 180,
    width: Annotated[int, typer.Option(help="Input width in pixels.")] = 320,
    source: Annotated[Path | None, typer.Option(help="320n.onnx; default: the nudenet package's.")] = None,
) -> None:
    """Export the NudeNet detector to ONNX with the tensors that nudenet_trt serves."""
    try:
        model = build_model(source or find_source(), height, width)
    except (ExportError, OSError) as error:
        typer.echo(f"export_onnx: {error}", err=True)
        raise typer.Exit(2) from error
    write_atomically(model, output)
    rows = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    typer.echo(f"{output}: input [batch,3,{height},{width}] -> output [batch,{rows},6]")


if __name__ == "__main__":
    typer.run(export)

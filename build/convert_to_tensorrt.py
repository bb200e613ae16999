#!/usr/bin/env python3
"""Build ``model.plan``: the TensorRT engine that ``nudenet_trt`` serves, with its passport ``model.plan.json``.

FP32 graph -> graph of the wanted precision (no GPU needed) -> plan, for this TensorRT and this kind of GPU only.
``--precision INT8`` means INT8 convolutions and additions with the rest of the network in FP16; the box decode is
FP32 in every plan. Nothing falls back: what cannot be built is an error that names the remedy.

Exit status: 0 built; 1 built, but ``--test`` found that it disagrees, so it was not put in place; 2 not built.
"""

from __future__ import annotations

import enum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nudenet_build.evaluation import engine_check
from nudenet_build.graph import export as graph_export
from nudenet_build.graph import precision as graph_precision
from nudenet_build.trt import builder, cuda_device, plan_writer, runner, session
from nudenet_build.trt.progress import BuildProgress
from nudenet_steps.cuda import runtime

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_ONNX = graph_export.DEFAULT_OUTPUT
DEFAULT_OUTPUT = DEFAULT_ONNX.with_name("model.plan")
PREFERRED_BATCHES = (8, 4)  # of nudenet_trt/config.pbtxt; the plan is tuned for the largest that fits
LATENCY_RUNS = 200
HEIGHT, WIDTH = 180, 320  # what nudenet_trt serves; for another size run graph_export.py, then name its file in --onnx

console = Console()
errors = Console(stderr=True)


class Precision(str, enum.Enum):
    """What the trunk and head of the network compute in."""

    FP32 = "FP32"
    FP16 = "FP16"
    INT8 = "INT8"

    @property
    def in_plan(self) -> str:
        """As the passport names it."""
        return "INT8+FP16" if self is Precision.INT8 else self.value


def prepare_graph(precision: Precision, onnx_path: Path, calibration_data: Path | None, folder: Path) -> Path:
    """The graph to compile: the FP32 one itself, or one in `precision` written to `folder`.

    Raises:
        precision.PrecisionError: no FP32 graph, or missing or unfit calibration data.
    """
    if not onnx_path.is_file():
        raise graph_precision.PrecisionError(f"no FP32 graph at {onnx_path}; add --export-onnx to make it")
    if precision is Precision.FP32:
        return onnx_path
    kind = graph_precision.Precision.FP16 if precision is Precision.FP16 else graph_precision.Precision.INT8_FP16
    if precision is Precision.INT8 and calibration_data is None:
        raise graph_precision.PrecisionError(
            "--precision INT8 needs --calibration-data calib_data.npy: python build/collect_calibration_data.py "
            "--output calib_data.npy PICTURES_OR_VIDEOS makes it; for a plan without calibration say --precision FP16"
        )
    target = folder / kind.file_name
    with console.status(f"converting the graph to {precision.in_plan}"):
        model = graph_precision.convert(kind, onnx_path, calibration_data)
    graph_export.write_atomically(model, target)
    console.print(f"{target}: the graph in {precision.in_plan}")
    return target


def preferred_batch(max_batch: int) -> int:
    """The batch size to tune for: the largest preferred one within `max_batch`, else `max_batch`."""
    return next((batch for batch in PREFERRED_BATCHES if batch <= max_batch), max_batch)


def build(trt: ModuleType, graph: Path, options: builder.BuildOptions, timing_cache: Path | None) -> builder.BuiltPlan:
    """Compile `graph` with its progress on the terminal; keeps `timing_cache` up to date."""
    known = timing_cache.read_bytes() if timing_cache and timing_cache.is_file() else b""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        built = builder.build_plan(trt, graph, options, BuildProgress(progress), known)
    for warning in built.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")
    if timing_cache:
        plan_writer.plan_passport.write_bytes(timing_cache, built.timing_cache)
    return built


def run_test(
    trt: ModuleType,
    cuda: Any,
    built: builder.BuiltPlan,
    options: builder.BuildOptions,
    precision: Precision,
    onnx_path: Path,
    images: Path,
) -> tuple[dict[str, float], list[str]]:
    """Compare the plan with ONNX Runtime FP32 and time it; prints both.

    Returns:
        the figures for the passport, and what is worse than allowed.
    """
    limits = engine_check.LIMITS[precision.in_plan]
    inputs, geometries = engine_check.load_pictures(images, *built.input_shape[1:])
    reference = engine_check.reference_candidates(onnx_path, inputs)
    batches = range(options.min_batch, options.max_batch + 1)
    table = Table("batch", "median ms", "p99 ms", "pictures/s", title="GPU time without copies")
    with runner.open_engine(trt, cuda, built.plan, options.max_batch) as engine:
        agreement = engine_check.compare(engine.infer, inputs, geometries, reference, batches)
        faults = engine_check.faults(agreement, limits)
        for batch in [] if faults else batches:  # how fast a wrong answer comes does not matter
            rows = [i % len(inputs) for i in range(batch)]
            median, p99 = engine_check.median_and_p99(engine.latencies_ms(inputs[rows], LATENCY_RUNS))
            table.add_row(str(batch), f"{median:.3f}", f"{p99:.3f}", f"{1000 * batch / median:.0f}")
    if not faults:
        console.print(table)
    console.print(
        f"against ONNX Runtime FP32, {len(inputs)} pictures at batch {batches[0]} to {batches[-1]}: "
        f"F1 {agreement.f1:.4f} ({agreement.matched} matched, {agreement.missed} missed, {agreement.extra} extra), "
        f"mean IoU {agreement.mean_iou:.4f}, confidence changed by {agreement.max_confidence_change:.4f} at most"
    )
    return {"pictures": len(inputs), **agreement.as_dict()}, faults


def convert(
    precision: Annotated[Precision, typer.Option(case_sensitive=False, help="INT8 keeps FP16 around.")] = (
        Precision.FP16
    ),
    export_onnx_first: Annotated[bool, typer.Option("--export-onnx", help="Export the FP32 graph first.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Largest batch; config.pbtxt says 8.")] = 8,
    workspace: Annotated[float, typer.Option(min=0.0625, help="GPU memory for the kernels' scratch, in GB.")] = 2,
    calibration_data: Annotated[Path | None, typer.Option(help="calib_data.npy; INT8 needs it.")] = None,
    test: Annotated[bool, typer.Option("--test", help="Compare with ONNX Runtime FP32 and time the plan.")] = False,
    images: Annotated[Path, typer.Option(help="Folder of JPEG files for --test.")] = ROOT / "tests" / "data",
    onnx_path: Annotated[Path, typer.Option("--onnx", help="The FP32 graph.")] = DEFAULT_ONNX,
    output: Annotated[
        Path, typer.Option(help="Where the plan goes; the converted graph goes beside it.")
    ] = DEFAULT_OUTPUT,
    timing_cache: Annotated[Path | None, typer.Option(help="File that makes the next build faster.")] = None,
    opt_level: Annotated[int, typer.Option(min=0, max=5, help="0 builds fastest, 5 searches longest.")] = 3,
    device: Annotated[int, typer.Option(min=0, help="Which GPU to build for.")] = 0,
) -> None:
    """Build the TensorRT plan for this machine's TensorRT and GPU."""
    options = builder.BuildOptions(1, preferred_batch(batch_size), batch_size, workspace, opt_level)
    graph = None
    try:
        if export_onnx_first:
            model = graph_export.build_model(graph_export.find_source(), HEIGHT, WIDTH)
            graph_export.write_atomically(model, onnx_path)
        graph = prepare_graph(precision, onnx_path, calibration_data, output.parent)
        trt = session.load()
        cuda = runtime.load()
        gpu = cuda_device.select(cuda, device)
        console.print(
            f"TensorRT {trt.__version__}, {gpu.name} (compute capability {gpu.compute_capability}, "
            f"{gpu.free_bytes >> 20} of {gpu.total_bytes >> 20} MiB free)"
        )
        built = build(trt, graph, options, timing_cache)
        accuracy: dict[str, float] | None = None
        faults: list[str] = []
        if test:
            accuracy, faults = run_test(trt, cuda, built, options, precision, onnx_path, images)
        if faults:
            errors.print(
                f"convert_to_tensorrt: the plan disagrees with the FP32 graph: {'; '.join(faults)}. It was not put at "
                f"{output}. Build it again; if it stays, try another --opt-level or --precision",
                style="red",
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(1)
        passport = plan_writer.write(output, built, options, gpu, trt.__version__, precision.in_plan, graph, accuracy)
    except (
        graph_export.ExportError,
        graph_precision.PrecisionError,
        session.TensorRTError,
        runtime.CudaError,
        engine_check.CheckError,
        OSError,
    ) as error:
        ready = f" The graph to build from is ready: {graph}." if graph else ""
        errors.print(f"convert_to_tensorrt: {error}.{ready}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(
        f"{output}: {len(built.plan) >> 10} KiB, {passport.precision}, batch 1 to {options.max_batch} tuned for "
        f"{options.preferred_batch}; its passport: {plan_writer.plan_passport.path_for(output)}"
    )


if __name__ == "__main__":
    typer.run(convert)

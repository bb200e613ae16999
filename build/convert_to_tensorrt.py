#!/usr/bin/env python3
"""Build the engine that ``nudenet_trt`` serves, with its passport.

``--runtime tensorrt``: ``model.plan``, or ``model.live.plan`` with ``--live``, for this TensorRT and this kind of GPU
only. ``--runtime rtx``: ``model.rtx.engine`` of TensorRT for RTX, for the kinds of GPU that ``--for`` names, built
without one.

FP32 graph -> graph of the wanted precision (no GPU needed) -> engine. ``--precision INT8`` means INT8 convolutions and
additions with the rest of the network in FP16; the box decode is FP32 in every engine. Nothing falls back: what cannot
be built is an error that names the remedy.

Exit status: 0 built; 1 built, but ``--test`` found that it disagrees, so it was not put in place; 2 not built.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import onnx
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nudenet_build.evaluation import engine_check
from nudenet_build.evaluation.matching import Agreement
from nudenet_build.graph import export as graph_export
from nudenet_build.graph import precision as graph_precision
from nudenet_build.graph.onnx_file import GraphError
from nudenet_build.outputs import check_output
from nudenet_build.trt import builder, cuda_device, layers, plan_writer, runner, session, variant
from nudenet_build.trt.progress import BuildProgress
from nudenet_build.trt.session import Runtime
from nudenet_build.trt.variant import Precision, Variant
from nudenet_steps.cuda import runtime as cuda_runtime
from nudenet_steps.cuda.execution import ExecutionError
from nudenet_steps.files import write_whole
from nudenet_steps.preprocess.canvas import CANVASES, Canvas

ROOT = Path(__file__).resolve().parent.parent
PREFERRED_BATCHES = (8, 4)  # of nudenet_trt/config.pbtxt; the plan is tuned for the largest that fits
LATENCY_RUNS = 200
RTX_TARGETS = ("sm80", "sm86", "sm89", "sm120")  # A100, A10 and RTX 30, L4 and RTX 40, RTX 50

console = Console()
errors = Console(stderr=True)


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
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    if timing_cache:
        write_whole(timing_cache, built.timing_cache, plan_writer.READABLE)
    return built


def convolutions(built: builder.BuiltPlan, graph: Path) -> Counter[str]:
    """How many of the graph's convolutions the compiler runs in which type; empty where it does not tell."""
    nodes = onnx.load(graph).graph.node
    return layers.input_types(built.layers, [node.name for node in nodes if node.op_type == "Conv"])


def choose_targets(trt: ModuleType, names: str | None, gpu: cuda_device.Gpu | None) -> tuple[str, ...]:
    """Kinds of GPU that TensorRT for RTX compiles for: those named, else this machine's, else the usual ones.

    Raises:
        session.TensorRTError: TensorRT for RTX knows no such target.
    """
    if names is not None:
        return builder.targets(trt, names.split(","))
    if gpu is not None:
        try:
            return builder.targets(trt, [f"sm{gpu.compute_capability.replace('.', '')}"])
        except session.TensorRTError:
            console.print(
                f"[yellow]warning:[/yellow] this GPU, capability {gpu.compute_capability}, is not served by TensorRT "
                f"for RTX; building for {', '.join(RTX_TARGETS)}"
            )
    return builder.targets(trt, RTX_TARGETS)


def find_gpu(device: int, needed: bool) -> tuple[Any, cuda_device.Gpu | None]:
    """The CUDA runtime and the GPU to build on; None where there is none and none is needed.

    Raises:
        CudaError: it is needed, and CUDA or the GPU is not there.
    """
    try:
        cuda = cuda_runtime.load()
        return cuda, cuda_device.select(cuda, device)
    except cuda_runtime.CudaError:
        if needed:
            raise
        return None, None


def run_test(
    trt: ModuleType,
    cuda: Any,
    built: builder.BuiltPlan,
    options: builder.BuildOptions,
    precision: Precision,
    onnx_path: Path,
    images: Path,
) -> tuple[dict[str, float], list[str]]:
    """Compare the engine with ONNX Runtime FP32 at every input size and time it; prints both.

    Returns:
        the figures for the passport, and what is worse than allowed.
    """
    height, width = built.input_shape[1:]
    sizes = CANVASES if -1 in built.input_shape else (Canvas(height, width),)
    batches = range(options.min_batch, options.max_batch + 1)
    table = Table("input", "batch", "median ms", "p99 ms", "pictures/s", title="GPU time without copies")
    agreement, pictures = Agreement(), 0
    with runner.open_engine(trt, cuda, built.plan, options.max_batch, sizes) as engine:
        for size in sizes:
            inputs, geometries = engine_check.load_pictures(images, *size)
            reference = engine_check.reference_candidates(onnx_path, inputs)
            agreement.join(engine_check.compare(engine.infer, inputs, geometries, reference, batches))
            pictures += len(inputs)
            for batch in batches:
                rows = [i % len(inputs) for i in range(batch)]
                median, p99 = engine_check.median_and_p99(engine.latencies_ms(inputs[rows], LATENCY_RUNS))
                rate = f"{1000 * batch / median:.0f}"
                table.add_row(f"{size.height}x{size.width}", str(batch), f"{median:.3f}", f"{p99:.3f}", rate)
    faults = engine_check.faults(agreement, engine_check.LIMITS[precision.in_plan])
    if not faults:  # how fast a wrong answer comes does not matter
        console.print(table)
    console.print(
        f"against ONNX Runtime FP32, {pictures} pictures at batch {batches[0]} to {batches[-1]}: "
        f"F1 {agreement.f1:.4f} ({agreement.matched} matched, {agreement.missed} missed, {agreement.extra} extra), "
        f"mean IoU {agreement.mean_iou:.4f}, confidence changed by {agreement.max_confidence_change:.4f} at most"
    )
    return {"pictures": pictures, **agreement.as_dict()}, faults


def choose_variant(target: Runtime, live: bool, timing_cache: Path | None, targets: str | None) -> Variant:
    """Which engine is asked for.

    Raises:
        session.TensorRTError: options that do not fit together.
    """
    if target is Runtime.RTX:
        if timing_cache is not None:
            raise session.TensorRTError("--timing-cache is for --runtime tensorrt: TensorRT for RTX has none")
        if live:
            raise session.TensorRTError("--live is for --runtime tensorrt: an engine for RTX takes any canvas anyway")
        return variant.RTX
    if targets is not None:
        raise session.TensorRTError("--for is for --runtime rtx: TensorRT compiles for the GPU that is there")
    return variant.LIVE if live else variant.SPECIFIED


def find_library(wanted: Runtime | None) -> tuple[Runtime, ModuleType | session.TensorRTMissing]:
    """The runtime to build for, and its module, or why there is none: the graph is written all the same."""
    try:
        return session.load_installed(wanted)
    except session.TensorRTMissing as missing:
        return wanted or Runtime.TENSORRT, missing


def convert(
    precision: Annotated[Precision, typer.Option(case_sensitive=False, help="INT8 keeps FP16 around.")] = (
        Precision.FP16
    ),
    runtime: Annotated[
        Runtime | None, typer.Option(help="Default: what is installed; TensorRT where both are.", show_default=False)
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            "--for",
            help=f"RTX only: kinds of GPU. Default: this machine's, without one {','.join(RTX_TARGETS)}.",
            show_default=False,
        ),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="TensorRT only: the plan of configs/live.pbtxt, any canvas.")] = (
        False
    ),
    export_onnx_first: Annotated[bool, typer.Option("--export-onnx", help="Export the FP32 graph first.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Largest batch; config.pbtxt says 8.")] = 8,
    workspace: Annotated[float, typer.Option(min=0.0625, help="GPU memory for the kernels' scratch, in GB.")] = 2,
    calibration_data: Annotated[Path | None, typer.Option(help="calib_data.npy; INT8 needs it.")] = None,
    test: Annotated[bool, typer.Option("--test", help="Compare with ONNX Runtime FP32 and time it; needs a GPU.")] = (
        False
    ),
    images: Annotated[Path, typer.Option(help="Folder of JPEG files for --test.")] = ROOT / "tests" / "data",
    onnx_path: Annotated[
        Path | None,
        typer.Option(
            "--onnx", help="FP32 graph. Default: model.onnx, for any canvas model.dynamic.onnx.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where the engine goes, the converted graph beside it. Default: model.plan, model.live.plan or "
            "model.rtx.engine in nudenet_trt/1.",
            show_default=False,
        ),
    ] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="TensorRT only: makes the next build faster.")] = None,
    opt_level: Annotated[int, typer.Option(min=0, max=5, help="0 builds fastest, 5 searches longest.")] = 3,
    device: Annotated[int, typer.Option(min=0, help="Which GPU to build for.")] = 0,
) -> None:
    """Build the engine: TensorRT for this machine's GPU, or TensorRT for RTX for several kinds of GPU without one."""
    graph = None
    try:
        target, library = find_library(runtime)
        kind = choose_variant(target, live, timing_cache, targets)
        onnx_path = onnx_path or kind.graph
        output = output or kind.graph.with_name(kind.file_name)
        for path in filter(None, (output, timing_cache)):
            check_output(path, onnx_path, calibration_data)
        if export_onnx_first:
            check_output(onnx_path)
            kind.export(onnx_path)
        with console.status(f"converting the graph to {precision.in_plan}"):
            graph = variant.prepare_graph(kind, precision, onnx_path, calibration_data, output.parent)
        console.print(f"{graph}: the graph in {precision.in_plan}")
        if isinstance(library, session.TensorRTMissing):
            raise library
        cuda, gpu = find_gpu(device, needed=test or target is Runtime.TENSORRT)
        options = builder.BuildOptions(
            1,
            preferred_batch(batch_size),
            batch_size,
            workspace,
            opt_level,
            kind.inputs,
            target,
            choose_targets(library, targets, gpu) if target is Runtime.RTX else (),
        )
        there = (
            f"{gpu.name} (compute capability {gpu.compute_capability}, {gpu.free_bytes >> 20} MiB free)" if gpu else ""
        )
        console.print(f"{target.full_name} {library.__version__}, {there or 'no GPU'}")
        built = build(library, graph, options, timing_cache)
        types = convolutions(built, graph)
        accuracy: dict[str, float] | None = None
        faults: list[str] = []
        if test:
            accuracy, faults = run_test(library, cuda, built, options, precision, onnx_path, images)
        if faults:
            errors.print(
                f"convert_to_tensorrt: the engine disagrees with the FP32 graph: {'; '.join(faults)}. It was not put "
                f"at {output}. Build it again; if it stays, try another --opt-level or --precision",
                style="red",
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(1)
        passport = plan_writer.write(
            output, built, options, gpu, library.__version__, precision.in_plan, graph, accuracy, dict(types) or None
        )
    except (
        graph_export.ExportError,
        graph_precision.PrecisionError,
        GraphError,
        session.TensorRTError,
        cuda_runtime.CudaError,
        ExecutionError,
        engine_check.CheckError,
        OSError,
    ) as error:
        ready = f" The graph to build from is ready: {graph}." if graph else ""
        errors.print(f"convert_to_tensorrt: {error}.{ready}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    made_for = f", for compute capability {', '.join(passport.targets)}" if passport.targets else ""
    counted = ", ".join(f"{count} in {kind}" for kind, count in sorted(types.items()))
    console.print(
        f"{output}: {len(built.plan) >> 10} KiB, {passport.precision} (convolutions: {counted or 'types unknown'}), "
        f"batch 1 to {options.max_batch} tuned for {options.preferred_batch}{made_for}; its passport: "
        f"{plan_writer.plan_passport.path_for(output)}"
    )


if __name__ == "__main__":
    typer.run(convert)

"""Compile an ONNX graph: strongly typed, one code path for TensorRT 10.3 to 11.4 and TensorRT for RTX.

Precision is not decided here: the ONNX graph carries it, layer by layer, and a strongly typed network keeps it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nudenet_build.trt import layers
from nudenet_build.trt.layers import Layer
from nudenet_build.trt.progress import BuildProgress, cancel_on_interrupt, make_monitor
from nudenet_build.trt.session import Log, Runtime, TensorRTError
from nudenet_steps.cuda.execution import OUTPUT, make_logger
from nudenet_steps.preprocess.canvas import CANVASES, LARGEST, SPECIFIED

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How the plan is built. Precision is the graph's."""

    min_batch: int = 1
    preferred_batch: int = 8  # kernels are timed for this one
    max_batch: int = 8
    workspace_gb: float = 2.0
    optimization_level: int = 3  # 0 builds fastest, 5 searches longest; 3 is TensorRT's default
    inputs: tuple[str, ...] = ("input",)
    runtime: Runtime = Runtime.TENSORRT
    targets: tuple[str, ...] = ()  # of RTX: members of ComputeCapability, such as SM89; TensorRT compiles for the GPU


@dataclasses.dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine and the timings collected on the way, for the next build's timing cache."""

    plan: bytes
    timing_cache: bytes
    input_shape: list[int]  # channels, height, width; -1 where open
    warnings: list[str]  # the library's own and ours
    layers: list[Layer] = dataclasses.field(default_factory=list)  # none where the library does not list them


def _parse(trt: Any, network: Any, logger: Any, onnx_path: Path, log: Log) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(onnx_path)):
        return
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        reason = error.desc()
        if reason == "false":  # the parser's own check of an operator
            reason = "not an operator that this TensorRT takes"
        lines.append(f"  node {error.node_name() or error.node()} ({error.node_operator()}): {reason}")
    raise TensorRTError(
        f"TensorRT {trt.__version__} cannot read {onnx_path}:\n"
        + ("\n".join(lines) or log.last_errors())
        + "\nExport the graph again with --export-onnx; if it is your own, see which operators this TensorRT supports"
    )


def _input_shape(network: Any, onnx_path: Path, expected: tuple[str, ...]) -> list[int]:
    """Channels, height and width of the network's inputs."""
    names = [network.get_input(i).name for i in range(network.num_inputs)]
    outputs = [network.get_output(i).name for i in range(network.num_outputs)]
    if sorted(names) != sorted(expected) or outputs != [OUTPUT]:
        raise TensorRTError(
            f"{onnx_path} has inputs {names} and outputs {outputs}, nudenet_trt serves {list(expected)} and "
            f"['{OUTPUT}']; export the graph again with --export-onnx"
        )
    shapes = [list(network.get_input(i).shape) for i in range(len(names))]
    for shape in shapes:
        is_fixed = len(shape) == 4 and min(shape[1:]) >= 1
        if len(shape) != 4 or shape[:2] != [-1, 3] or not (is_fixed or shape[2:] == [-1, -1]) or shape != shapes[0]:
            raise TensorRTError(
                f"{onnx_path}: the inputs are {shapes}, expected [-1,3,height,width] with only the batch dynamic, or "
                "[-1,3,-1,-1] for any canvas; export the graph again with --export-onnx"
            )
    return shapes[0][1:]


def profile_shapes(options: BuildOptions, shape: list[int]) -> list[tuple[int, ...]]:
    """Least, best and largest input: the batches of `options`; where height and width are open, every canvas.

    Args:
        shape: channels, height and width of the network's input.
    """
    batches = (options.min_batch, options.preferred_batch, options.max_batch)
    if shape[1:] != [-1, -1]:
        return [(batch, *shape) for batch in batches]
    least = (min(canvas.height for canvas in CANVASES), min(canvas.width for canvas in CANVASES))
    return [(batch, 3, *size) for batch, size in zip(batches, (least, SPECIFIED, LARGEST), strict=True)]


def targets(trt: Any, names: Sequence[str]) -> tuple[str, ...]:
    """`names` such as "sm89" as members of the library's ComputeCapability.

    Raises:
        TensorRTError: one that TensorRT for RTX does not know, or none.
    """
    known = [name for name in dir(trt.ComputeCapability) if name.startswith("SM")]
    wanted = tuple(dict.fromkeys(name.strip().upper() for name in names if name.strip()))
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise TensorRTError(
            f"TensorRT for RTX {trt.__version__} does not compile for {', '.join(unknown).lower() or 'nothing'}; "
            f"--for takes {', '.join(known).lower()}. For other GPUs: --runtime tensorrt"
        )
    return wanted


def _failure(trt: Any, log: Log, options: BuildOptions, progress: BuildProgress) -> TensorRTError:
    """Why build_serialized_network returned nothing, with the remedy."""
    if progress.cancelled:
        return TensorRTError("the build was cancelled; nothing was written")
    if log.out_of_memory():
        less = max(options.workspace_gb / 2, 0.25)
        smaller = max(options.max_batch // 2, 1)
        return TensorRTError(
            f"the GPU ran out of memory while building with --workspace {options.workspace_gb:g} and "
            f"--batch-size {options.max_batch}. Try --workspace {less:g}; then --batch-size {smaller} "
            "(and max_batch_size in nudenet_trt/config.pbtxt); or stop what else uses this GPU (nvidia-smi). "
            f"TensorRT said:\n{log.last_errors()}"
        )
    if log.no_implementation():
        return TensorRTError(
            f"no kernel of TensorRT {trt.__version__} fits into --workspace {options.workspace_gb:g}. "
            f"Try --workspace {options.workspace_gb * 2:g}. TensorRT said:\n{log.last_errors()}"
        )
    return TensorRTError(
        f"TensorRT {trt.__version__} could not build the plan:\n{log.last_errors()}\n"
        "Try --opt-level 2, or --precision FP32 to see whether the precision is the reason"
    )


def _configure(trt: Any, builder: Any, options: BuildOptions) -> Any:
    """The builder's configuration, without profile, progress and timing cache."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gb * GIB))
    # What is FP32 in the graph stays FP32: TF32 would keep 10 of its 23 mantissa bits, silently.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # lists layers and their types
    if options.runtime is Runtime.RTX:
        config.num_compute_capabilities = len(options.targets)
        for i, name in enumerate(options.targets):
            if not config.set_compute_capability(getattr(trt.ComputeCapability, name), i):
                raise TensorRTError(f"TensorRT for RTX {trt.__version__} does not compile for {name.lower()}")
    return config


def _set_timing_cache(trt: Any, config: Any, content: bytes, log: Log) -> list[str]:
    """Use `content`, or start anew; returns warnings."""
    warnings = []
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        warnings.append("the timing cache is of another TensorRT or GPU: starting a new one")
        cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise TensorRTError(f"TensorRT {trt.__version__} refuses an empty timing cache:\n{log.last_errors()}")
    return warnings


def build_plan(
    trt: Any,
    onnx_path: Path,
    options: BuildOptions,
    progress: BuildProgress,
    timing_cache: bytes = b"",
) -> BuiltPlan:
    """Compile `onnx_path`: TensorRT for the GPU that is current, TensorRT for RTX for `options.targets` without one.

    Args:
        trt: the module from `session.load`.
        onnx_path: graph with `options.inputs` [batch,3,height,width], batch dynamic, height and width for any canvas;
            its types are kept as they are.
        timing_cache: of an earlier build, or empty; one of another TensorRT or GPU is put aside with a warning.
            TensorRT for RTX has none.

    Raises:
        TensorRTError: no GPU, a graph TensorRT cannot read, out of memory, cancelled; nothing was written.
    """
    log = Log()
    logger = make_logger(trt, log.hear)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind's way to say that the library returned a null pointer
        raise TensorRTError(
            f"TensorRT {trt.__version__} does not start: {error}\n{log.last_errors()}\n"
            "It needs an NVIDIA GPU and a driver new enough for its CUDA: see nvidia-smi; in a container, --gpus all"
        ) from error
    # The flag's number differs between 10 and 11, so it is always asked for.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, logger, onnx_path, log)
    shape = _input_shape(network, onnx_path, options.inputs)
    config = _configure(trt, builder, options)
    monitor = make_monitor(trt, progress)
    config.progress_monitor = monitor
    warnings = _set_timing_cache(trt, config, timing_cache, log) if options.runtime is Runtime.TENSORRT else []

    profile = builder.create_optimization_profile()
    shapes = profile_shapes(options, shape)
    for name in options.inputs:
        profile.set_shape(name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        least, best, largest = map(list, shapes)
        raise TensorRTError(
            f"TensorRT {trt.__version__} refuses the optimisation profile, input {least} to {largest} tuned for "
            f"{best}:\n{log.last_errors()}\nTry another --batch-size"
        )

    with cancel_on_interrupt(progress):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failure(trt, log, options, progress)
    if log.out_of_memory():
        warnings.append(
            "some kernels did not fit into the GPU's free memory while timing, so a slower one may have been chosen; "
            f"try --workspace {max(options.workspace_gb / 2, 0.25):g} or free the GPU and build again"
        )
    else:
        warnings += dict.fromkeys(f"{options.runtime.full_name}: {message}" for message in log.messages)
    timings = bytes(config.get_timing_cache().serialize()) if options.runtime is Runtime.TENSORRT else b""
    return BuiltPlan(bytes(plan), timings, shape, warnings, layers.read(log.layers))

"""Throughput against latency as an SVG."""

from __future__ import annotations

from pathlib import Path

from nudenet_tools.bench import promises


def draw(report: dict, path: Path) -> None:
    """Ensemble levels, p50 and p99, the in-process ceiling, and peers that answer requests.

    Args:
        report: with the part ``ensemble``.
        path: SVG file to write.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nudenet"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    levels = promises.levels(report)
    throughput = [load["throughput"] for load in levels]
    for key, style in (("p50", "o-"), ("p99", "s--")):
        axes.plot(throughput, [load[key] for load in levels], style, label=f"ensemble, {key}")
    for load in levels:
        axes.annotate(f"{load['level']:g}", (load["throughput"], load["p50"]), (4, -12), textcoords="offset points")
    ceiling = promises.ceiling(report)["throughput"]
    axes.axvline(ceiling, color="grey", linestyle=":", label=f"in process, {promises.number(ceiling)}/s")
    if "peers" in report["rounds"][0]:
        for name, peer in promises.peers(report).items():
            if peer["concurrency"] > 1:
                axes.plot(
                    peer["throughput"], peer["p50"], "x", markersize=9, label=f"{name}, {peer['concurrency']:g}, p50"
                )
    machine = report["machine"]
    axes.set(
        xlabel="pictures a second (720p JPEG to detections)",
        ylabel="latency, ms",
        title=f"{machine['cpu']}, {machine['cores']} cores, {report['engine']}; numbers: requests in flight",
        yscale="log",
        xlim=(0, None),
    )
    axes.title.set_fontsize(9)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)

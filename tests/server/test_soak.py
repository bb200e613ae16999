"""A steady load leaves nothing behind; `make chaos` takes ten minutes for it."""

from __future__ import annotations

from chaos.soak import soak
from nudenet_tools.server.process import Options, Ports, Server

# One region a Python instance. Triton's Python backend starts it with 1 MB, grows it by 1 MB whenever what is in it at
# one time does not fit, and never shrinks it. So it grows with the largest batch that has met the instance, not with
# the number of requests: two batches of eight at the most, since the next one is put there before the last has left.
# When the largest batch comes is chance; how far it can take the region is not.
MB = 1 << 20
BATCH = 8 * 4 * (3 * 180 * 320 + 1260 * 6)  # bytes of a full batch of the detector: pictures in, candidates out
MOST_A_REGION = 2 * BATCH + 2 * MB


def test_a_steady_load_leaves_nothing_behind(onnx_path):
    with Server(Options(ports=Ports.free())) as server:
        outcome = soak(server, period_s=2, periods=4)
    assert all(stream.errors == {} for stream in outcome.periods)
    assert len({sample.processes for sample in outcome.samples}) == 1
    assert outcome.growth("memory") < 0.05
    assert len({len(sample.regions) for sample in outcome.samples}) == 1
    assert max(outcome.samples[-1].regions) <= MOST_A_REGION
    assert outcome.samples[-1].files <= outcome.samples[0].files + 8  # a connection or two may still be closing

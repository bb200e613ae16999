"""A steady load leaves nothing behind; `make chaos` takes ten minutes for it."""

from __future__ import annotations

from chaos.soak import soak
from nudenet_tools.server.process import Options, Ports, Server


def test_a_steady_load_leaves_nothing_behind(onnx_path):
    with Server(Options(ports=Ports.free())) as server:
        outcome = soak(server, period_s=2, periods=4)
    assert all(stream.errors == {} for stream in outcome.periods)
    assert len({sample.processes for sample in outcome.samples}) == 1
    assert outcome.growth("memory") < 0.05
    assert outcome.samples[-1].shared - outcome.samples[0].shared <= 4 << 20  # it grows by 1 MB when a batch needs it
    assert outcome.samples[-1].files <= outcome.samples[0].files + 8  # a connection or two may still be closing

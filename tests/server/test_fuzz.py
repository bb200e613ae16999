"""A seeded run of mutated JPEGs; `make chaos` runs many more."""

from __future__ import annotations

from chaos.fuzz import fuzz


def test_mutated_pictures_never_hurt_server_or_neighbour(server):
    stubs = {model: server.stub_pids(model) for model in ("nudenet_preprocess", "nudenet_postprocess")}
    outcome = fuzz(server.grpc_url, server.process.pid, count=1000, seed=20)
    assert outcome.wrong == []
    assert outcome.tried == 1000
    assert 500 < outcome.refused < 1000  # the mutations are neither harmless nor all fatal
    assert stubs == {model: server.stub_pids(model) for model in stubs}
    assert outcome.memory_growth < 64 << 20

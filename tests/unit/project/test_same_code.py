"""Code that stands twice, because the client installs without the model repository, is the same in both places."""

import pytest

from nudenet_tools import ROOT

STEPS, CLIENT = ROOT / "model_repository/nudenet/1/nudenet_steps/preprocess", ROOT / "clients/python/nudenet_client"


@pytest.mark.parametrize("name", ["icc.py", "icc_tags.py", "colour.py", "colour_spaces.py"])
def test_server_and_client_read_colour_profiles_with_the_same_code(name):
    assert (STEPS / name).read_text() == (CLIENT / name).read_text()

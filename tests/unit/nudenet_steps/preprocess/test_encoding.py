"""`encoding.py`: base64 is read strictly and bounded before it is decoded."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudenet_steps.preprocess import encoding
from nudenet_steps.preprocess.jpeg import JpegError


@given(st.binary(max_size=200))
def test_what_was_encoded_comes_back(data):
    assert encoding.decode(base64.b64encode(data), 200) == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"/9j", "not base64"),
        (b"/9j/\n", "not base64"),
        (b" /9j/", "not base64"),
        (b"/9j/AA=", "not base64"),
        (b"_9j-", "not base64"),
        (b"/9j/====", "not base64"),
        (b"data:image/jpeg;base64,/9j/", "a data: URL"),
        (b"\xff\xd8\xff\xe0", "a JPEG's bytes are sent without encoding=base64"),
    ],
)
def test_anything_else_is_refused(text, message):
    refused = encoding.decode(text, 1000)
    assert isinstance(refused, JpegError)
    assert refused.reason == "not_base64"
    assert message in str(refused)


def test_the_limit_is_that_of_the_picture():
    assert encoding.decode(base64.b64encode(bytes(100)), 100) == bytes(100)
    refused = encoding.decode(base64.b64encode(bytes(103)), 100)
    assert isinstance(refused, JpegError)
    assert (refused.reason, str(refused)[:36]) == ("too_many_bytes", "140 characters of base64, the limit ")

"""Addresses of cameras: nothing that may be a user or a password is shown, and FFmpeg's errors repeat none."""

import threading

import pytest

from nudenet_tools.streams import addresses
from nudenet_tools.streams.source import Source, SourceError, file_stems

SECRETS = ("admin", "s3cret", "guest", "hunter2")


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("rtsp://10.0.0.5:554/stream@1", "rtsp://10.0.0.5:554/"),
        ("rtsp://admin:s3cret@cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://admin@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:s3/cret@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:s3@cret@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:s3@c/ret@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:12/34@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:s3?cret@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:12?34@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:s3#cret@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:s3cret@[fe80::1]:554/live", "rtsp://[fe80::1]:554/live"),
        ("http://cam:8080/video?user=admin&pwd=s3cret", "http://cam:8080/video"),
        ("http://cam/video.cgi?loginuse=admin&loginpas=s3cret&resolution=32", "http://cam/video.cgi?resolution=32"),
        ("http://10.0.0.5:81/stream?usr=admin&pwd=s3@cret&channel=1", "http://10.0.0.5:81/stream?channel=1"),
        ("http://cam/video?channel=2&subtype=1", "http://cam/video?channel=2&subtype=1"),
        ("http://cam/video?channel=admin:s3cret", "http://cam/video"),
        ("http://cam/video?stream=this-may-be-a-long-password", "http://cam/video"),
        ("http://cam?user=admin", "http://cam"),
        ("rtsp://cam/user=admin&password=s3cret&channel=1&stream=0.sdp", "rtsp://cam/channel=1&stream=0.sdp"),
        ("rtsp://cam/user=admin_password=s3cret_channel=1_stream=0.sdp", "rtsp://cam/"),
        ("rtsp://cam/channel=1_password=s3cret", "rtsp://cam/"),
        ("rtsp://cam/user%3Dadmin%26password%3Ds3cret/live", "rtsp://cam//live"),
        ("rtsp://cam/admin:s3cret/live", "rtsp://cam//live"),
        ("rtsp://cam/live;user=admin", "rtsp://cam/"),
        ("rtsp://cam/live#admin:s3cret", "rtsp://cam/live"),
        ("rtsp://not a host/live", "rtsp://.../live"),
        ("rtsps://nvr:7441/Ab3dEf1ghIjK9l2m?enableSrtp", "rtsps://nvr:7441/"),
        ("rtmp://live.example/app/live_44_s3cretJ8aB2xQ", "rtmp://live.example/app/"),
        ("rtsp://cam/token/hunter2/live", "rtsp://cam///live"),
        ("rtsp://cam/session-hunter2/live", "rtsp://cam//live"),
        ("rtsp://cam/0f8fad5b-d9cb-469f-a165-70867728950e/live", "rtsp://cam//live"),
        ("rtsp://cam/live%253Fpwd%253Ds3cret", "rtsp://cam/"),
        ("rtsp://cam/h264Preview_01_main", "rtsp://cam/h264Preview_01_main"),
        ("rtsp://cam/Streaming/Channels/101", "rtsp://cam/Streaming/Channels/101"),
        ("rtsp://cam/cam/realmonitor?channel=1&subtype=0", "rtsp://cam/cam/realmonitor?channel=1&subtype=0"),
        ("http://cam/axis-cgi/mjpg/video.cgi", "http://cam/axis-cgi/mjpg/video.cgi"),
        ("rtsp://nvr:8554/front_door-camera12", "rtsp://nvr:8554/front_door-camera12"),
    ],
)
def test_labels_hold_no_credentials(address, label):
    assert addresses.label(address) == label
    assert Source(address).label == label
    (stem,) = file_stems([Source(address)])
    for text in (label, stem, repr(Source(address))):
        assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://admin:s3/cret@cam/live", "rtsp://admin:s3%2Fcret@cam/live"),
        ("rtsp://admin:s3?c:ret@cam/live", "rtsp://admin:s3%3Fc%3Aret@cam/live"),
        ("rtsp://admin:s3%2F/cret@cam/live", "rtsp://admin:s3%2F%2Fcret@cam/live"),
        ("rtsp://admin:s3@cret@cam/live", "rtsp://admin:s3@cret@cam/live"),  # FFmpeg takes the last sign itself
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("http://10.0.0.5/video?user=a@b", "http://10.0.0.5/video?user=a@b"),
    ],
)
def test_ffmpeg_gets_passwords_that_it_can_read(address, expected):
    assert addresses.for_ffmpeg(address) == expected


def test_loopback_is_known_behind_credentials():
    assert addresses.is_loopback("http://127.0.0.1:8080/video")
    assert addresses.is_loopback("rtsp://admin:s3/cret@localhost/live")
    assert addresses.is_loopback("http://[::1]:80/")
    assert not addresses.is_loopback("http://cam/video?host=127.0.0.1")
    assert not addresses.is_loopback("http://127.0.0.1.example/")


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:s3cret@127.0.0.1:1/live",
        "rtsp://admin:s3/cret@127.0.0.1:1/live",
        "http://127.0.0.1:1/video?user=admin&pwd=s3cret",
        "http://127.0.0.1:1/user=admin&password=s3cret/list.m3u8",
        "nonsense://admin:s3cret@127.0.0.1/",
    ],
)
def test_errors_hold_no_credentials(address, capfd):
    with pytest.raises(SourceError) as caught:
        next(Source(address).frames(threading.Event()))
    said = "".join(capfd.readouterr())
    assert caught.value.__suppress_context__  # else a traceback would show FFmpeg's own error
    for text in (str(caught.value), said):
        assert not any(secret in text for secret in (*SECRETS, "cret"))


def test_errors_of_others_are_cleaned():
    address = "rtsp://admin:s3/cret@cam/live"
    assert addresses.hide(f"failed: '{address}'", address) == "failed: 'rtsp://cam/live'"
    assert addresses.hide(f"failed: '{addresses.for_ffmpeg(address)}'", address) == "failed: 'rtsp://cam/live'"
    assert addresses.hide("/a/b.mp4: failed", "/a/b.mp4") == "/a/b.mp4: failed"

"""Python client for the ``nudenet`` ensemble: pictures in, typed detections out.

    from nudenet_client import Client

    with Client("127.0.0.1:8001") as client:
        for found in client.detect("photo.jpg"):
            print(found.label, found.confidence, found.box)

`Client` blocks, `AsyncClient` is for asyncio. Every error they raise is a `ClientError`.
"""

from .aio import AsyncClient
from .client import Client
from .detections import Detection, Detections
from .errors import AccessRefused, ClientError, DeadlineExceeded, PictureError, RequestRefused, ServerUnavailable
from .pictures import Picture, file_to_jpeg, to_jpeg, upright_size
from .request import MAX_BATCH, Parameters
from .transport import Tls

__all__ = [
    "MAX_BATCH",
    "AccessRefused",
    "AsyncClient",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "Detection",
    "Detections",
    "Parameters",
    "Picture",
    "PictureError",
    "RequestRefused",
    "ServerUnavailable",
    "Tls",
    "file_to_jpeg",
    "to_jpeg",
    "upright_size",
]

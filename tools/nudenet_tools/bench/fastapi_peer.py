"""What people write first: NudeDetector behind FastAPI. Only `make bench` runs it, to compare with."""

from typing import Annotated, Any

from fastapi import Body, FastAPI

from nudenet_tools.bench.nude_detector import nude_detector

detector = nude_detector()
app = FastAPI()


# A plain function: FastAPI runs it in its thread pool, so that a detection does not block the event loop.
@app.post("/detect")
def detect(picture: Annotated[bytes, Body(media_type="image/jpeg")]) -> list[dict[str, Any]]:
    """Detections of one JPEG file, sent as the request's body."""
    return detector.detect(picture)

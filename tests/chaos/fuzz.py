"""Mutated JPEGs through the real server, each beside a good picture whose answer is known. Seeded."""

from __future__ import annotations

import io
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tritonclient.grpc as grpc
from PIL import Image

from helpers import hostile
from nudenet_steps.preprocess.canvas import CANVASES

ASTRONAUT = Path(__file__).parent.parent / "data" / "astronaut_720p.jpg"
IN_FLIGHT = 16
DEADLINE_S = 10.0  # a hang, on any machine


@dataclass
class Outcome:
    """What a run saw; `wrong` holds one line for each answer that must not be."""

    tried: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    # Resident bytes of server and stubs, last quarter of the run against the third. A decoder's process keeps what its
    # largest picture took: it grows in steps of up to 100 MB, and no more once it has met the largest mutants.
    memory_growth: float = 0.0
    wrong: list[str] = field(default_factory=list)


def seeds() -> list[bytes]:
    """Small files of every kind that the decoder treats differently."""
    picture, astronaut = hostile.photo(161, 97), Image.open(ASTRONAUT)
    return [
        ASTRONAUT.read_bytes(),
        hostile.encode(astronaut.resize((320, 180)), quality=85),
        hostile.encode(astronaut.resize((640, 360)), progressive=True),
        hostile.encode(picture, subsampling=0),
        hostile.encode(picture, subsampling=1, restart_marker_blocks=4),
        hostile.subsampled_441(64, 64, (200, 30, 60)),
        hostile.encode(picture.convert("L"), progressive=True),
        hostile.encode(picture.convert("CMYK")),
        hostile.with_exif_orientation(hostile.encode(picture), 6),
        hostile.progressive_bomb(256, 256, 20),
        hostile.many_scans(40),
    ]


def mutate(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """One to four edits: bits, bytes, sizes, lengths, pieces cut out, doubled, or taken from another file."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        # Half of the edits hit the headers, where the decisions are made.
        end = min(len(changed), 700) if rng.random() < 0.5 else len(changed)
        at = int(rng.integers(2, max(3, end)))
        length = int(rng.integers(1, 64))
        match int(rng.integers(9)):
            case 0:
                changed[at : at + 1] = bytes([changed[min(at, len(changed) - 1)] ^ 1 << int(rng.integers(8))])
            case 1:
                changed[at : at + length] = rng.bytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = rng.bytes(length)
            case 4:
                changed[at:at] = changed[at : at + length * 16]
            case 5:
                other = others[int(rng.integers(len(others)))]
                start = int(rng.integers(len(other)))
                changed[at : at + length * 4] = other[start : start + length * 4]
            case 6:
                changed[at : at + 2] = bytes([0xFF, int(rng.integers(0xC0, 0x100))])
            case 7:
                changed[at : at + 2] = rng.choice([b"\0\0", b"\xff\xff", b"\0\2", b"\x7f\xff"])
            case _:
                del changed[at + (len(changed) - at) // int(rng.integers(1, 9)) :]
        if len(changed) < 4:
            return bytes(changed)
    return bytes(changed)


def neighbours() -> list[bytes]:
    """Good pictures with different answers."""
    astronaut = Image.open(io.BytesIO(ASTRONAUT.read_bytes()))
    boxes = [(0, 0, 1280, 720), (200, 0, 1280, 600), (300, 50, 900, 500), (100, 0, 1100, 720)]
    return [hostile.encode(astronaut.crop(box).resize((640, 360)), quality=90) for box in boxes]


def resident(pid: int) -> int:
    """Bytes of memory that a server and its stubs hold for themselves."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_info().rss - process.memory_info().shared for process in processes)


def _tensor(pictures: list[bytes]) -> list[grpc.InferInput]:
    tensor = grpc.InferInput("image", [len(pictures), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[picture] for picture in pictures], np.object_))
    return [tensor]


def _right_answers(client: grpc.InferenceServerClient, picture: bytes) -> list[np.ndarray]:
    """Detections of `picture` on each canvas: the request's largest picture decides which one it gets."""
    answers = [client.infer("nudenet", _tensor([picture]), client_timeout=60).as_numpy("detections")[0]]
    for canvas in CANVASES:
        plain = hostile.encode(Image.new("RGB", (canvas.width, canvas.height)))
        answer = client.infer("nudenet", _tensor([picture, plain]), client_timeout=60)
        answers.append(answer.as_numpy("detections")[0, : answer.as_numpy("num_detections")[0, 0]])
    return answers


def _check(answer, mutant_at: int, right: list[np.ndarray]) -> str | None:
    counts, errors = answer.as_numpy("num_detections")[:, 0], answer.as_numpy("error")[:, 0]
    good_at = 1 - mutant_at
    found = answer.as_numpy("detections")[good_at, : max(0, counts[good_at])]
    if errors[good_at] or len(found) not in {len(expected) for expected in right}:
        return f"neighbour has {counts[good_at]} detections ({errors[good_at]!r}), {len(right[0])} are right"
    if not any(len(found) == len(expected) and np.allclose(found, expected, atol=0.1) for expected in right):
        return "neighbour's boxes differ"
    if (counts[mutant_at] == -1) != bool(errors[mutant_at]):
        return f"mutant: {counts[mutant_at]} detections with error {errors[mutant_at]!r}"
    return None


def fuzz(url: str, pid: int, count: int, seed: int = 0, progress: Callable[[int], None] = lambda done: None) -> Outcome:
    """Send `count` mutants to the server at `url` (gRPC) with process id `pid`.

    Whatever the server does with a mutant, it must do it in time, and its neighbour's answer must be right.
    """
    rng = np.random.default_rng(seed)
    files, good = seeds(), neighbours()
    outcome, begin = Outcome(), time.monotonic()
    done: queue.Queue = queue.Queue()
    in_flight: dict[int, tuple[int, int, float]] = {}
    memory: list[int] = []
    with grpc.InferenceServerClient(url) as client:
        expected = [_right_answers(client, picture) for picture in good]

        def collect() -> None:
            number, result, error = done.get(timeout=2 * DEADLINE_S)
            mutant_at, which, sent = in_flight.pop(number)
            outcome.tried += 1
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - sent)
            complaint = str(error) if error is not None else _check(result, mutant_at, expected[which])
            if complaint:
                outcome.wrong.append(f"seed {seed}, mutant {number}: {complaint}")
            elif result.as_numpy("num_detections")[mutant_at, 0] == -1:
                outcome.refused += 1
            if outcome.tried % 100 == 0:
                memory.append(resident(pid))
                progress(outcome.tried)

        for number in range(count):
            while len(in_flight) >= IN_FLIGHT:
                collect()
            mutant = mutate(files[int(rng.integers(len(files)))], files, rng)
            mutant_at, which = int(rng.integers(2)), int(rng.integers(len(good)))
            pictures = [good[which], good[which]]
            pictures[mutant_at] = mutant
            in_flight[number] = (mutant_at, which, time.monotonic())
            client.async_infer(
                "nudenet",
                _tensor(pictures),
                callback=lambda result, error, number=number: done.put((number, result, error)),
                parameters={"on_error": "report"},
                client_timeout=DEADLINE_S,
            )
        while in_flight:
            collect()
    if len(memory) >= 4:
        third, last = np.array_split(memory, 4)[2:]
        outcome.memory_growth = float(np.median(last) - np.median(third))
    outcome.seconds = time.monotonic() - begin
    return outcome

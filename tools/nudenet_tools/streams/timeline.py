"""Time stamps of a recording as a clock that only goes forward."""

from __future__ import annotations

_LONGEST_GAP = 10.0  # seconds between two frames, or five frames of a time lapse; what is longer is a jump
_JITTER = 1.5  # frames that a stamp may lie before the one before it, without being a jump


class Timeline:
    """Seconds since the first frame. A jump of the stamps, back or far ahead, counts as one frame's time.

    Recordings of cameras jump where the camera set its clock, was off, or where two files were joined.
    """

    def __init__(self, rate: float) -> None:
        """`rate`: frames a second as the file has it, for frames without a stamp and across jumps."""
        self._frame = 1 / rate
        self._longest = max(_LONGEST_GAP, 5 * self._frame)
        self._stamp: float | None = None  # of the frame before
        self._now: float | None = None

    def seconds(self, stamp: float | None) -> float:
        """The time of the next frame, whose file says `stamp` seconds, or nothing."""
        if self._now is None:
            self._now = 0.0
        elif stamp is None or self._stamp is None:
            self._now += self._frame
            if stamp is None and self._stamp is not None:
                stamp = self._stamp + self._frame
        else:
            step = stamp - self._stamp
            if -_JITTER * self._frame <= step < 0:
                return self._now
            self._now += step if 0 <= step <= self._longest else self._frame
        self._stamp = stamp
        return self._now

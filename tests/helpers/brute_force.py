"""What a rule must say about a stream, from the definitions in docs/rules.md, looking at all frames at once."""

from __future__ import annotations

from nudenet_tools.rules.rule_file import Rule


def brute_force(rule: Rule, frames: list[tuple[float, float | None]]) -> list[tuple]:
    """`frames` are (time, confidence of a hit or None).

    Returns:
        (kind, time, reason, level, best confidence, hits) of each message.
    """
    messages, first, opened, ended, level = [], 0, None, float("-inf"), ""

    def say(kind, time, reason, begin, stop):
        hits = [confidence for _, confidence in frames[begin:stop] if confidence is not None]
        messages.append((kind, time, reason, level, max(hits), len(hits)))

    for i, (time, confidence) in enumerate(frames):
        if i and round(time - frames[i - 1][0], 3) >= rule.lost_after:
            lost = frames[i - 1][0] + rule.lost_after
            if opened is not None:
                say("end", lost, "stream_lost", opened, i)
                ended = lost
            first, opened = i, None
        if opened is None:
            window = frames[first : i + 1]
            if rule.frames:
                window = window[-rule.frames :]
            else:
                window = [frame for frame in window if round(time - frame[0], 3) < rule.seconds]
            enough = sum(frame[1] is not None for frame in window) >= rule.hits
            if confidence is not None and enough and time - ended >= rule.cooldown - 0.0005:
                opened, level, latest = i, "", time
                say("start", time, "", i, i + 1)
            continue
        last_hit = max(j for j in range(i + 1) if frames[j][1] is not None)
        if last_hit < i and round(time - frames[last_hit + 1][0], 3) >= rule.end_after:
            say("end", time, "quiet", opened, i + 1)
            first, opened, ended = i + 1, None, time
            continue
        reached = [step.level for step in rule.escalation if round(time - frames[opened][0], 3) >= step.after]
        new = reached[-1] if reached else ""
        if new != level or (rule.update_every and round(time - latest, 3) >= rule.update_every):
            level, latest = new, time
            say("update", time, "", opened, i + 1)
    return messages

"""What a step needs as a process of a Triton server: limits, counters, signs of life."""

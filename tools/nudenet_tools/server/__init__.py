"""One tritonserver on this machine: repository, tuning, start, status."""

"""Plain HTTP in front of Triton: pictures of any format in, JSON detections and verdicts out."""

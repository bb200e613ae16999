"""What the GPU steps share."""

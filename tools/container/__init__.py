"""What the images copy as a whole: health check, supervisor, plan check, entry point."""

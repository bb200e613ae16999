"""Picture files in and out, drawing."""

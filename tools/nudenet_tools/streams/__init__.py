"""Video streams through the server: where frames come from, who sends them, and what is made of the answers."""

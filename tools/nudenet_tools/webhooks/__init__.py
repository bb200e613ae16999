"""Deliver messages at least once: an outbox on disk, signed webhooks, JSON lines. See docs/rules.md."""

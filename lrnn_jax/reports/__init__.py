"""Runs read from disk, rendered as tables and plots."""

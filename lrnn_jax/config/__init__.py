"""Configs: fields and defaults, settings, identity, files, checks, durations."""

"""Runs on disk: the folder of one, its checkpoints, and the store of many."""

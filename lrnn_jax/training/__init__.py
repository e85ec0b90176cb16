"""The trainer and what it needs: optimiser, compiled steps, checkpoints, run folders, logging."""

"""Training: the step, the compiled program, the loop, batches, optimiser, evaluation, loggers."""

"""Many runs: their combinations, and how they are trained: one after another, side by side, or on a cluster."""

"""Many runs: which of them a table needs, and where they are."""

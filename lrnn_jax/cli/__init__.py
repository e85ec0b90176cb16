"""The command `lrnn`: one file per verb."""

"""One file is one paper's layer."""

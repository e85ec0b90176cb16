"""Questions asked of a finished run: spectra, generation."""

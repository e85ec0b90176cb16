"""Files on disk: where documents come from, tokenizers, and packed token arrays."""

"""Times of scans, layers, training steps and decoding, with what each of them is compared with in the same run."""

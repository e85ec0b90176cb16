"""What surrounds a layer: norms, convolution, channel mixers, the backbone."""

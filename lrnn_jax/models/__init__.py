"""What surrounds a layer: encoders, norms, blocks, channel mixers, heads, the backbone."""

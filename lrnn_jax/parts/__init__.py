"""What layers are made of: dense maps, convolutions, norms, initialisers, the contract of layers, the delta rule."""

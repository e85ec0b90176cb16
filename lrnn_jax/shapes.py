"""The one legend of dimension letters, used in docstrings, array annotations and einsums.

======  ==========================================================================
letter  meaning
======  ==========================================================================
B       batch: independent sequences
T       time: positions in a sequence
D       model width: features between blocks
H       heads
N       state size: scalars per channel (Mamba) or per layer (diagonal, LRU); inside
        chunked scans the number of chunks
E       expanded width inside a layer (Mamba's ``expand * D``)
J       writes of one position (DeltaProduct); past inputs that a convolution keeps
K       key dimension of one head
V       value dimension of one head
P       features of one head that are inputs and outputs alike (sLSTM)
F       features that a convolution or an encoder takes
Q       queries: the last of the positions that attention looks at
G       groups of heads that share queries and keys
M       block size (BD-LRU) or order (H-LRU)
C       chunk: consecutive time steps handled together
W       positions that a cache holds: one fewer than a window of attention
L       layers (blocks of the backbone)
S       seeds trained side by side
R       rows of one example (two documents that are compared)
O       outputs: classes, vocabulary, or numbers to be met
======  ==========================================================================

Batch comes first and time second everywhere: ``[B T ...]``, or ``[B R T ...]``. Axes after time are features.
"""

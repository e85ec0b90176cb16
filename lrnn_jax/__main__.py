"""``python -m lrnn_jax`` is the command ``lrnn``."""

import sys

from lrnn_jax.cli.main import main

sys.exit(main())

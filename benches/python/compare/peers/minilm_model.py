"""MiniLM for the peers: the very model that Penstock serves, read by Penstock's own reader of weights."""

import os
import sys

# Behind the peer's own packages: the repository, and the environment in which the weights lie.
sys.path += os.environ["PEER_MODEL_PATH"].split(os.pathsep)

from examples.minilm import MiniLM

MAX_BATCH = 64
model = MiniLM.load()

"""NeuroGate serves LLMs from a fleet of ordinary machines."""

import os

__version__ = "0.1.0"

# gRPC reads this when it is first imported, so it is said before anything of ours can. With its fork support on (its
# default), a process that speaks gRPC and starts a program may crash between fork and exec: the engine would not start.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

"""gRPC measured: the client and the door beside their peers, and both doors of one model at once."""

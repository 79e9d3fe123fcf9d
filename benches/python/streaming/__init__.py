"""Streamed answers: what a token costs the server and the client, and who holds up whom."""

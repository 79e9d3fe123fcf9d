"""What the gateway costs, and what it spares the server behind it."""

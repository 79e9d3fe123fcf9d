"""What being watched costs a server."""

"""The models and the application behind `make demo`."""

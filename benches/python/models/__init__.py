"""What a model cache costs, and how soon it has a model: run `python -m benches.python.models`."""

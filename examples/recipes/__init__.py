"""Models of other people's formats in a model directory: scikit-learn, Transformers, PyTorch.

`python -m examples.recipes DIR` writes the directory, `penstock serve --models DIR` serves it.
"""

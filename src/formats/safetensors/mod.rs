//! Weights in the safetensors format: a strict parser of its header, and the bytes behind it, mapped or read.

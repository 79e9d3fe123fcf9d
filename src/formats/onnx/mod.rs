//! Graphs in the ONNX format, run by the onnxruntime library that is loaded when the first one is opened.

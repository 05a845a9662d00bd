"""The engine on this machine: llama.cpp, onnxruntime and the scheduler."""

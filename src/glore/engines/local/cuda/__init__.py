"""The GPU backend: Triton kernels over pages, decode steps as CUDA graphs, drawing on the device."""

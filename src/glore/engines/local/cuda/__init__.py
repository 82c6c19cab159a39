"""The GPU backend: Triton kernels over pages, CUDA graphs for decode steps, drawing on the GPU."""

"""Faster copies of networks for testing: fused layers, CPU convolutions, CUDA graphs.

inference imports fuse and cuda_graphs; this package imports models and the base
modules (jit, files, ...) only.
"""

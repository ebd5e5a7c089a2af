"""Faster networks: fused layers, CPU convolutions and CUDA graphs, for testing and for training.

inference, export and engine import it; this package imports models and the base modules (jit,
files, ...) only.
"""

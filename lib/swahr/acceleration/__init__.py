"""Faster copies of networks for testing: fused layers, CPU convolutions, CUDA graphs.

inference imports fuse and cuda_graphs; this package imports only models and the ground floor.
"""

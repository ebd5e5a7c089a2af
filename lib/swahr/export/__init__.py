"""Networks written as ONNX files, and checked against PyTorch before they are kept.

commands/export.py uses it; inference.exported_network runs the files.
"""

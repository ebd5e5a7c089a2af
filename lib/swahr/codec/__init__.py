"""Joints to training targets, and maps to people: encoding and its inverse.

May be imported by losses, data, inference, evaluation and engine; imports models and the base
modules (skeleton, geometry, files, jit, ...) only.
"""

"""Heads: features to maps. One file each; the names for MODEL.HEAD are in models.build.

They may be imported from anywhere above models. Of models they import blocks, depthwise and
network only.
"""

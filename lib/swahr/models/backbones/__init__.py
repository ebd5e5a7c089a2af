"""Backbones: images to features. One file each; the names for MODEL.BACKBONE are in models.build.

They may be imported from anywhere above models. Of models they import blocks, depthwise, network
and helpers in this folder only.
"""

"""Backbones: images to features. One file each; the names for MODEL.BACKBONE are in models.build.

They may be imported from anywhere above models, and import models.blocks and models.network only.
"""

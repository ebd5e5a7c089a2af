"""From images to people: test-time augmentation around the network, and the predictor behind
validation and tools.
"""

"""From images to people: test-time augmentation around the network, and the predictor that
validation and the tools use. Imports codec, data, acceleration, models and the base modules.
"""

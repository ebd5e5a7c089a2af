"""From pictures to people: test-time augmentation around the network, and the predictor that validation and users share."""

"""HRNet and HigherHRNet with the scale heads of SWAHR: network, weights, size, and a faster copy
for testing.
"""

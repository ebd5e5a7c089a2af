"""Bottom-up multi-person pose estimation: HigherHRNet with scale-adaptive heatmap regression
(SWAHR).
"""

__version__ = "1.0.0"

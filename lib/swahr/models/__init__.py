"""Networks: backbone and head, how they are built from the configuration, their weights and size.

Everything above may import models.build, models.network and models.weights; models import only
base modules (skeleton, exported, files, parts).
"""

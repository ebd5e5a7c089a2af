"""What runs for hours: training and validation, on one process or many."""

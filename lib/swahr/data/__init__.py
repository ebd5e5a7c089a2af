"""Data sets in COCO's format: annotations checked and repaired, images read, training batches made.

May be imported by inference, engine, converters, report and tools; imports nothing of losses,
evaluation or engine.
"""

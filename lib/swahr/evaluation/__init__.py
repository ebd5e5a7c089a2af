"""COCO result files, and average precision by the protocols of COCO and CrowdPose.

May be imported by engine and tools; imports nothing of data, engine or config.
"""

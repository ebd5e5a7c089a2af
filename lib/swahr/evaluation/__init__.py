"""People found against people labelled: COCO result files and the average precision tables of COCO
and CrowdPose.
"""

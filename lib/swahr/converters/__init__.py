"""Label files of other tools turned into COCO's format, with images and a skeleton file beside it.

coco writes the files; lsp and dlc read what they are made from. May be imported by tools; imports
data, skeleton, geometry and files only.
"""

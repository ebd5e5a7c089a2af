"""Training, validation and inference loops, on one process or many.

May be imported by tools and swahr.api; imports every package but synthetic, converters, export,
report, ablation and commands.
"""

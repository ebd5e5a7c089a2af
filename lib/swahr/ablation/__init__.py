"""Several configurations trained with several seeds, and what comes out compared.

plan names the runs, processes trains and tests those that are missing, scale_maps reads the scale
maps that were learnt, figures collects and compares, page and charts write the result. May be
imported by commands; imports report, engine and what these use.
"""

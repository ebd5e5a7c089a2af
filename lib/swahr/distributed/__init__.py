"""Processes: who this one is, small collectives, starting and stopping them.

comm answers rank questions without a group too; launch starts processes; signals makes requests to
stop visible between steps. May be imported from anywhere; imports allocator only.
"""

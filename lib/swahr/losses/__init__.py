"""Losses: the criterion is a list of terms, each a function of one stage's output and target.

May be imported by the training code only; imports models and codec.
"""

"""The report on a set of results: one HTML file that says how good the results are, and why.

swahr.evaluation.matching and pixels match people; errors names the kinds of
errors and what each costs; breakdown groups the figures by size, crowding and keypoint; charts,
gallery and page turn them into HTML. May be imported by tools and ablation; imports evaluation,
data and visualize.
"""

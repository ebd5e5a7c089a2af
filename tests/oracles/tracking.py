"""IDF1 of tracks, written from its definition.

E. Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking,
ECCVW 2016: true and predicted tracks are assigned to each other one to one so that most detections
agree; IDF1 = 2 IDTP / (2 IDTP + IDFP + IDFN).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment


def idf1(truth: Sequence[Sequence[int]], predicted: Sequence[Sequence[int | None]]) -> float:
    """truth, predicted: for each frame the true id and the predicted id (None: not found) of each
    true person. A predicted person who is nobody stands with the true id -1.
    """
    together: Counter[tuple[int, int]] = Counter()
    true_count = 0
    predicted_count = 0
    for true_ids, found_ids in zip(truth, predicted, strict=True):
        for true_id, found_id in zip(true_ids, found_ids, strict=True):
            true_count += true_id >= 0
            predicted_count += found_id is not None
            if true_id >= 0 and found_id is not None:
                together[true_id, found_id] += 1
    true_ids_all = sorted({pair[0] for pair in together})
    found_ids_all = sorted({pair[1] for pair in together})
    table = np.array([[together[a, b] for b in found_ids_all] for a in true_ids_all])
    rows, columns = linear_sum_assignment(table, maximize=True)
    agreed = table[rows, columns].sum()
    return float(2 * agreed / (true_count + predicted_count))

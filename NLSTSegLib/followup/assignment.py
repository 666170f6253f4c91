"""The cheapest one-to-one assignment (Kuhn 1955, Munkres 1957), by shortest augmenting paths."""

from __future__ import annotations

import numpy as np


def assign(cost: np.ndarray) -> np.ndarray:
    """Column of every row of ``cost`` (finite ``[n, m]``, n <= m), so that the sum of the costs is the smallest."""
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    # Column 0 stands for "none"; row_of[c] is the row, from 1, that holds column c.
    row_of = np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        row_of[0] = row
        column = 0
        least = np.full(columns + 1, np.inf)
        came_from = np.zeros(columns + 1, int)
        used = np.zeros(columns + 1, bool)
        while True:
            used[column] = True
            reduced = cost[row_of[column] - 1] - row_price[row_of[column]] - column_price[1:]
            nearer = ~used[1:] & (reduced < least[1:])
            least[1:][nearer] = reduced[nearer]
            came_from[1:][nearer] = column
            following = int(np.where(used, np.inf, least).argmin())
            step = least[following]
            row_price[row_of[used]] += step
            column_price[used] -= step
            least[~used] -= step
            column = following
            if row_of[column] == 0:
                break
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    result = np.empty(rows, int)
    for column in range(1, columns + 1):
        if row_of[column]:
            result[row_of[column] - 1] = column - 1
    return result

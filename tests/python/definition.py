"""The bytes of a merge, for every kind of adapter, in the operations and the order of docs/NUMERICS.md."""

import numpy as np
import torch

import reference
from joining import Edit, F32, Joined

LANES = 32  # partial sums of a row's squares


def evaluate(joined: Joined) -> dict[str, torch.Tensor]:
    """Every tensor of the merged model."""
    names = joined.names()
    return {
        name: evaluate_tensor(joined, name) if name in names else joined.base[name]
        for name in joined.base.keys() | names
    }


def evaluate_tensor(joined: Joined, name: str) -> torch.Tensor:
    weight = joined.weight(name)
    dtype = joined.base[name].dtype if name in joined.base else weight.dtype
    matrix = weight.float().numpy().reshape(joined.matrix(name)).copy()
    for row, values in joined.rows.get(name, []):
        matrix[row] = values.float().numpy()
    first = matrix.copy()
    for edit in joined.edits.get(name, []):
        apply(matrix, first, edit)
    assert matrix.dtype == np.float32
    return torch.from_numpy(matrix).reshape(weight.shape).to(dtype)


def apply(matrix: F32, first: F32, edit: Edit) -> None:
    delta = np.float32(edit.scale) * reference.panel_sums(edit.right, edit.left)
    rows = slice(edit.first, edit.first + len(delta))
    matrix[rows] += delta
    if edit.magnitude is not None:
        whole = first + delta
        norm = norm_of_columns(whole) if edit.norm_of_columns else norm_of_rows(whole)
        factor = edit.magnitude / norm
        matrix *= factor if edit.norm_of_columns else factor[:, None]


def norm_of_rows(matrix: F32) -> F32:
    """Squares are exact in double; lane l sums the columns that leave l, then halves are added to halves."""
    rows, columns = matrix.shape
    lanes = np.zeros((rows, LANES))
    for column in range(columns):
        lanes[:, column % LANES] += matrix[:, column].astype(np.float64) ** 2
    half = LANES // 2
    while half:
        lanes[:, :half] += lanes[:, half : 2 * half]
        half //= 2
    return np.sqrt(lanes[:, 0]).astype(np.float32)


def norm_of_columns(matrix: F32) -> F32:
    total = np.zeros(matrix.shape[1])
    for row in matrix:
        total += row.astype(np.float64) ** 2
    return np.sqrt(total).astype(np.float32)

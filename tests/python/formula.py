"""The result of a merge in float64, by the formula of each kind of adapter: neither PEFT's code nor the program's."""

import numpy as np
import torch

from joining import Edit, Joined

F64 = np.ndarray


def evaluate(joined: Joined) -> dict[str, F64]:
    """The values of the tensors that change, before they are rounded once."""
    return {name: evaluate_tensor(joined, name) for name in joined.names()}


def evaluate_tensor(joined: Joined, name: str) -> F64:
    weight = joined.weight(name).double().numpy()
    matrix = weight.reshape(joined.matrix(name)).copy()
    for row, values in joined.rows.get(name, []):
        matrix[row] = values.double().numpy()
    first = matrix.copy()
    for edit in joined.edits.get(name, []):
        apply(matrix, first, edit)
    return matrix.reshape(weight.shape)


def apply(matrix: F64, first: F64, edit: Edit) -> None:
    """`first` is what DoRA measures: the weights before the first adapter."""
    delta = edit.scale * (edit.left.astype(np.float64) @ edit.right.astype(np.float64))
    rows = slice(edit.first, edit.first + len(delta))
    matrix[rows] += delta
    if edit.magnitude is not None:
        norm = np.sqrt(((first + delta) ** 2).sum(axis=0 if edit.norm_of_columns else 1))
        factor = edit.magnitude / norm
        matrix *= factor if edit.norm_of_columns else factor[:, None]


def apart(actual: torch.Tensor, rounded: torch.Tensor, exact: F64) -> tuple[int, bool]:
    """How many elements are not the correctly rounded ones, and whether one is off by more than a step.

    Where base and delta cancel, a step of the result can be smaller than the fp32 error of the sum, so
    2^-20 of the largest element is allowed beside it.
    """
    distance = (actual.double() - rounded.double()).abs().numpy()
    info = torch.finfo(actual.dtype)
    step = np.maximum(np.abs(exact), info.tiny) * info.eps + np.abs(exact).max() * 2.0**-20
    return int((distance != 0).sum()), bool((distance > step).any())

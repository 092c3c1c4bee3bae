from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.retention import backward_transfer, forgetting, forward_transfer, mean_defined

NAN = math.nan
# Experience 0 peaks after experience 1; experience 1 is at its best right after learning.
EXAMPLE = np.array([[0.5, 0.8, 0.4], [NAN, 0.6, 0.3], [NAN, NAN, 0.9]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.3]),
        ({"relative": True}, [0.5, 0.5]),
        ({"reference": "diagonal"}, [0.1, 0.3]),
        ({"reference": "diagonal", "relative": True}, [0.2, 0.5]),
    ],
)
def test_forgetting_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(forgetting(EXAMPLE, **options), expected)


def test_the_end_is_no_reference_for_itself() -> None:
    # A gain at the end is negative forgetting, not zero.
    np.testing.assert_allclose(forgetting(np.array([[0.5, 0.7], [NAN, 0.9]])), [-0.2])


def test_transfer_by_hand() -> None:
    np.testing.assert_allclose(backward_transfer(EXAMPLE), [-0.1, -0.3])
    np.testing.assert_allclose(forward_transfer(EXAMPLE, [NAN, 0.5, 1.0]), [0.1, -0.1])


def test_relative_fall_from_zero() -> None:
    from_zero = np.array([[0.0, 0.0, 0.0], [NAN, 0.0, 0.25], [NAN, NAN, 1.0]])
    assert np.isnan(forgetting(from_zero, relative=True)).all()
    assert math.isnan(mean_defined(forgetting(from_zero, relative=True)))
    np.testing.assert_allclose(forgetting(from_zero), [0.0, -0.25])


def test_undefined_experiences_stay_undefined_and_out_of_the_mean() -> None:
    holed = EXAMPLE.copy()
    holed[1, :] = NAN
    for options in ({}, {"relative": True}, {"reference": "diagonal"}):
        falls = forgetting(holed, **options)  # type: ignore[arg-type]
        assert np.isnan(falls).tolist() == [False, True]
        assert mean_defined(falls) == falls[0]


def test_one_experience_has_nothing_to_forget() -> None:
    single = np.array([[0.5]])
    assert forgetting(single).shape == backward_transfer(single).shape == forward_transfer(single, [0.1]).shape == (0,)
    assert math.isnan(mean_defined(forgetting(single)))


def test_bad_input() -> None:
    with pytest.raises(CmlBenchError, match=r"\(2, 3\)"):
        forgetting(EXAMPLE[:2])
    with pytest.raises(CmlBenchError, match=r"\(0, 0\)"):
        backward_transfer(np.empty((0, 0)))
    with pytest.raises(CmlBenchError, match=r"\(2,\) for 3"):
        forward_transfer(EXAMPLE, [0.1, 0.2])
    with pytest.raises(CmlBenchError, match="reference='best'"):
        forgetting(EXAMPLE, reference="best")  # type: ignore[arg-type]

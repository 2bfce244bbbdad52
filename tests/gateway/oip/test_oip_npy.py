"""``.npy`` files without NumPy, against NumPy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dumbwaiter.gateway.oip.datatypes import BY_NPY, DATATYPES
from dumbwaiter.gateway.oip.npy import NotNpyError, read_npy, to_row_major, write_npy
from dumbwaiter.models.codecs_array import decode_npy

DTYPES = [np.dtype(one.npy) for one in BY_NPY.values()]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@given(ARRAYS)
def test_numpy_reads_what_is_written(array):
    datatype = BY_NPY[array.dtype.str[1:]]
    body = write_npy(datatype, array.shape, array.tobytes())
    for read in (np.load(io.BytesIO(body)), decode_npy(body)):
        assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(ARRAYS)
def test_it_is_what_numpy_writes_byte_for_byte(array):
    assert write_npy(BY_NPY[array.dtype.str[1:]], array.shape, array.tobytes()) == saved(array)


@given(ARRAYS, st.sampled_from("CF"), st.sampled_from("<>"))
def test_what_numpy_writes_is_read_in_any_order(array, order, bytes_first):
    written = np.asarray(array.astype(array.dtype.newbyteorder(bytes_first)), order=order)
    npy = read_npy(saved(written))
    assert (npy.datatype.npy, npy.shape, bytes(npy.data)) == (array.dtype.str, array.shape, array.tobytes())


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.sampled_from([1, 2, 4, 8]))
def test_columns_become_rows(shape, nbytes):
    array = np.arange(np.prod(shape), dtype=f"<u{nbytes}").reshape(shape)
    assert to_row_major(array.tobytes(order="F"), shape, nbytes) == array.tobytes()


def test_headers_of_version_2_are_read():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(3), version=(2, 0))
    assert read_npy(file.getvalue()).shape == (3,)


@pytest.mark.parametrize(
    "array",
    [np.zeros(2, complex), np.array(["a"]), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "f4")])],
    ids=["complex", "text", "dates", "records"],
)
def test_what_no_datatype_can_express_is_no_array_here(array):
    with pytest.raises(NotNpyError):
        read_npy(saved(array))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(junk):
    whole = saved(np.arange(6.0).reshape(2, 3))
    for body in (
        junk,
        whole[:10] + junk,
        whole[: len(junk)],
        whole + junk,
        whole[:20] + junk + whole[20 + len(junk) :],
    ):
        try:
            npy = read_npy(body)
        except NotNpyError:
            continue
        assert len(npy.data) == npy.datatype.nbytes * int(np.prod(npy.shape))


def test_every_datatype_but_bf16_has_a_npy_type_of_its_own():
    for name, datatype in DATATYPES.items():
        assert np.dtype(datatype.npy).itemsize == (4 if name == "BF16" else datatype.nbytes)

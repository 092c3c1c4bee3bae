"""The memory under tensors and arrays, as blocks of bytes that can be stored and put back."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cml_bench.errors import CmlBenchError

_ALIGNMENT = 64
"""Bytes. The place of a number within a cache line decides how vector units group a sum, and so its last bits."""

Place = tuple[str, int, int, int]
"""Device, first byte, the byte after the last, the byte where the data begin (between them, with a negative stride)."""


class MemoryWriter:
    """Collects what lies under tensors and arrays.

    Views that overlap come to lie in one block, so that after reading they share memory as before; bytes between views
    are not stored.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._storages: list[torch.UntypedStorage | None] = []

    def add_tensor(self, tensor: Tensor) -> int:
        """Take in a strided tensor; return its number."""
        size = tensor.element_size()
        reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        start = tensor.data_ptr()
        self._places.append((str(tensor.device), start, start + (size * reach if tensor.numel() else 0), start))
        self._storages.append(tensor.untyped_storage())
        return len(self._places) - 1

    def add_array(self, array: npt.NDArray[Any]) -> int:
        """Take in an array; return its number."""
        start = array.__array_interface__["data"][0]
        steps = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)]
        low, high = sum(step for step in steps if step < 0), sum(step for step in steps if step > 0)
        if array.size:
            self._places.append(("cpu", start + low, start + high + array.itemsize, start))
        else:
            self._places.append(("cpu", start, start, start))
        self._storages.append(None)
        return len(self._places) - 1

    def blocks(self) -> tuple[dict[str, Tensor], list[list[Any]]]:
        """Return blocks by name, (n,) uint8, and for each number its block, device and the byte where its data begin.

        The block of something without elements is None. Must be called while everything taken in is alive.
        """
        blocks: dict[str, Tensor] = {}
        where: list[list[Any]] = [[None, device, 0] for device, *_ in self._places]
        filled = [number for number, (_, low, high, _) in enumerate(self._places) if high > low]
        group: list[int] = []
        device, reached = "", 0
        for number in sorted(filled, key=lambda number: self._places[number]):
            here, low, high, _ = self._places[number]
            if group and (here != device or low >= reached):
                self._close(group, blocks, where)
                group, reached = [], 0
            group.append(number)
            device, reached = here, max(reached, high)
        if group:
            self._close(group, blocks, where)
        return blocks, where

    def _close(self, group: Sequence[int], blocks: dict[str, Tensor], where: list[list[Any]]) -> None:
        device, low = self._places[group[0]][:2]
        high = max(self._places[member][2] for member in group)
        name, shift = f"block{len(blocks)}", low % _ALIGNMENT
        blocks[name] = torch.zeros(shift + high - low, dtype=torch.uint8)
        storages = [storage for member in group if (storage := self._storages[member]) is not None]
        blocks[name][shift:] = _bytes_at(low, high - low, storages)
        for member in group:
            where[member] = [name, device, shift + self._places[member][3] - low]


def _bytes_at(address: int, count: int, storages: Sequence[torch.UntypedStorage]) -> Tensor:
    """Return a view of (count,) bytes of live memory, by way of a torch storage that holds them if there is one."""
    for storage in storages:
        start = address - storage.data_ptr()
        if start >= 0 and start + count <= storage.nbytes():
            return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, start, (count,), (1,))
    view = (ctypes.c_uint8 * count).from_address(address)
    return torch.from_numpy(np.ctypeslib.as_array(view))


def _demand_empty(shape: Sequence[int]) -> None:
    if 0 not in shape:
        raise CmlBenchError(f"a stored tensor of the shape {tuple(shape)!s:.60} has no block of memory")


class MemoryReader:
    """Makes tensors and arrays of stored blocks; those that shared memory share it again.

    Args:
        blocks: Blocks by name, as ``MemoryWriter`` gave them.
        where: Likewise.
    """

    def __init__(self, blocks: Mapping[str, Tensor], where: Sequence[Sequence[Any]]) -> None:
        self._stored = blocks
        self._where = where
        self._blocks: dict[str, Tensor] = {}

    def tensor(self, number: int, dtype: str, shape: Sequence[int], stride: Sequence[int]) -> Tensor:
        """Return a tensor.

        Raises:
            CmlBenchError: If it would reach out of its block.
        """
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype):
            raise CmlBenchError(f"a stored tensor has the type {dtype!r}, which torch does not know")
        name, device, start = self._where[number]
        if name is None:
            _demand_empty(shape)
            return torch.empty_strided(tuple(shape), tuple(stride), dtype=kind, device=device)
        block, made = self._block(name, device), torch.empty(0, dtype=kind, device=device)
        first, rest = divmod(start, made.element_size())
        steps = [(n - 1) * step for n, step in zip(shape, stride, strict=True)]
        if rest or min([first, *steps]) < 0 or (first + sum(steps) + 1) * made.element_size() > len(block):
            raise CmlBenchError("a stored tensor reaches out of its block of memory")
        return made.set_(block.untyped_storage(), first, tuple(shape), tuple(stride))

    def array(self, number: int, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> npt.NDArray[Any]:
        """Return an array; numpy refuses one that would reach out of its block."""
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise CmlBenchError(f"a stored array has the type {dtype!r}, which is no plain number or text")
        name, device, start = self._where[number]
        if name is None:
            _demand_empty(shape)
            return np.empty(tuple(shape), kind)
        buffer = self._block(name, device).numpy()
        return np.ndarray(tuple(shape), kind, buffer=buffer.data, offset=start, strides=tuple(strides))

    def _block(self, name: str, device: str) -> Tensor:
        if name not in self._blocks:
            # Fresh memory is aligned as torch aligns it, a mapped file is not.
            self._blocks[name] = self._stored[name].to(device, copy=True)
        return self._blocks[name]
